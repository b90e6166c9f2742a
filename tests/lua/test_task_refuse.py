"""task_refuse: a task that its node can never start ends with an error."""

from __future__ import annotations

import pytest

from redray.gcs import tasks
from tests.lua.builders import DRIVER, NODE, Cluster, call, finish, handle, packed, returned, task_id, text

T1, T2, ACTOR = task_id(1), task_id(2), task_id(100)


def refuse(cluster: Cluster, task: str = T1) -> list[str]:
    return list(text(cluster.call(NODE, tasks.refuse(task, "no process is left"))))


def test_a_queued_task_ends_with_the_reason(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    assert refuse(cluster) == ["OK"]
    assert cluster.state(T1) == "FAILED"
    [(id, error)] = cluster.heard(DRIVER, "value")
    assert id == returned(T1)
    assert "RaySystemError" in error
    assert "no process is left" in error
    assert cluster.claimed() == [T2]
    cluster.finish(finish(T2))
    cluster.release(returned(T1), returned(T2))
    assert cluster.names() == set()


def test_a_parked_call_ends_too(cluster: Cluster) -> None:
    cluster.create_actor(ACTOR)
    cluster.submit(call(T1, ACTOR, 1))
    assert refuse(cluster) == ["OK"]
    assert cluster.state(T1) == "FAILED"
    assert cluster.object(handle(ACTOR))["refs"] == "1"


@pytest.mark.parametrize("state", ["CLAIMED", "WAITING", "FINISHED", "a creation", "unknown"])
def test_what_does_not_wait_for_a_process_is_left_alone(cluster: Cluster, state: str) -> None:
    target = T1
    if state == "WAITING":
        target = T2
        cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]))
    elif state == "a creation":
        target = ACTOR
        cluster.create_actor(ACTOR)
    elif state != "unknown":
        cluster.submit(packed(T1))
        cluster.claim()
    if state == "FINISHED":
        cluster.finish(finish(T1))
    before = cluster.task(target)
    assert refuse(cluster, target) == ["STALE"]
    assert cluster.task(target) == before
    assert text(cluster.send_again()) == ["STALE"]
