"""task_submit: new tasks are recorded once, where they belong."""

from __future__ import annotations

import pytest

from redray.gcs import actors
from redray.gcs.client import ReplyError
from redray.gcs.tasks import submit
from tests.lua.builders import (
    DRIVER,
    NODE,
    OTHER,
    WORKER,
    Cluster,
    call,
    finish,
    handle,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

T1, T2, T3 = task_id(1), task_id(2), task_id(3)


@pytest.mark.parametrize(
    ("claims", "what", "complaint"),
    [
        ("", [], "a letter for each"),
        ("--", [packed(T1)], "a letter for each"),
        ("-", [packed(T1), packed(T2)], "a letter for each"),
        ("-", [b""], "task_submit.lua"),
        ("-", [b"\xff\xff\xff\xff"], "a letter for each"),
    ],
)
def test_malformed_batches_are_refused(cluster: Cluster, claims: str, what: list[bytes], complaint: str) -> None:
    before = cluster.dump()
    with pytest.raises(ReplyError, match=complaint):
        cluster.call(DRIVER, submit(claims, what))
    assert cluster.dump() == before


def test_a_ready_task_is_queued_and_held_by_its_submitter(cluster: Cluster) -> None:
    assert cluster.submit(packed(T1)) == [b"OK", 1]
    assert cluster.task(T1) == {
        "state": "QUEUED",
        "job": DRIVER,
        "name": "f",
        "attempt": "1",
        "retries": "3",
        "refs": "1",
        "node": "",
    }
    assert cluster.members(cluster.keys.holds(DRIVER)) == {returned(T1)}
    assert cluster.members(cluster.keys.job_tasks(DRIVER)) == {T1}
    assert text(cluster.connection.call("ZRANGE", cluster.keys.queues, 0, -1)) == [f"CPU:1|{DRIVER}"]


def test_a_task_waits_for_arguments_of_the_same_batch(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1), returned(T1)]))
    assert cluster.task(T2)["state"] == "WAITING"
    assert cluster.task(T2)["unready"] == "1"
    assert cluster.task(T1)["refs"] == "3"  # its holder and two arguments


def test_arguments_are_kept_alive_although_their_holder_lets_go(cluster: Cluster) -> None:
    cluster.put(put_id(7))
    cluster.submit(packed(T1, waits_for=[put_id(7)]), packed(T2, keeps=[put_id(7)]))
    cluster.release(put_id(7))
    assert cluster.object(put_id(7))["refs"] == "2"
    cluster.claim()
    cluster.finish(finish(T1), finish(T2))
    assert cluster.object(put_id(7)) == {}


def test_what_its_node_started_is_recorded_as_claimed_by_it(cluster: Cluster) -> None:
    cluster.worker(WORKER, NODE)
    cluster.submit(*(packed(task_id(n, WORKER), job=DRIVER) for n in (1, 2, 3)), by=WORKER, claims="RC-")
    assert [cluster.state(task_id(n, WORKER)) for n in (1, 2, 3)] == ["RUNNING", "CLAIMED", "QUEUED"]
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {task_id(1, WORKER), task_id(2, WORKER)}
    assert cluster.task(task_id(1, WORKER))["node"] == NODE


def test_several_returns_have_records_of_their_own(cluster: Cluster) -> None:
    cluster.submit(packed(T1, num_returns=3))
    assert cluster.task(T1)["alive"] == "3"
    assert cluster.object(returned(T1, 2)) == {"state": "PENDING", "refs": "1"}
    assert cluster.members(cluster.keys.holds(DRIVER)) == {returned(T1, index) for index in range(3)}


def test_a_task_without_returns_leaves_nothing(cluster: Cluster) -> None:
    cluster.submit(packed(T1, num_returns=0))
    assert cluster.claimed() == [T1]
    cluster.finish(finish(T1, ()))
    assert cluster.names() == set()


