"""process_open, process_end, driver_reap, function_export: who is there, by which way, and what its end takes along."""

from __future__ import annotations

import pytest

from redray.gcs import nodes, processes, tasks
from redray.gcs.schema import LIMITS, Outcome
from tests.lua.builders import (
    DRIVER,
    FUNCTION,
    LARGE,
    LATER,
    NODE,
    NODE2,
    NOW,
    OTHER,
    WORKER,
    Cluster,
    failure,
    finish,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

T1, T2, T3 = task_id(1), task_id(2), task_id(3)


# ---- open ------------------------------------------------------------------------------------------------------------
def test_a_drivers_first_call_starts_its_job(cluster: Cluster) -> None:
    job = cluster.hash(cluster.keys.job(DRIVER))
    assert job == {
        "state": "RUNNING",
        "driver": DRIVER,
        "namespace": "space",
        "config": "config",
        "started": str(NOW),
    }
    assert cluster.members(cluster.keys.jobs) == {DRIVER}


def test_a_process_that_comes_again_learns_its_last_number(cluster: Cluster) -> None:
    cluster.put(put_id(1))
    cluster.put(put_id(2))
    assert cluster.open(DRIVER, "direct", "driver", DRIVER) == [b"OK", 2]


def test_a_driver_moves_between_a_node_and_redis(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    assert cluster.members(cluster.keys.node_processes(NODE)) == {DRIVER}
    assert cluster.connection.call("ZSCORE", cluster.keys.leases, f"driver:{DRIVER}") is None
    cluster.open(DRIVER, NODE2, "driver", DRIVER)
    assert cluster.members(cluster.keys.node_processes(NODE)) == set()
    cluster.put(put_id(1))
    cluster.open(DRIVER, "direct", "driver", DRIVER)
    assert cluster.connection.call("ZSCORE", cluster.keys.leases, f"driver:{DRIVER}") is not None
    cluster.put(put_id(2))


def test_the_way_it_left_is_closed(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    cluster.open(DRIVER, NODE2, "driver", DRIVER)
    cluster.routes[DRIVER] = NODE
    assert cluster.put(put_id(1)) == [b"FENCED"]
    assert cluster.end(DRIVER) == [b"FENCED"]


def test_nobody_comes_by_way_of_a_dead_node(cluster: Cluster) -> None:
    cluster.reap(NODE)
    assert cluster.open(WORKER, NODE, "worker", DRIVER) == [b"FENCED"]


def test_a_driver_that_was_ended_does_not_come_back(cluster: Cluster) -> None:
    """Not even when its channel has been forgotten: its job is remembered for longer."""
    cluster.end(DRIVER)
    assert cluster.open(DRIVER, "direct", "driver", DRIVER) == [b"FENCED"]
    cluster.chores()
    assert cluster.open(DRIVER, "direct", "driver", DRIVER) == [b"FENCED"]


# ---- end -------------------------------------------------------------------------------------------------------------
def test_what_a_process_held_is_released(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    for number in range(3):
        cluster.put(put_id(number, WORKER), by=WORKER)
    cluster.put(put_id(9))
    cluster.hold(put_id(9))
    cluster.end(WORKER)
    cluster.chores()
    assert cluster.object(put_id(9))["refs"] == "1"
    cluster.release(put_id(9))
    assert cluster.names() == set()


def test_more_holds_than_a_slice(cluster: Cluster) -> None:
    count = 2 * LIMITS["SLICE"] + 1
    cluster.submit(*(packed(task_id(n), demand="GPU:1") for n in range(1, count + 1)))
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.names() == set()


def test_an_ended_process_is_not_heard_any_more(cluster: Cluster) -> None:
    cluster.end(DRIVER)
    assert cluster.submit(packed(T1)) == [b"FENCED"]
    cluster.chores()
    assert cluster.submit(packed(T1)) == [b"FENCED"]
    assert cluster.names() == set()


@pytest.mark.parametrize("last_word", ["VALUE", "LARGE", Outcome.CRASHED, Outcome.CANCELLED, Outcome.HANDED_BACK])
def test_a_job_ends_with_its_driver(cluster: Cluster, last_word: str) -> None:
    cluster.submit(packed(T1), packed(T2, waits_for=[returned(T1)]), packed(T3, demand="GPU:1", num_returns=2))
    cluster.claim()
    cluster.end(DRIVER)
    cluster.chores()
    assert ("job_ended", DRIVER) in [(kind, id) for kind, id, _ in cluster.inbox(NODE)]
    assert cluster.state(T2) is None
    values = {"VALUE": [b"V"], "LARGE": [LARGE]}
    cluster.finish(finish(T1, values[last_word]) if last_word in values else failure(T1, last_word))
    assert cluster.names() == set()
    assert cluster.connection.call("TTL", cluster.keys.job(DRIVER)) > 0


def test_what_another_job_holds_stays(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.put(put_id(1))
    cluster.hold(put_id(1), by=OTHER)
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.object(put_id(1))["value"] == "Vput"
    cluster.end(OTHER)
    cluster.chores()
    assert cluster.names() == set()


def test_a_task_of_another_job_goes_on_with_the_error(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.submit(packed(T1))
    cluster.submit(packed(task_id(1, OTHER), waits_for=[returned(T1)]), by=OTHER)
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.claimed() == [task_id(1, OTHER)]
    assert "TaskCancelledError" in cluster.task(T1)["value"]


# ---- leases ----------------------------------------------------------------------------------------------------------
def test_a_driver_without_a_node_ends_with_its_lease(cluster: Cluster) -> None:
    assert cluster.run(processes.reap_driver(cluster.keys, DRIVER, NOW + 1)) == [b"NOT_YET"]
    assert cluster.run(processes.reap_driver(cluster.keys, DRIVER, LATER)) == [b"DONE"]
    cluster.chores()
    assert cluster.hash(cluster.keys.process(DRIVER)) == {}


def test_a_driver_that_moved_to_a_node_is_not_ended_by_old_news(cluster: Cluster) -> None:
    cluster.open(DRIVER, NODE, "driver", DRIVER)
    assert cluster.run(processes.reap_driver(cluster.keys, DRIVER, LATER)) == [b"DONE"]
    cluster.put(put_id(1))
    assert cluster.object(put_id(1)) != {}


def test_no_driver_is_ended_while_redis_may_have_been_away(cluster: Cluster) -> None:
    cluster.run(nodes.renew(cluster.keys, f"node:{NODE}", NOW, ""))
    assert cluster.run(processes.reap_driver(cluster.keys, DRIVER, LATER)) == [b"GRACE"]


# ---- functions -------------------------------------------------------------------------------------------------------
def export(cluster: Cluster, by: str, contains: list[str]) -> object:
    return text(cluster.call(by, tasks.export(FUNCTION, by, "f", b"pickle", contains)))


def test_a_function_lives_as_long_as_a_job_uses_it(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    cluster.put(put_id(1))
    for by in (DRIVER, DRIVER, OTHER):
        assert export(cluster, by, [put_id(1), put_id(99)]) == ["OK"]
    assert cluster.hash(cluster.keys.fn(FUNCTION)) == {
        "users": "2",
        "name": "f",
        "pickled": "pickle",
        "contains": put_id(1),
    }
    cluster.end(DRIVER)
    cluster.chores()
    assert cluster.hash(cluster.keys.fn(FUNCTION))["users"] == "1"
    assert cluster.object(put_id(1))["refs"] == "1"
    cluster.end(OTHER)
    cluster.chores()
    assert cluster.names() == set()


def test_nothing_is_exported_for_a_job_that_has_ended(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.end(DRIVER)
    cluster.chores()
    reply = cluster.call(WORKER, tasks.export(FUNCTION, DRIVER, "f", b"pickle", []))
    assert text(reply) == ["JOB_ENDED"]
    assert cluster.names() == set()
