"""actor_create, _started, _died, _kill: one actor per name, calls in order, and nothing left of the dead."""

from __future__ import annotations

from typing import Any

import pytest

from redray import spec as specs
from redray.gcs import objects, tasks
from redray.gcs.actors import ActorRecord
from redray.gcs.schema import LIMITS, Outcome
from tests.lua.builders import (
    DRIVER,
    FUNCTION,
    NODE,
    NODE2,
    OTHER,
    WORKER,
    Cluster,
    call,
    failure,
    finish,
    handle,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

A, B, T1, T2 = task_id(100), task_id(101), task_id(1), task_id(2)


def record(name: str = "", detached: int = 0, max_restarts: int = 0) -> ActorRecord:
    return ActorRecord(name, "space", "A", detached, max_restarts, 0)


def alive(cluster: Cluster, **options: Any) -> None:
    assert cluster.create_actor(A, record=record(**options)) == ["OK"]
    assert cluster.claimed() == [A]
    assert cluster.start_actor(A)[0] == b"OK"


def tasks_of(items: list[Any]) -> list[str]:
    return [specs.unpack_head(item[1]).task for item in items]


# ---- creation --------------------------------------------------------------------------------------------------------
def test_a_new_actor_is_pending_and_its_creation_queued(cluster: Cluster) -> None:
    assert cluster.create_actor(A, record=record("name")) == ["OK"]
    actor = cluster.hash(cluster.keys.actor(A))
    assert {key: actor[key] for key in ("state", "name", "namespace", "class", "job", "refs", "restarts", "node")} == {
        "state": "PENDING",
        "name": "name",
        "namespace": "space",
        "class": "A",
        "job": DRIVER,
        "refs": "1",
        "restarts": "0",
        "node": "",
    }
    assert cluster.claimed() == [A]


def test_a_name_is_claimed_once(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.create_actor(A, record=record("name"))
    other = task_id(100, OTHER)
    assert cluster.create_actor(other, by=OTHER, record=record("name")) == ["EXISTS", A]
    assert text(cluster.send_again()) == ["EXISTS", A]  # a lost reply is told again
    assert cluster.hash(cluster.keys.actor(other)) == {}
    assert cluster.create_actor(other, by=OTHER, record=ActorRecord("name", "elsewhere", "A", 0, 0, 0)) == ["OK"]


def test_a_name_is_free_as_soon_as_its_actor_is_dead(cluster: Cluster) -> None:
    cluster.create_actor(A, record=record("name"))
    cluster.kill_actor(A)
    assert cluster.create_actor(B, record=record("name")) == ["OK"]


def test_no_actor_is_created_for_a_job_that_has_ended(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.end(DRIVER)
    assert cluster.create_actor(task_id(1, WORKER), by=WORKER, job=DRIVER) == ["JOB_ENDED"]
    assert cluster.names() == {"chores"}


def test_a_creation_waits_for_its_arguments(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.create_actor(A, waits_for=[returned(T1)])
    assert cluster.state(A) == "WAITING"
    assert cluster.claimed() == [T1]
    cluster.finish(finish(T1))
    assert cluster.claimed() == [A]


# ---- alive -----------------------------------------------------------------------------------------------------------
def test_an_actor_that_has_started_gets_the_calls_that_waited(cluster: Cluster) -> None:
    cluster.create_actor(A)
    cluster.submit(*(call(task_id(n), A, n) for n in (1, 2, 3)))
    cluster.claim()
    outcome, calls, callers = cluster.start_actor(A)
    assert outcome == b"OK"
    assert tasks_of(calls) == [task_id(1), task_id(2), task_id(3)]
    assert text(callers) == [DRIVER, "3"]
    actor = cluster.hash(cluster.keys.actor(A))
    assert (actor["state"], actor["node"], actor["worker"]) == ("ALIVE", NODE, WORKER)
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {task_id(1), task_id(2), task_id(3)}
    assert cluster.members(cluster.keys.job_tasks(DRIVER)) == {task_id(1), task_id(2), task_id(3)}


def test_calls_come_in_slices(cluster: Cluster) -> None:
    count = LIMITS["SLICE"] + 5
    cluster.create_actor(A)
    cluster.submit(*(call(task_id(n), A, n) for n in range(1, count + 1)))
    cluster.claim()
    first = cluster.start_actor(A)
    assert first[0] == b"MORE"
    assert cluster.send_again() == first
    assert cluster.hash(cluster.keys.actor(A))["state"] == "PENDING"
    second = cluster.start_actor(A)
    assert second[0] == b"OK"
    assert tasks_of(first[1]) + tasks_of(second[1]) == [task_id(n) for n in range(1, count + 1)]


def test_a_lost_reply_with_calls_is_given_again(cluster: Cluster) -> None:
    """Whatever the node claimed meanwhile: the calls are marked as its own, and nobody else will run them."""
    cluster.create_actor(A)
    cluster.submit(call(T1, A, 1))
    cluster.claim()
    reply = cluster.start_actor(A)
    started = cluster.last_sent
    cluster.claim()
    cluster.last_sent = started
    assert cluster.send_again() == reply


def test_only_the_node_that_has_the_creation_can_start_it(cluster: Cluster) -> None:
    cluster.create_actor(A)
    cluster.claim(NODE)
    assert cluster.start_actor(A, NODE2) == [b"STALE"]
    assert cluster.start_actor(A, NODE, attempt=2) == [b"STALE"]
    assert cluster.start_actor(A, NODE)[0] == b"OK"
    assert cluster.start_actor(A, NODE) == [b"STALE"]


def test_an_actor_killed_while_it_started_is_stale(cluster: Cluster) -> None:
    cluster.create_actor(A)
    cluster.submit(call(T1, A, 1))
    cluster.claim()
    assert cluster.kill_actor(A) == ["OK"]
    assert cluster.heard(NODE, "kill") == [(A, "killed")]
    assert cluster.start_actor(A) == [b"STALE"]
    assert cluster.actor_died(A) == ["STALE"]
    cluster.chores()
    assert "ActorDiedError" in cluster.inbox(DRIVER)[-1][2]
    cluster.release(returned(T1), handle(A))
    assert cluster.names() == set()


# ---- its end ---------------------------------------------------------------------------------------------------------
def test_an_actor_without_restarts_dies_with_its_process(cluster: Cluster) -> None:
    cluster.put(put_id(7))
    cluster.create_actor(A, record=record("name"), keeps=[put_id(7)])
    cluster.release(put_id(7))
    cluster.claim()
    cluster.start_actor(A)
    assert cluster.object(put_id(7))["refs"] == "1"  # a restart would need it
    assert cluster.actor_died(A, cause="segfault") == ["OK", "DEAD"]
    assert cluster.object(put_id(7)) == {}
    assert cluster.hash(cluster.keys.actor(A))["cause"] == "segfault"
    cluster.submit(call(T1, A, 1))
    assert "segfault" in cluster.inbox(DRIVER)[-1][2]
    cluster.release(returned(T1), handle(A))
    assert cluster.names() == set()


def test_restarts_are_counted(cluster: Cluster) -> None:
    alive(cluster, max_restarts=1)
    assert cluster.actor_died(A) == ["OK", "RESTARTING"]
    assert cluster.claim(NODE2)[1][0][0] == 2
    cluster.start_actor(A, NODE2, attempt=2)
    assert cluster.hash(cluster.keys.actor(A))["restarts"] == "1"
    assert cluster.actor_died(A, NODE, attempt=1) == ["STALE"]
    assert cluster.actor_died(A, NODE2, attempt=2) == ["OK", "DEAD"]


def test_restarts_without_end(cluster: Cluster) -> None:
    alive(cluster, max_restarts=-1)
    for attempt in (1, 2, 3):
        assert cluster.actor_died(A, attempt=attempt) == ["OK", "RESTARTING"]
        cluster.claim()
        cluster.start_actor(A, attempt=attempt + 1)


def test_a_constructor_that_raises_is_final(cluster: Cluster) -> None:
    cluster.create_actor(A, record=record(max_restarts=-1))
    cluster.submit(call(T1, A, 1))
    cluster.claim()
    assert cluster.actor_died(A, final=True, cause="ValueError in __init__") == ["OK", "DEAD"]
    cluster.chores()
    assert "ValueError in __init__" in cluster.inbox(DRIVER)[-1][2]


def test_an_actor_that_dies_while_it_starts_restarts(cluster: Cluster) -> None:
    cluster.create_actor(A, record=record(max_restarts=1))
    cluster.claim()
    assert cluster.actor_died(A) == ["OK", "RESTARTING"]
    assert cluster.claimed() == [A]


def test_a_restart_waits_for_arguments_that_are_computed_again(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.finish(finish(T1, [None]))
    cluster.create_actor(A, record=record(max_restarts=1), waits_for=[returned(T1)])
    cluster.claim()
    cluster.start_actor(A)
    cluster.call(NODE, objects.located(False, [returned(T1)]))
    cluster.actor_died(A)
    assert cluster.state(A) == "WAITING"
    assert cluster.claimed() == [T1]
    cluster.finish(finish(T1, attempt=2))
    assert cluster.claimed() == [A]


@pytest.mark.parametrize("when", ["queued", "claimed", "alive", "restarting"])
def test_a_final_kill_at_any_time(cluster: Cluster, when: str) -> None:
    cluster.create_actor(A, record=record("name", max_restarts=-1))
    cluster.submit(call(T1, A, 1))
    if when != "queued":
        cluster.claim()
    if when in ("alive", "restarting"):
        cluster.start_actor(A)
    if when == "restarting":
        cluster.actor_died(A)
        cluster.finish(failure(T1, Outcome.HANDED_BACK))
    assert cluster.kill_actor(A) == ["OK"]
    assert cluster.hash(cluster.keys.actor(A))["state"] == "DEAD"
    assert len(cluster.heard(NODE, "kill")) == (when in ("claimed", "alive"))
    if when == "alive":
        cluster.finish(failure(T1, Outcome.CRASHED))
    cluster.chores()
    assert "ActorDiedError" in cluster.inbox(DRIVER)[-1][2]
    assert cluster.claimed() == []
    cluster.release(returned(T1), handle(A))
    assert cluster.names() == set()


def test_a_kill_that_allows_restarts_is_a_request_to_the_node(cluster: Cluster) -> None:
    alive(cluster, max_restarts=1)
    assert cluster.kill_actor(A, final=False) == ["OK"]
    assert cluster.heard(NODE, "kill") == [(A, "killed")]
    assert cluster.hash(cluster.keys.actor(A))["state"] == "ALIVE"
    assert cluster.actor_died(A) == ["OK", "RESTARTING"]


def test_to_kill_an_unknown_actor(cluster: Cluster) -> None:
    assert cluster.kill_actor(A) == ["NOT_FOUND"]
    assert text(cluster.send_again()) == ["NOT_FOUND"]


# ---- handles ---------------------------------------------------------------------------------------------------------
def test_without_handles_the_node_lets_it_end(cluster: Cluster) -> None:
    alive(cluster)
    cluster.submit(call(T1, A, 1))
    cluster.release(handle(A))
    assert cluster.heard(NODE, "retire") == []
    cluster.finish(finish(T1))
    assert cluster.heard(NODE, "retire") == [(A, "")]
    cluster.actor_died(A, final=True)
    cluster.release(returned(T1))
    assert cluster.names() == set()


def test_an_actor_that_nobody_needs_does_not_restart(cluster: Cluster) -> None:
    alive(cluster, max_restarts=-1)
    cluster.release(handle(A))
    assert cluster.actor_died(A) == ["OK", "DEAD"]
    assert cluster.names() == set()


@pytest.mark.parametrize("when", ["queued", "waiting", "claimed", "restarting"])
def test_handles_that_go_before_it_is_alive(cluster: Cluster, when: str) -> None:
    cluster.submit(packed(T2, demand="GPU:1"))
    waits_for = [returned(T2)] if when == "waiting" else []
    cluster.create_actor(A, record=record("name", max_restarts=1), waits_for=waits_for)
    if when in ("claimed", "restarting"):
        cluster.claim()
    if when == "restarting":
        cluster.start_actor(A)
        cluster.actor_died(A)
    cluster.release(handle(A))
    cluster.chores()
    if when == "claimed":
        assert cluster.start_actor(A)[0] == b"OK"
        assert cluster.heard(NODE, "retire") == [(A, "")]
        cluster.actor_died(A, final=True)
    cluster.cancel(T2)
    cluster.release(returned(T2))
    assert cluster.names() == set()


def test_a_creation_handed_back_after_its_handles_went_is_given_up(cluster: Cluster) -> None:
    cluster.create_actor(A)
    cluster.claim()
    cluster.release(handle(A))
    cluster.chores()
    cluster.finish(failure(A, Outcome.HANDED_BACK))
    cluster.chores()
    assert cluster.names() == set()


# ---- detached --------------------------------------------------------------------------------------------------------


def detached(cluster: Cluster) -> None:
    cluster.call(DRIVER, tasks.export(FUNCTION, DRIVER, "A", b"pickle", []))
    assert cluster.create_actor(A, record=record("name", detached=1), job=OTHER) == ["OK"]
    cluster.claim()
    cluster.start_actor(A)


def test_a_detached_actor_outlives_its_driver(cluster: Cluster) -> None:
    detached(cluster)
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.hash(cluster.keys.actor(A))["state"] == "ALIVE"
    assert cluster.hash(cluster.keys.fn(FUNCTION))["users"] == "1"
    assert cluster.hash(cluster.keys.job(OTHER))["config"] == "config"
    cluster.worker(WORKER, NODE, OTHER)
    cluster.submit(packed(task_id(1, WORKER), job=OTHER), by=WORKER)
    assert cluster.claimed() == [task_id(1, WORKER)]


def test_a_detached_actors_end_is_its_jobs_end(cluster: Cluster) -> None:
    detached(cluster)
    cluster.worker(WORKER, NODE, OTHER)
    nested = task_id(1, WORKER)
    cluster.submit(packed(nested, job=OTHER), by=WORKER)
    cluster.end(DRIVER)
    cluster.actor_died(A)
    cluster.end(WORKER)
    cluster.chores()
    assert cluster.names() == set()
    assert ("job_ended", OTHER) in [(kind, id) for kind, id, _ in cluster.inbox(NODE)]


def test_a_detached_actor_without_handles_lives_on(cluster: Cluster) -> None:
    detached(cluster)
    cluster.release(handle(A))
    assert cluster.heard(NODE, "retire") == []
    cluster.kill_actor(A)
    cluster.chores()
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.names() == set()


# ---- actors and the end of their job ---------------------------------------------------------------------------------
@pytest.mark.parametrize("when", ["waiting", "queued", "claimed", "alive", "restarting"])
def test_actors_end_with_their_job(cluster: Cluster, when: str) -> None:
    cluster.submit(packed(T2, demand="GPU:1"))
    cluster.create_actor(
        A, record=record("name", max_restarts=1), waits_for=[returned(T2)] if when == "waiting" else []
    )
    cluster.submit(call(T1, A, 1))
    if when in ("claimed", "alive", "restarting"):
        cluster.claim()
    if when in ("alive", "restarting"):
        cluster.start_actor(A)
    if when == "restarting":
        cluster.actor_died(A)
        cluster.finish(failure(T1, Outcome.HANDED_BACK))
    cluster.end(DRIVER)
    cluster.chores()
    assert len(cluster.heard(NODE, "kill")) == (when in ("claimed", "alive"))
    if when == "claimed":
        assert cluster.start_actor(A) == [b"STALE"]
    if when == "alive":
        assert cluster.actor_died(A) == ["STALE"]
        cluster.finish(failure(T1, Outcome.CRASHED))
    cluster.chores()
    assert cluster.names() == set()


def test_many_actors_end_with_their_job(cluster: Cluster) -> None:
    for number in range(120):
        cluster.create_actor(task_id(1000 + number), record=record(f"actor {number}"))
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.names() == set()


@pytest.mark.parametrize("crashed", [False, True])
def test_an_actor_ends_with_the_crash_of_the_worker_that_created_it(cluster: Cluster, crashed: bool) -> None:
    cluster.worker(WORKER)
    cluster.create_actor(A, by=WORKER, job=DRIVER)
    cluster.hold(handle(A), by=DRIVER)
    cluster.claim()
    cluster.start_actor(A)
    cluster.end(WORKER, crashed=crashed)
    cluster.chores()
    assert cluster.hash(cluster.keys.actor(A))["state"] == ("DEAD" if crashed else "ALIVE")
    assert len(cluster.heard(NODE, "kill")) == crashed


def test_a_worker_is_not_remembered_as_the_creator_of_dead_actors(cluster: Cluster) -> None:
    """It may live long, and create many."""
    cluster.worker(WORKER)
    cluster.create_actor(A, by=WORKER, job=DRIVER)
    assert cluster.members(cluster.keys.created(WORKER)) == {A}
    cluster.kill_actor(A, by=WORKER)
    assert cluster.members(cluster.keys.created(WORKER)) == set()