def test_nothing_is_taken_for_a_job_that_has_ended(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.end(DRIVER)
    before = cluster.names()
    assert text(cluster.submit(packed(task_id(1, WORKER), job=DRIVER), by=WORKER)) == ["JOB_ENDED"]
    assert cluster.names() == before
    assert text(cluster.send_again()) == ["JOB_ENDED"]  # a lost reply is told again


def test_an_argument_unknown_to_redis_is_not_counted_as_kept(cluster: Cluster) -> None:
    """Else the end of the task would take a reference away from whoever puts that object later."""
    cluster.submit(packed(T1, keeps=[put_id(7)], waits_for=[put_id(8)]))
    cluster.put(put_id(7))
    cluster.put(put_id(8))
    cluster.claim()
    cluster.finish(finish(T1))
    assert cluster.object(put_id(7))["refs"] == "1"
    assert cluster.object(put_id(8))["refs"] == "1"


def test_an_idle_node_which_the_demand_fits_is_rung_once(cluster: Cluster) -> None:
    cluster.claim(NODE, free="CPU:2")
    cluster.submit(packed(T1, demand="GPU:1"))
    assert cluster.heard(NODE, "ring") == []
    cluster.submit(packed(T2), packed(T3))
    assert len(cluster.heard(NODE, "ring")) == 1
    assert cluster.hash(cluster.keys.idle)[NODE].startswith("CPU:2 rung ")


def test_the_queue_is_in_the_order_of_submission(cluster: Cluster) -> None:
    ids = [task_id(number) for number in (5, 3, 8, 1)]
    cluster.submit(*(packed(id) for id in ids[:2]))
    cluster.submit(*(packed(id) for id in ids[2:]))
    assert cluster.claimed() == ids


def test_priority_then_depth_go_first(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, depth=2), packed(T3, priority=1))
    assert cluster.claimed() == [T3, T2, T1]


def test_more_than_lua_can_unpack_at_once(cluster: Cluster) -> None:
    ids = [task_id(number) for number in range(1, 9001)]
    for first in range(0, 9000, 4500):
        cluster.submit(*(packed(id) for id in ids[first : first + 4500]))
    assert cluster.connection.call("SCARD", cluster.keys.holds(DRIVER)) == 9000
    cluster.submit(packed(task_id(9999), waits_for=[returned(id) for id in ids]))
    assert cluster.task(task_id(9999))["unready"] == "9000"


# ---- what a lost node may have begun ---------------------------------------------------------------------------------
def test_a_lost_task_without_retries_is_not_run_again(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=0, num_returns=2), packed(T2, waits_for=[returned(T1)]), claims="L-")
    assert cluster.state(T1) == "FAILED"
    for index in range(2):
        assert "may have run it" in dict(cluster.heard(DRIVER, "value"))[returned(T1, index)]
        assert "TaskLostWithNode" in dict(cluster.heard(DRIVER, "value"))[returned(T1, index)]
    assert cluster.claimed() == [T2]
    cluster.finish(finish(T2))
    cluster.release(returned(T1), returned(T1, 1), returned(T2))
    assert cluster.names() == set()


def test_a_lost_task_with_retries_begins_its_second_attempt(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=1), claims="L")
    assert cluster.task(T1) | {"attempt": "2", "retries": "0", "state": "QUEUED", "node": ""} == cluster.task(T1)
    assert [item[0] for item in cluster.claim()[1]] == [2]


def test_a_lost_task_that_may_be_retried_for_ever_is(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=-1), claims="L")
    assert (cluster.task(T1)["attempt"], cluster.task(T1)["retries"]) == ("2", "-1")


def test_a_lost_task_waits_for_its_arguments(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]), claims="LL")
    assert cluster.state(T2) == "WAITING"
    assert cluster.claimed() == [T1]
    cluster.finish(finish(T1, attempt=2))
    assert cluster.claimed() == [T2]


def test_a_lost_task_sent_twice_is_lost_once(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=1), claims="L")
    assert text(cluster.send_again())[0] == "REPEAT"
    assert cluster.task(T1)["retries"] == "0"


# ---- calls of actors -------------------------------------------------------------------------------------------------
ACTOR = task_id(100)


def test_a_call_is_parked_until_its_actor_is_alive(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1))
    assert cluster.state(T1) == "QUEUED"
    assert cluster.object(handle(ACTOR))["refs"] == "2"


