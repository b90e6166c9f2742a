"""task_claim: ready work goes to nodes it fits, once, and fairly."""

from __future__ import annotations

from redray import spec as specs
from redray.gcs import tasks
from tests.lua.builders import (
    DRIVER,
    NODE,
    NODE2,
    OTHER,
    Cluster,
    finish,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

IDS = [task_id(number) for number in range(1, 21)]


def submit(cluster: Cluster, count: int, **changes: object) -> list[str]:
    cluster.submit(*(packed(id, **changes) for id in IDS[:count]))
    return IDS[:count]


def test_a_claim_takes_what_fits_and_no_more(cluster: Cluster) -> None:
    submit(cluster, 5)
    assert cluster.claimed(free="CPU:3.9") == IDS[:3]
    assert [cluster.state(id) for id in IDS[:4]] == ["CLAIMED"] * 3 + ["QUEUED"]
    assert cluster.members(cluster.keys.node_tasks(NODE)) == set(IDS[:3])
    assert cluster.task(IDS[0])["node"] == NODE


def test_every_resource_must_fit(cluster: Cluster) -> None:
    submit(cluster, 3, demand="CPU:0.5,GPU:1")
    assert cluster.claimed(free="CPU:8") == []
    assert cluster.claimed(free="CPU:8,GPU:2") == IDS[:2]


def test_tasks_that_demand_nothing_fit_always(cluster: Cluster) -> None:
    submit(cluster, 4, demand="-")
    assert cluster.claimed(free="-") == IDS[:4]


def test_two_classes_share_the_free_resources(cluster: Cluster) -> None:
    cluster.submit(*(packed(id) for id in IDS[:3]), *(packed(id, demand="CPU:2") for id in IDS[3:6]))
    assert cluster.claimed(free="CPU:7") == IDS[:3] + IDS[3:5]


def test_busy_workers_take_more_of_their_queue_ahead_of_time(cluster: Cluster) -> None:
    submit(cluster, 6)
    assert cluster.claimed(free="CPU:1", rooms={f"CPU:1|{DRIVER}": 3}) == IDS[:4]


def test_what_starts_now_uses_the_resources_before_the_rooms(cluster: Cluster) -> None:
    """Else a second queue would be handed the CPUs that the first one's tasks are about to take."""
    cluster.submit(packed(IDS[0]), packed(IDS[1]), *(packed(id, demand="CPU:2") for id in IDS[2:4]))
    taken = cluster.claimed(free="CPU:2", rooms={f"CPU:1|{DRIVER}": 5})
    assert taken == IDS[:2]


def test_the_limit_holds(cluster: Cluster) -> None:
    submit(cluster, 9)
    assert len(cluster.claimed(free="CPU:9", limit=4)) == 4


def test_jobs_share_by_turns(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    submit(cluster, 10)
    cluster.submit(*(packed(task_id(n, OTHER)) for n in range(1, 11)), by=OTHER)
    jobs = [id[:16] for _ in range(8) for id in cluster.claimed(free="CPU:1")]
    assert sorted(jobs) == [DRIVER] * 4 + [OTHER] * 4


def test_a_new_job_is_not_owed_the_turns_it_did_not_use(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    submit(cluster, 20)
    cluster.claim(free="CPU:10")
    cluster.submit(*(packed(task_id(n, OTHER)) for n in range(1, 11)), by=OTHER)
    jobs = [id[:16] for _ in range(8) for id in cluster.claimed(free="CPU:1")]
    assert jobs.count(OTHER) == 4


def test_no_task_is_handed_out_twice(cluster: Cluster) -> None:
    submit(cluster, 3)
    assert cluster.claimed(NODE) == IDS[:3]
    assert cluster.claimed(NODE2) == []


def test_work_comes_with_what_is_known_of_its_arguments(cluster: Cluster) -> None:
    cluster.put(put_id(50), b"Vsmall")
    cluster.put(put_id(51), node=NODE2)
    cluster.submit(packed(IDS[0], waits_for=[put_id(50), put_id(51)]))
    (attempt, spec, news), *_ = cluster.claim()[1]
    assert attempt == 1
    assert specs.unpack_head(spec).task == IDS[0]
    assert text(news) == [["value", put_id(50), "Vsmall"], ["located", put_id(51), f"1000000 {NODE2}"]]


def test_an_empty_claim_is_remembered(cluster: Cluster) -> None:
    cluster.claim(free="CPU:3")
    assert cluster.hash(cluster.keys.idle) == {NODE: "CPU:3"}


def test_a_claim_that_left_resources_free_is_remembered_with_them(cluster: Cluster) -> None:
    """Else the next task of somebody else would wait for this node's next finish."""
    submit(cluster, 1)
    cluster.claim(free="CPU:3,GPU:0.5")
    idle = cluster.hash(cluster.keys.idle)[NODE]
    assert sorted(idle.split(",")) == ["CPU:2", "GPU:0.5"]
    cluster.submit(packed(IDS[5]))
    assert len(cluster.heard(NODE, "ring")) == 1


def test_a_claim_up_to_its_limit_is_not_idle(cluster: Cluster) -> None:
    submit(cluster, 5)
    cluster.claim(free="CPU:4", limit=2)
    assert cluster.hash(cluster.keys.idle) == {}


def test_a_claim_that_leaves_ready_work_rings_the_next_idle_node(cluster: Cluster) -> None:
    cluster.claim(NODE2, free="CPU:1")
    submit(cluster, 3)  # rings NODE2, which does not come
    cluster.claim(NODE2, free="-")
    cluster.claim(NODE2, free="CPU:1", limit=0)
    cluster.connection.call("HSET", cluster.keys.idle, NODE2, "CPU:1")
    before = len(cluster.heard(NODE2, "ring"))
    cluster.claim(NODE, free="CPU:1")
    assert len(cluster.heard(NODE2, "ring")) == before + 1


def test_a_repeated_claim_hands_the_same_work_again(cluster: Cluster) -> None:
    submit(cluster, 3)
    reply = cluster.claim(free="CPU:2")
    again = cluster.send_again()
    assert again[0] == b"REPEAT"
    assert again[1] == reply[1]


def test_a_repeated_claim_hands_again_only_what_is_still_this_nodes(cluster: Cluster) -> None:
    submit(cluster, 2)
    cluster.claim(free="CPU:2")
    claim = cluster.last_sent
    cluster.finish(finish(IDS[0]))
    cluster.last_sent = claim
    assert [specs.unpack_head(item[1]).task for item in cluster.send_again()[1]] == [IDS[1]]


def test_a_call_without_work_keeps_what_an_earlier_one_handed_out(cluster: Cluster) -> None:
    """A node has several calls on their way: a lost connection may lose the replies of all of them."""
    submit(cluster, 2)
    cluster.submit(packed(task_id(30)))
    cluster.claim(free="CPU:1")
    cluster.finish(finish(IDS[0]), limit=1, free="CPU:1")
    with_work = cluster.last_sent
    cluster.call(NODE, tasks.running([IDS[1]]))
    cluster.finish(finish(IDS[0]), limit=0)
    without = cluster.last_sent
    cluster.last_sent = with_work
    assert [specs.unpack_head(item[1]).task for item in cluster.send_again()[1]] == [IDS[1]]
    cluster.last_sent = without
    assert cluster.send_again() == [b"REPEAT", []]


def test_a_cancelled_task_is_not_handed_out(cluster: Cluster) -> None:
    submit(cluster, 2)
    cluster.cancel(IDS[0])
    assert cluster.claimed() == [IDS[1]]


def test_what_a_wake_made_ready_is_claimed(cluster: Cluster) -> None:
    cluster.submit(packed(IDS[0]), packed(IDS[1], waits_for=[returned(IDS[0])]))
    assert cluster.claimed() == [IDS[0]]
    reply = cluster.finish(finish(IDS[0]), limit=5, free="CPU:1")
    assert [specs.unpack_head(item[1]).task for item in reply[2]] == [IDS[1]]


# ---- priorities between queues ---------------------------------------------------------------------------------------
def test_what_is_more_urgent_goes_first_whatever_its_queue(cluster: Cluster) -> None:
    """CPU:1 and CPU:0.5 are two queues, each with an urgent and a common task, and each with a turn of its own."""
    cluster.driver(OTHER)
    cluster.submit(packed(IDS[0]), packed(IDS[1], priority=2), packed(IDS[2], demand="CPU:0.5"))
    cluster.submit(packed(task_id(1, OTHER), demand="CPU:0.5", priority=1), by=OTHER)
    order = [id for _ in range(4) for id in cluster.claimed(free="CPU:1", limit=1)]
    assert order[:2] == [IDS[1], task_id(1, OTHER)]
    assert sorted(order[2:]) == sorted([IDS[0], IDS[2]])


def test_one_claim_takes_the_urgent_ones_of_all_queues_first(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(*(packed(id) for id in IDS[:5]), packed(IDS[5], priority=1))
    cluster.submit(*(packed(task_id(n, OTHER), priority=1) for n in (1, 2, 3)), by=OTHER)
    taken = cluster.claimed(free="CPU:5")
    assert sorted(taken[:4]) == sorted([IDS[5], *(task_id(n, OTHER) for n in (1, 2, 3))])
    assert taken[4:] == IDS[:1]


def test_what_is_urgent_and_does_not_fit_lets_others_pass(cluster: Cluster) -> None:
    cluster.submit(packed(IDS[0], demand="CPU:8", priority=5), packed(IDS[1]))
    assert cluster.claimed(free="CPU:4") == IDS[1:2]
    assert cluster.claimed(free="CPU:8") == IDS[:1]


def test_a_cancelled_urgent_task_takes_its_urgency_along(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(packed(IDS[0], priority=1), packed(IDS[1], priority=-1))
    cluster.submit(packed(task_id(1, OTHER)), by=OTHER)
    cluster.cancel(IDS[0])
    assert cluster.claimed(free="CPU:1") == [task_id(1, OTHER)]
    assert cluster.claimed(free="CPU:1") == [IDS[1]]


def test_the_lowest_and_the_highest_priority_have_their_places(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(packed(IDS[0], priority=-128), packed(IDS[1], priority=127))
    cluster.submit(packed(task_id(1, OTHER)), by=OTHER)
    order = [id for _ in range(3) for id in cluster.claimed(free="CPU:1")]
    assert order == [IDS[1], task_id(1, OTHER), IDS[0]]


def test_jobs_still_share_after_an_urgent_task(cluster: Cluster) -> None:
    """The queue that was moved by its urgent task is owed no turns."""
    cluster.driver(OTHER)
    submit(cluster, 20)
    cluster.submit(*(packed(task_id(n, OTHER)) for n in range(1, 21)), by=OTHER)
    for _ in range(10):
        cluster.claim(free="CPU:1")
    cluster.submit(packed(task_id(21, OTHER), priority=1), by=OTHER)
    jobs = [id[:16] for _ in range(9) for id in cluster.claimed(free="CPU:1")]
    assert jobs[0] == OTHER
    assert abs(jobs[1:].count(OTHER) - jobs[1:].count(DRIVER)) <= 2


# ---- what stays ------------------------------------------------------------------------------------------------------
def test_a_claim_says_what_stays(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    submit(cluster, 3)
    cluster.submit(packed(task_id(1, OTHER)), packed(task_id(2, OTHER), demand="GPU:1"), by=OTHER)
    assert sorted(text(cluster.claim(free="CPU:1")[2])) == ["CPU:1", "GPU:1"]
    assert text(cluster.claim(free="CPU:4")[2]) == ["GPU:1"]


def test_a_finish_that_asks_for_no_work_says_nothing_of_it(cluster: Cluster) -> None:
    submit(cluster, 2)
    cluster.claim(free="CPU:1")
    assert cluster.finish(finish(IDS[0]))[3] == []
    assert text(cluster.finish(finish(IDS[0]), limit=1, free="-")[3]) == ["CPU:1"]
