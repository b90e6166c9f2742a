"""node_register, lease_renew, node_reap, chore_do: a node lives by its lease, its death loses nothing in silence."""

from __future__ import annotations

import pytest

from redray.gcs import nodes, objects
from redray.gcs.actors import ActorRecord
from redray.gcs.schema import LIMITS
from tests.lua.builders import (
    DRIVER,
    LARGE,
    LATER,
    NODE,
    NODE2,
    NOW,
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

T1, T2, T3, A = task_id(1), task_id(2), task_id(3), task_id(100)
LEASE, GAP = LIMITS["LEASE_MS"], LIMITS["TICK_GAP_MS"]


def renew(cluster: Cluster, node: str, now: int, free: str = "") -> list[object]:
    reply = cluster.run(nodes.renew(cluster.keys, f"node:{node}", now, free))
    return list(text(reply))


# ---- leases ----------------------------------------------------------------------------------------------------------
def test_an_id_is_used_once(cluster: Cluster) -> None:
    assert cluster.run(nodes.register(cluster.keys, NODE, NOW, 1, {})) == [b"EXISTS"]


def test_a_new_node_learns_of_the_others(bare: Cluster) -> None:
    bare.node(NODE)
    reply = bare.run(nodes.register(bare.keys, NODE2, NOW, 1, {"host": "h"}))
    assert set(text(reply[1])) == {NODE, NODE2}
    assert bare.hash(bare.keys.node(NODE2)) == {"host": "h", "state": "ALIVE", "started": str(NOW), "pid": "1"}


def test_renewing_moves_the_end_of_the_lease(cluster: Cluster) -> None:
    assert renew(cluster, NODE, NOW + 1000, "CPU:3") == ["OK", "", 0, 0, 2, 0, 0]
    assert float(cluster.connection.call("ZSCORE", cluster.keys.leases, f"node:{NODE}")) == NOW + 1000 + LEASE
    assert cluster.hash(cluster.keys.node(NODE))["free"] == "CPU:3"


def test_who_renews_learns_whose_lease_is_over(cluster: Cluster) -> None:
    for at in range(NOW, NOW + LEASE, GAP):
        assert renew(cluster, NODE, at)[1] == ""
    assert renew(cluster, NODE, NOW + LEASE)[1] in (f"node:{NODE2}", f"driver:{DRIVER}")


def test_after_redis_was_away_nobody_is_named_for_one_lease(cluster: Cluster) -> None:
    renew(cluster, NODE, NOW)
    back = NOW + LEASE + GAP
    for at in range(back, back + LEASE, GAP):
        assert renew(cluster, NODE, at)[1] == ""
        assert cluster.reap(NODE2, at) == "GRACE"
    assert renew(cluster, NODE, back + LEASE)[1] != ""
    assert cluster.reap(NODE2, back + LEASE) == "DONE"


def test_an_unknown_member_must_start_as_a_new_one(cluster: Cluster) -> None:
    assert renew(cluster, "9" * 16, NOW) == ["FENCED"]


def test_a_node_is_not_reaped_before_its_lease_is_over(cluster: Cluster) -> None:
    assert cluster.reap(NODE, NOW + LEASE - 1) == "NOT_YET"
    assert cluster.hash(cluster.keys.node(NODE))["state"] == "ALIVE"
    assert cluster.reap(NODE, NOW + LEASE) == "DONE"


def test_to_reap_an_unknown_node(cluster: Cluster) -> None:
    assert cluster.reap("9" * 16) == "DONE"
    assert cluster.names() == set()


def test_a_reaped_node_is_fenced_and_remembered_for_a_while(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.reap(NODE)
    assert renew(cluster, NODE, LATER) == ["FENCED"]
    assert cluster.claim() == [b"FENCED"]
    assert cluster.finish(finish(T1)) == [b"FENCED"]
    assert cluster.run(nodes.register(cluster.keys, NODE, NOW, 1, {})) == [b"EXISTS"]
    assert cluster.connection.call("TTL", cluster.keys.node(NODE)) > 0
    assert cluster.reap(NODE) == "DONE"


def test_a_half_reaped_node_can_neither_renew_nor_be_forgotten(cluster: Cluster) -> None:
    for number in range(120):
        cluster.put(put_id(number), node=NODE)
    assert cluster.run(nodes.reap(cluster.keys, NODE, LATER, False)) == [b"MORE"]
    assert renew(cluster, NODE, LATER) == ["FENCED"]
    assert renew(cluster, NODE2, LATER)[1] == f"node:{NODE}"
    assert ("lost", "") in [(kind, id) for kind, id, _ in cluster.inbox(NODE)]
    assert cluster.reap(NODE) == "DONE"
    assert cluster.object(put_id(119))["state"] == "LOST"


def test_a_node_that_leaves_does_not_wait_for_its_lease(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    assert cluster.reap(NODE, NOW, leaving=True) == "DONE"
    assert cluster.open(DRIVER, "direct", "driver", DRIVER) == [b"OK", 0]  # its drivers stay


# ---- what it had -----------------------------------------------------------------------------------------------------
def test_its_tasks_run_elsewhere_and_each_costs_a_retry(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=1), packed(T2, max_retries=0), packed(T3, max_retries=-1))
    cluster.claim()
    cluster.reap(NODE)
    assert [cluster.state(task) for task in (T1, T2, T3)] == ["QUEUED", "FAILED", "QUEUED"]
    assert "TaskLostWithNode" in cluster.inbox(DRIVER)[0][2]
    assert (cluster.task(T1)["attempt"], cluster.task(T1)["retries"]) == ("2", "0")
    assert [item[0] for item in cluster.claim(NODE2)[1]] == [2, 2]


def test_tasks_of_an_ended_job_do_not_run_elsewhere(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, num_returns=0))
    cluster.claim()
    cluster.end(DRIVER)
    cluster.chores()
    cluster.reap(NODE)
    cluster.chores()
    assert cluster.names() == set()


def test_many_tasks_are_taken_in_slices(cluster: Cluster) -> None:
    ids = [task_id(number) for number in range(1, 181)]
    cluster.submit(*(packed(id) for id in ids))
    cluster.claim(free="CPU:200", limit=200)
    assert cluster.run(nodes.reap(cluster.keys, NODE, LATER, False)) == [b"MORE"]
    cluster.reap(NODE)
    assert {cluster.state(id) for id in ids} == {"QUEUED"}


def test_its_processes_end_but_drivers_get_a_lease(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    cluster.worker(WORKER)
    cluster.put(put_id(1, WORKER), by=WORKER)
    cluster.reap(NODE)
    cluster.chores()
    assert cluster.hash(cluster.keys.process(WORKER)) == {}
    assert cluster.object(put_id(1, WORKER)) == {}
    assert float(cluster.connection.call("ZSCORE", cluster.keys.leases, f"driver:{DRIVER}")) == LATER + LEASE
    assert cluster.put(put_id(2)) == [b"FENCED"]
    cluster.open(DRIVER, "direct", "driver", DRIVER)
    cluster.numbers[DRIVER] = 0
    assert cluster.put(put_id(2)) == [b"OK"]


def test_what_it_submitted_by_itself_is_taken_over(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    cluster.submit(packed(T1), packed(T2), claims="RC")
    cluster.reap(NODE)
    assert sorted(cluster.claimed(NODE2)) == [T1, T2]


def test_copies_elsewhere_stay(cluster: Cluster) -> None:
    cluster.put(put_id(1), node=NODE)
    cluster.call(NODE2, objects.located(True, [put_id(1)]))
    cluster.reap(NODE)
    assert cluster.object(put_id(1))["at"] == NODE2


def test_values_that_only_it_had_are_computed_again_or_lost(cluster: Cluster) -> None:
    cluster.put(put_id(1), node=NODE)
    cluster.submit(packed(T1), packed(T2, max_retries=0))
    cluster.claim()
    cluster.finish(finish(T1, [LARGE]), finish(T2, [LARGE]))
    cluster.driver("e" * 16)
    cluster.wait(put_id(1), by="e" * 16)
    cluster.reap(NODE)
    assert cluster.state(T1) == "QUEUED"
    assert cluster.state(T2) == "FAILED"
    assert cluster.object(put_id(1))["state"] == "LOST"
    cluster.wait(put_id(1), returned(T2))
    assert ["ObjectLostError" in data for _, _, data in cluster.inbox(DRIVER)[-2:]] == [True, True]
    assert cluster.claimed(NODE2) == [T1]
    cluster.finish(finish(T1, [LARGE], attempt=2), node=NODE2)
    cluster.release(put_id(1), returned(T1), returned(T2))
    assert cluster.names() == set()


@pytest.mark.parametrize("max_restarts", [0, 1])
def test_its_actors_restart_or_die(cluster: Cluster, max_restarts: int) -> None:
    cluster.create_actor(A, record=ActorRecord("name", "space", "A", 0, max_restarts, 0))
    cluster.claim()
    cluster.start_actor(A)
    cluster.submit(call(T1, A, 1, max_retries=0), call(T2, A, 2, max_retries=1), call(T3, A, 3, max_retries=1))
    cluster.reap(NODE)
    cluster.chores()
    assert cluster.state(T1) == "FAILED"
    if max_restarts:
        assert "ActorUnavailableError" in cluster.inbox(DRIVER)[0][2]
        assert cluster.claimed(NODE2) == [A]
        calls = cluster.start_actor(A, NODE2, attempt=2)[1]
        assert [item[0] for item in calls] == [2, 2]
        cluster.finish(finish(T2, attempt=2), finish(T3, attempt=2), node=NODE2)
        cluster.release(handle(A))
        cluster.actor_died(A, NODE2, attempt=2, final=True)
    else:
        assert cluster.state(T3) == "FAILED"
        assert all("ActorDiedError" in data for _, _, data in cluster.inbox(DRIVER))
        cluster.release(handle(A))
    cluster.release(returned(T1), returned(T2), returned(T3))
    assert cluster.names() == set()


def test_an_actor_that_was_starting_there_starts_elsewhere(cluster: Cluster) -> None:
    cluster.create_actor(A, record=ActorRecord("", "space", "A", 0, 1, 0))
    cluster.submit(call(T1, A, 1))
    cluster.claim()
    cluster.reap(NODE)
    assert cluster.claimed(NODE2) == [A]
    assert cluster.start_actor(A, NODE) == [b"FENCED"]
    assert len(cluster.start_actor(A, NODE2, attempt=2)[1]) == 1


# ---- chores ----------------------------------------------------------------------------------------------------------
def test_no_chores(cluster: Cluster) -> None:
    assert cluster.run(nodes.do_chore(cluster.keys, NOW)) == [b"DONE"]


def test_one_call_does_one_slice(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.put(put_id(1, WORKER), by=WORKER)
    cluster.end(WORKER)
    cluster.end(DRIVER)
    reply = text(cluster.run(nodes.do_chore(cluster.keys, NOW)))
    assert reply[0] == "MORE"
    cluster.chores()
    assert cluster.names() == set()