def test_a_call_of_a_living_actor_goes_to_its_node(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.claim()
    cluster.start_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1))
    assert cluster.task(T1)["state"] == "CLAIMED"
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {T1}
    assert [id for id, _ in cluster.heard(NODE, "call")] == ["1"]
    assert cluster.hash(cluster.keys.callers(ACTOR)) == {DRIVER: "1"}


def test_a_call_of_a_dead_or_unknown_actor_fails_and_leaves_nothing(cluster: Cluster) -> None:
    cluster.submit(call(T1, ACTOR, 1))
    assert cluster.state(T1) == "FAILED"
    assert "ActorDiedError" in str(cluster.heard(DRIVER, "value"))
    cluster.release(returned(T1))
    assert cluster.names() == set()


@pytest.mark.parametrize(("state", "error"), [("ALIVE", "ActorUnavailableError"), ("DEAD", "ActorDiedError")])
def test_a_lost_call_without_retries_is_not_made_again(cluster: Cluster, state: str, error: str) -> None:
    cluster.create_actor(ACTOR)
    cluster.claim()
    cluster.start_actor(ACTOR)
    if state == "DEAD":
        cluster.kill_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1), claims="L")
    assert cluster.state(T1) == "FAILED"
    assert error in dict(cluster.heard(DRIVER, "value"))[returned(T1)]
    assert cluster.heard(NODE, "call") == []


def test_a_lost_call_with_retries_is_made_again(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.claim()
    cluster.start_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1, max_retries=1), claims="L")
    assert cluster.task(T1)["state"] == "CLAIMED"
    assert [id for id, _ in cluster.heard(NODE, "call")] == ["2"]
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {T1}


def lost_with_its_actor(cluster: Cluster, max_retries: int) -> None:
    """The node of both the driver and the actor is gone, and nobody has taken that node apart yet."""
    cluster.driver(OTHER, route=NODE)
    cluster.create_actor(ACTOR, by=OTHER, record=actors.ActorRecord("", "space", "A", 0, 1, 1))
    cluster.claim()
    cluster.start_actor(ACTOR)
    cluster.driver(OTHER)
    cluster.submit(call(task_id(1, OTHER), ACTOR, 1, max_retries=max_retries), by=OTHER, claims="L")
    assert cluster.reap(NODE) == "DONE"


def test_a_call_lost_with_its_actor_costs_one_attempt(cluster: Cluster) -> None:
    lost_with_its_actor(cluster, max_retries=1)
    record = cluster.task(task_id(1, OTHER))
    assert (record["state"], record["attempt"], record["retries"]) == ("QUEUED", "2", "0")


def test_a_call_lost_with_its_actor_fails_without_retries(cluster: Cluster) -> None:
    lost_with_its_actor(cluster, max_retries=0)
    assert "ActorUnavailableError" in dict(cluster.heard(OTHER, "value"))[returned(task_id(1, OTHER))]


def test_a_call_while_its_actor_starts_again_costs_a_retry(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR, record=actors.ActorRecord("", "space", "A", 0, 1, 0))
    cluster.claim()
    cluster.start_actor(ACTOR)
    assert cluster.actor_died(ACTOR) == ["OK", "RESTARTING"]
    cluster.submit(call(T1, ACTOR, 1), call(T2, ACTOR, 2, max_retries=1))
    assert "ActorUnavailableError" in dict(cluster.heard(DRIVER, "value"))[returned(T1)]
    assert (cluster.state(T2), cluster.task(T2)["retries"]) == ("QUEUED", "0")


def test_a_call_of_an_actor_that_has_never_lived_cannot_have_been_lost(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1), claims="L")
    assert (cluster.state(T1), cluster.task(T1)["attempt"]) == ("QUEUED", "1")


def test_a_lost_call_with_retries_is_parked_until_its_actor_is_alive_again(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR, record=actors.ActorRecord("", "space", "A", 0, 1, 0))
    cluster.claim()
    cluster.start_actor(ACTOR)
    cluster.actor_died(ACTOR)
    cluster.submit(call(T1, ACTOR, 1, max_retries=1), claims="L")
    assert (cluster.state(T1), cluster.task(T1)["attempt"]) == ("QUEUED", "2")
