"""task_cancel: what has not been claimed ends at once; what has is its node's to end."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from tests.lua.builders import DRIVER, NODE, Cluster, call, failure, finish, packed, put_id, returned, task_id

T1, T2, ACTOR = task_id(1), task_id(2), task_id(100)


def test_a_queued_task_ends_as_cancelled(cluster: Cluster) -> None:
    cluster.put(put_id(7))
    cluster.submit(packed(T1, keeps=[put_id(7)]))
    cluster.release(put_id(7))
    assert cluster.cancel(T1) == ["OK", "CANCELLED"]
    assert "TaskCancelledError" in cluster.inbox(DRIVER)[-1][2]
    assert cluster.names() == {"task", "holds"}
    cluster.release(returned(T1))
    assert cluster.names() == set()


def test_a_waiting_task_ends_as_cancelled_and_is_not_woken_later(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    assert cluster.cancel(T2) == ["OK", "CANCELLED"]
    cluster.claim()
    cluster.finish(finish(T1))
    assert cluster.state(T2) == "CANCELLED"
    cluster.release(returned(T1), returned(T2))
    assert cluster.names() == set()


def test_a_parked_call_is_taken_out_of_the_line(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1), call(T2, ACTOR, 2))
    assert cluster.cancel(T1) == ["OK", "CANCELLED"]
    cluster.claim()
    assert len(cluster.start_actor(ACTOR)[1]) == 1


def test_tasks_that_need_a_cancelled_one_go_on_with_its_error(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    cluster.cancel(T1)
    assert cluster.state(T2) == "QUEUED"


@pytest.mark.parametrize("how", ["", "force", "recursive", "force recursive"])
def test_of_a_claimed_task_it_is_a_request_to_its_node(cluster: Cluster, how: str) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    assert cluster.cancel(T1, how=how) == ["OK", "CLAIMED"]
    assert cluster.heard(NODE, "cancel") == [(T1, how)]
    cluster.finish(failure(T1, Outcome.CANCELLED))
    assert cluster.state(T1) == "CANCELLED"


def test_the_node_may_have_finished_first(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.cancel(T1)
    cluster.finish(finish(T1))
    assert cluster.cancel(T1) == ["OK", "FINISHED"]
    assert cluster.task(T1)["value"] == "Vx"


def test_an_unknown_task_is_not_found(cluster: Cluster) -> None:
    assert cluster.cancel(T1) == ["OK", ""]
    assert cluster.send_again()[0] == b"REPEAT"
    assert cluster.names() == set()


def test_several_at_once(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2))
    cluster.claim(limit=1)
    assert cluster.cancel(T1, T2, task_id(3), how="recursive", parent=task_id(50)) == ["OK", "CLAIMED", "CANCELLED", ""]
    assert cluster.heard(NODE, "cancel") == [(T1, "recursive")]


def test_force_is_refused_for_a_call_that_has_not_ended(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1))
    assert cluster.cancel(T1, how="force") == ["REFUSED"]
    assert cluster.send_again() == [b"REFUSED"]
    assert cluster.state(T1) == "QUEUED"
    cluster.claim()
    cluster.start_actor(ACTOR)
    assert cluster.cancel(T1, how="force recursive") == ["REFUSED"]
    cluster.finish(finish(T1))
    assert cluster.cancel(T1, how="force") == ["OK", "FINISHED"]


def test_force_spares_the_calls_among_a_tasks_children(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.claim()
    cluster.start_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1), packed(T2))
    cluster.claim()
    assert cluster.cancel(T1, T2, how="force recursive", parent=task_id(50)) == ["OK", "CLAIMED", "CLAIMED"]
    assert cluster.heard(NODE, "cancel") == [(T1, "recursive"), (T2, "force recursive")]


def test_the_creation_of_an_actor_is_not_a_task_to_cancel(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    assert cluster.cancel(ACTOR) == ["OK", "QUEUED"]
    assert cluster.claimed() == [ACTOR]
