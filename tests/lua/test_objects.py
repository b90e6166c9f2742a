"""object_put, _hold, _release, _wait, _located: a value lives as long as something counts on it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from redray.gcs import objects
from redray.gcs.schema import LIMITS
from tests.lua.builders import (
    DRIVER,
    LARGE,
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
)

P1, P2, T1, T2 = put_id(11), put_id(12), task_id(1), task_id(2)


# ---- put -------------------------------------------------------------------------------------------------------------
def test_a_small_value_is_put_into_redis(cluster: Cluster) -> None:
    cluster.put(P1, b"Vsmall")
    assert cluster.object(P1) == {"state": "READY", "refs": "1", "value": "Vsmall"}
    assert cluster.members(cluster.keys.holds(DRIVER)) == {P1}


def test_a_large_value_stays_in_its_node(cluster: Cluster) -> None:
    cluster.put(P1, node=NODE)
    assert cluster.object(P1) == {"state": "READY", "refs": "1", "size": "1000000", "at": NODE}
    assert cluster.members(cluster.keys.node_objects(NODE)) == {P1}


def test_a_value_whose_node_died_before_the_put_came_is_lost_at_once(cluster: Cluster) -> None:
    """A driver that outlives its node brings its unanswered calls to Redis itself."""
    cluster.reap(NODE)
    cluster.put(P1, node=NODE)
    cluster.wait(P1)
    assert "ObjectLostError" in cluster.inbox(DRIVER)[-1][2]
    cluster.release(P1)
    assert cluster.names() == set()


def test_what_a_value_contains_lives_by_it(cluster: Cluster) -> None:
    cluster.put(P1)
    cluster.put(P2, contains=[P1, P1, put_id(99)])
    assert cluster.object(P2)["contains"] == f"{P1} {P1}"
    cluster.release(P1)
    assert cluster.object(P1)["refs"] == "2"
    cluster.release(P2)
    assert cluster.names() == set()


# ---- hold and release ------------------------------------------------------------------------------------------------
def test_a_process_is_counted_once_per_object(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.put(P1)
    cluster.hold(P1, by=OTHER)
    cluster.hold(P1, P1, by=OTHER)
    assert cluster.object(P1)["refs"] == "2"
    cluster.release(P1, P1, by=OTHER)
    assert cluster.object(P1)["refs"] == "1"


def test_what_is_gone_cannot_be_held(cluster: Cluster) -> None:
    cluster.hold(P1, by=DRIVER)
    assert cluster.names() == set()


def test_a_release_of_what_is_not_held_changes_nothing(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.put(P1)
    cluster.release(P1, by=OTHER)
    assert cluster.object(P1)["refs"] == "1"


def test_the_last_release_frees_every_copy(cluster: Cluster) -> None:
    cluster.put(P1, node=NODE)
    cluster.call(NODE2, objects.located(True, [P1]))
    cluster.release(P1)
    assert cluster.heard(NODE, "free") == [(P1, "")]
    assert cluster.heard(NODE2, "free") == [(P1, "")]
    assert cluster.names() == set()


def test_a_long_chain_of_containers_is_freed_in_slices(cluster: Cluster) -> None:
    length = 2 * LIMITS["SLICE"] + 7
    ids = [put_id(number) for number in range(1, length + 1)]
    cluster.put(ids[0])
    for inner, outer in pairwise(ids):
        cluster.put(outer, contains=[inner])
        cluster.release(inner)
    cluster.release(ids[-1])
    assert "chores" in cluster.names()
    cluster.chores()
    assert cluster.names() == set()


def test_the_argument_of_a_waiting_task_is_not_freed(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    cluster.claim()
    cluster.release(returned(T1))
    cluster.finish(finish(T1))
    assert cluster.task(T1)["value"] == "Vx"
    assert cluster.claimed() == [T2]
    cluster.finish(finish(T2))
    assert cluster.task(T1) == {}


# ---- wait ------------------------------------------------------------------------------------------------------------
def test_who_waits_hears_at_once_of_what_is_ready(cluster: Cluster) -> None:
    cluster.put(P1, b"Vsmall")
    cluster.put(P2, node=NODE)
    cluster.put(put_id(13), b"V" * (LIMITS["INBOX_VALUE"] + 1))
    cluster.wait(P1, P2, put_id(13))
    assert cluster.inbox(DRIVER) == [
        ("value", P1, "Vsmall"),
        ("located", P2, f"1000000 {NODE}"),
        ("fetch", put_id(13), ""),
    ]


def test_who_waits_hears_later_of_what_is_not_ready(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(packed(T1))
    cluster.wait(returned(T1), by=OTHER)
    cluster.wait(returned(T1), by=OTHER)
    assert cluster.inbox(OTHER) == []
    cluster.claim()
    cluster.finish(finish(T1))
    assert cluster.inbox(OTHER) == [("value", returned(T1), "Vx")]
    assert cluster.inbox(DRIVER) == [("value", returned(T1), "Vx")]
    assert cluster.names() == {"task", "holds"}


def test_the_submitter_that_also_waits_hears_once(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.wait(returned(T1))
    cluster.claim()
    cluster.finish(finish(T1))
    assert len(cluster.inbox(DRIVER)) == 1


def test_a_process_that_waits_without_holding_hears_of_a_value_that_is_freed_at_once(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.wait(returned(T1))
    cluster.release(returned(T1))
    cluster.claim()
    cluster.finish(finish(T1))
    assert cluster.inbox(DRIVER) == [("value", returned(T1), "Vx")]
    assert cluster.names() == set()


def test_what_redis_does_not_know_is_lost_not_waited_for(cluster: Cluster) -> None:
    cluster.wait(P1)
    assert "ObjectLostError" in cluster.inbox(DRIVER)[0][2]
    assert cluster.names() == set()


def test_a_reader_that_lags_gets_one_mark_instead_of_values(cluster: Cluster) -> None:
    cluster.put(P1)
    for _ in range(LIMITS["INBOX_ENTRIES"] + 3):
        cluster.wait(P1)
    assert cluster.connection.call("XLEN", cluster.keys.inbox(DRIVER)) == LIMITS["INBOX_ENTRIES"] + 1
    assert cluster.inbox(DRIVER)[-1] == ("again", "", "")


# ---- located ---------------------------------------------------------------------------------------------------------
def test_copies_come_and_go(cluster: Cluster) -> None:
    cluster.put(P1, node=NODE)
    cluster.call(NODE2, objects.located(True, [P1]))
    cluster.call(NODE2, objects.located(True, [P1]))
    assert cluster.object(P1)["at"] == f"{NODE} {NODE2}"
    cluster.call(NODE, objects.located(False, [P1]))
    assert cluster.object(P1)["at"] == NODE2
    assert cluster.members(cluster.keys.node_objects(NODE)) == set()


def test_a_copy_of_what_is_freed_must_go(cluster: Cluster) -> None:
    cluster.call(NODE2, objects.located(True, [P1]))
    assert cluster.heard(NODE2, "free") == [(P1, "")]
    assert cluster.names() == set()


def test_a_put_value_whose_last_copy_goes_is_lost(cluster: Cluster) -> None:
    cluster.put(P1, node=NODE)
    cluster.call(NODE, objects.located(False, [P1]))
    cluster.wait(P1)
    assert "ObjectLostError" in cluster.inbox(DRIVER)[-1][2]
    assert cluster.object(P1)["state"] == "LOST"
    cluster.release(P1)
    assert cluster.names() == set()


def test_a_return_value_whose_last_copy_goes_is_computed_again(cluster: Cluster) -> None:
    cluster.submit(packed(T1, max_retries=1))
    cluster.claim()
    cluster.finish(finish(T1, [LARGE]))
    cluster.call(NODE, objects.located(False, [returned(T1)]))
    assert (cluster.state(T1), cluster.task(T1)["attempt"]) == ("QUEUED", "2")
    cluster.wait(returned(T1))
    assert cluster.claim()[1][0][0] == 2
    cluster.finish(finish(T1, [LARGE], attempt=2))
    assert cluster.inbox(DRIVER)[-1][0] == "located"
    cluster.call(NODE, objects.located(False, [returned(T1)]))  # no retries are left
    assert "ObjectLostError" in cluster.inbox(DRIVER)[-1][2]
    cluster.release(returned(T1))
    assert cluster.names() == set()


def test_a_lost_value_lets_go_of_what_it_contained(cluster: Cluster) -> None:
    """What is computed again brings refs of its own."""
    cluster.put(P1)
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.finish(finish(T1, [LARGE], contains={0: [P1]}))
    cluster.call(NODE, objects.located(False, [returned(T1)]))
    assert cluster.object(P1)["refs"] == "1"
    cluster.claim()
    cluster.finish(finish(T1, [LARGE], attempt=2, contains={0: [P1]}))
    assert cluster.object(P1)["refs"] == "2"


def lose_two_of_three(cluster: Cluster) -> None:
    cluster.put(P1)
    cluster.submit(packed(T1, num_returns=3, waits_for=[P1]))
    cluster.release(P1)
    cluster.claim()
    cluster.finish(finish(T1, [b"Vkept", LARGE, LARGE]))
    cluster.call(NODE, objects.located(False, [returned(T1, 1), returned(T1, 2)]))


def test_only_the_lost_ones_of_several_returns_are_computed_again(cluster: Cluster) -> None:
    lose_two_of_three(cluster)
    assert cluster.state(T1) == "QUEUED"
    assert [cluster.object(returned(T1, index))["state"] for index in (1, 2)] == ["PENDING", "PENDING"]
    cluster.claim(NODE2)
    cluster.finish(finish(T1, [b"Vother", LARGE, b"Vnow small"], attempt=2), node=NODE2)
    assert cluster.task(T1)["value"] == "Vkept"  # one visible result
    assert cluster.object(returned(T1, 1))["at"] == NODE2
    assert cluster.object(returned(T1, 2))["value"] == "Vnow small"
    cluster.release(*(returned(T1, index) for index in range(3)))
    assert cluster.names() == set()


@pytest.mark.parametrize("first_released", [False, True])
def test_when_the_second_computation_fails_the_intact_value_stays(cluster: Cluster, first_released: bool) -> None:
    lose_two_of_three(cluster)
    if first_released:
        cluster.release(returned(T1))
    cluster.claim()
    cluster.finish(failure(T1, "CANCELLED", attempt=2))
    assert [cluster.object(returned(T1, index))["state"] for index in (1, 2)] == ["FAILED", "FAILED"]
    if not first_released:
        assert (cluster.state(T1), cluster.task(T1)["value"]) == ("FINISHED", "Vkept")
        cluster.release(returned(T1))
    cluster.release(returned(T1, 1), returned(T1, 2))
    assert cluster.names() == set()


def test_lost_arguments_are_computed_again_first(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    cluster.claim()
    cluster.finish(finish(T1, [LARGE]), limit=5, free="CPU:1")
    cluster.finish(finish(T2, [LARGE]))
    cluster.release(returned(T1))
    cluster.call(NODE, objects.located(False, [returned(T1), returned(T2)]))
    assert (cluster.state(T1), cluster.state(T2)) == ("QUEUED", "WAITING")
    assert cluster.claimed() == [T1]
    cluster.finish(finish(T1, [LARGE], attempt=2))
    assert cluster.claimed() == [T2]
    cluster.finish(finish(T2, [LARGE], attempt=2))
    cluster.release(returned(T2))
    assert cluster.names() == set()


def test_the_value_of_an_actors_call_is_not_computed_again(cluster: Cluster) -> None:
    actor = task_id(100)
    cluster.create_actor(actor)
    cluster.claim()
    cluster.start_actor(actor)
    cluster.submit(call(T1, actor, 1, max_retries=3))
    cluster.finish(finish(T1, [LARGE]))
    cluster.call(NODE, objects.located(False, [returned(T1)]))
    assert "ObjectLostError" in cluster.inbox(DRIVER)[-1][2]
    assert cluster.object(handle(actor))["refs"] == "1"


def test_nothing_is_computed_again_for_a_job_that_has_ended(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.finish(finish(T1, [LARGE]))
    cluster.hold(returned(T1), by=OTHER)
    cluster.end(DRIVER)
    cluster.chores()
    cluster.call(NODE, objects.located(False, [returned(T1)]))
    cluster.wait(returned(T1), by=OTHER)
    assert "ObjectLostError" in cluster.inbox(OTHER)[-1][2]
    cluster.release(returned(T1), by=OTHER)
    assert cluster.names() == set()


def test_a_value_held_by_a_worker_outlives_its_maker(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.put(P1)
    cluster.hold(P1)
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.object(P1)["refs"] == "1"
