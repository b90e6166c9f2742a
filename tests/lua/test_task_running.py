"""task_running: a claimed task is said to run by the node that has it, and by nobody else."""

from __future__ import annotations

from redray.gcs import tasks
from tests.lua.builders import NODE, NODE2, Cluster, finish, packed, task_id

T1, T2 = task_id(1), task_id(2)


def test_a_claimed_task_runs(cluster: Cluster) -> None:
    cluster.submit(packed(T1), packed(T2))
    cluster.claim(free="CPU:1")
    cluster.call(NODE, tasks.running([T1, T2]))
    assert (cluster.state(T1), cluster.state(T2)) == ("RUNNING", "QUEUED")


def test_another_node_cannot_say_so(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.call(NODE2, tasks.running([T1]))
    assert cluster.state(T1) == "CLAIMED"


def test_a_task_that_has_ended_stays_ended(cluster: Cluster) -> None:
    cluster.submit(packed(T1))
    cluster.claim()
    cluster.finish(finish(T1))
    cluster.call(NODE, tasks.running([T1, task_id(99)]))
    assert cluster.state(T1) == "FINISHED"
    assert cluster.task(task_id(99)) == {}
