"""`ray.util.state`: what the cluster says of its actors, tasks, objects, nodes, jobs and workers."""

from __future__ import annotations

import os
from typing import Any

import pytest

import redray as ray
from redray.util import state
from redray.util.state.exception import RayStateApiException, ServerUnavailable
from tests.helpers import Signal, run_driver, wait_until


@ray.remote
class Counter:
    def pid(self) -> int:
        return os.getpid()

    def wait(self, signal: Signal) -> None:
        signal.wait()


@ray.remote
def hold(signal: Signal, *_: Any) -> int:
    signal.wait()
    return 1


@ray.remote
def succeed() -> str:
    return "x" * 1000


@ray.remote(max_retries=0)
def fail() -> None:
    raise ValueError("on purpose")


def test_actors(cluster: None) -> None:
    named = Counter.options(name="first", namespace="here").remote()
    plain = Counter.remote()
    pid = ray.get([named.pid.remote(), plain.pid.remote()])[0]
    rows = {row.actor_id: row for row in state.list_actors()}
    row = rows[named._actor_id.hex()]
    assert row.state == row["state"] == "ALIVE"
    assert (row.class_name, row.name, row.ray_namespace, row.pid) == ("Counter", "first", "here", pid)
    assert row.job_id == ray.get_runtime_context().get_job_id()
    assert row.node_id == ray.nodes()[0]["NodeID"]
    assert rows[plain._actor_id.hex()].name == ""
    assert row.num_restarts is None, "a detail"
    assert state.list_actors(detail=True)[0].num_restarts == 0
    assert state.get_actor(named._actor_id.hex()).name == "first"  # type: ignore[union-attr]
    assert state.get_actor("00" * 12) is None


def test_filters_of_actors(cluster: None) -> None:
    actors = [Counter.options(name=name).remote() for name in ("a", "b")]
    ray.get([actor.pid.remote() for actor in actors])
    ray.kill(actors[0])

    def names(*filters: tuple[str, str, Any], **options: Any) -> list[str]:
        mine = {actor._actor_id.hex() for actor in actors}
        return [row.name for row in state.list_actors(filters=list(filters), **options) if row.actor_id in mine]

    wait_until(lambda: names(("state", "=", "DEAD")) == ["a"], what="the killed actor to be dead")
    assert names(("state", "!=", "DEAD")) == ["b"]
    assert names(("state", "=", "alive")) == ["b"], "case does not matter"
    assert names(("state", "=", "ALIVE"), ("name", "=", "a")) == []
    assert names(("actor_id", "=", actors[1]._actor_id.hex())) == ["b"]
    assert names(("is_detached", "=", False), ("name", "=", "b")) == ["b"]
    assert names(("pid", "=", str(ray.get(actors[1].pid.remote())))) == ["b"]
    cause: Any = state.get_actor(actors[0]._actor_id.hex())
    assert "ray.kill" in cause.death_cause["actor_died_error_context"]["error_message"]


def test_filters_that_cannot_be_meant(cluster: None) -> None:
    with pytest.raises(ValueError, match="Unsupported filter predicate ~"):
        state.list_actors(filters=[("state", "~", "ALIVE")])
    with pytest.raises(ValueError, match="colour"):
        state.list_actors(filters=[("colour", "=", "red")])
    with pytest.raises(ValueError):
        state.list_tasks(filters=["state"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="10000"):
        state.list_tasks(limit=10_001)


def test_limit(cluster: None) -> None:
    actors = [Counter.options(num_cpus=0).remote() for _ in range(3)]
    ray.get([actor.pid.remote() for actor in actors])
    assert len(state.list_actors(limit=2)) == 2
    assert state.list_actors(limit=0) == []


def test_an_actor_that_cannot_be_placed(cluster: None, signal: Signal) -> None:
    stuck = Counter.options(resources={"nowhere": 1}).remote()
    dependency = hold.remote(signal)

    @ray.remote
    class Needs:
        def __init__(self, _: int) -> None:
            pass

    waiting = Needs.remote(dependency)

    def states() -> dict[str, str]:
        return {row.actor_id: row.state for row in state.list_actors()}

    wait_until(lambda: states().get(stuck._actor_id.hex()) == "PENDING_CREATION", what="it to be pending")
    wait_until(lambda: states().get(waiting._actor_id.hex()) == "DEPENDENCIES_UNREADY", what="it to wait")
    signal.set()
    ray.get(waiting.__ray_ready__.remote())


def test_tasks(cluster: None, signal: Signal) -> None:
    held = [hold.remote(signal) for _ in range(3)]  # one more than there are CPUs; which one waits is nobody's promise
    waiting = hold.options(name="patient").remote(signal, held[0])

    def found(ref: ray.ObjectRef[Any]) -> Any:
        return state.get_task(ref)

    def states() -> list[str]:
        rows = [found(ref) for ref in held]
        return sorted(row.state if row else "" for row in rows)

    expected = ["PENDING_NODE_ASSIGNMENT", "RUNNING", "RUNNING"]
    wait_until(lambda: states() == expected, what="two to run and one to wait")
    assert found(waiting).state == "PENDING_ARGS_AVAIL"
    row = next(row for row in map(found, held) if row.state == "RUNNING")
    assert (row.name, row.type, row.attempt_number) == ("hold", "NORMAL_TASK", 0)
    assert row.job_id == ray.get_runtime_context().get_job_id()
    assert row.node_id == ray.nodes()[0]["NodeID"]
    assert row.required_resources == {"CPU": 1.0}
    assert found(waiting).name == "patient"
    assert {row.task_id for row in state.list_tasks(filters=[("name", "=", "patient")])} == {waiting.task_id().hex()}
    counts = state.summarize_tasks()["cluster"]["summary"]["hold"]["state_counts"]
    assert counts["RUNNING"] == 2 and counts["PENDING_NODE_ASSIGNMENT"] == 1
    signal.set()
    ray.get([*held, waiting])
    assert found(waiting).state == "FINISHED"


def test_tasks_that_failed(cluster: None) -> None:
    ref = fail.remote()
    with pytest.raises(ValueError):
        ray.get(ref)
    row: Any = state.get_task(ref.task_id().hex())
    assert (row.state, row.error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")


def test_tasks_that_ended_and_whose_values_nobody_holds(cluster: None) -> None:
    ref = succeed.options(name="gone").remote()
    id = ref.task_id().hex()
    ray.get(ref)
    del ref
    filters = [("name", "=", "gone"), ("worker_id", "!=", None)]  # it is in the history, and no more in a record
    row: Any = wait_until(lambda: state.list_tasks(filters=filters, detail=True), what="it")[0]
    assert (row.task_id, row.state, row.type) == (id, "FINISHED", "NORMAL_TASK")
    assert row.worker_pid in {worker.pid for worker in state.list_workers()}
    assert 0 <= row.end_time_ms - row.start_time_ms < 60_000
    assert state.get_task(id).state == "FINISHED"  # type: ignore[union-attr]


def test_calls_of_actors(cluster: None, signal: Signal) -> None:
    actor = Counter.remote()
    ref = actor.wait.remote(signal)
    row: Any = wait_until(lambda: state.get_task(ref), what="the call")
    assert (row.type, row.actor_id) == ("ACTOR_TASK", actor._actor_id.hex())
    assert row.name == "Counter.wait"
    creation: Any = state.get_task(actor._actor_id.hex())
    assert (creation.type, creation.name) == ("ACTOR_CREATION_TASK", "Counter.__init__")
    signal.set()
    ray.get(ref)


def test_objects(cluster: None) -> None:
    small, large, result = ray.put("small"), ray.put(b"x" * 300_000), succeed.remote()
    ray.get(result)
    rows = {row.object_id: row for row in state.list_objects()}
    assert rows[large.hex()].object_size >= 300_000
    assert 0 < rows[small.hex()].object_size < 1000
    assert rows[result.hex()].task_status == "FINISHED"
    assert (rows[large.hex()].type, rows[large.hex()].pid) == ("DRIVER", os.getpid())
    assert [row.object_id for row in state.get_objects(small.hex())] == [small.hex()]
    total = state.summarize_objects()["cluster"]
    assert total["total_objects"] >= 3 and total["total_size_mb"] > 0.28


@pytest.mark.one_node("it counts the nodes, or names the one")
def test_nodes(cluster: None) -> None:
    (row,) = state.list_nodes()
    (node,) = ray.nodes()
    assert (row.node_id, row.node_ip, row.state) == (node["NodeID"], node["NodeManagerAddress"], "ALIVE")
    assert row.is_head_node
    assert row.resources_total["CPU"] == 2
    assert state.get_node(row.node_id).start_time_ms > 1.6e12  # type: ignore[union-attr,operator]
    assert state.list_nodes(filters=[("state", "=", "DEAD")]) == []


def test_jobs(cluster: None) -> None:
    job = ray.get_runtime_context().get_job_id()
    row: Any = state.get_job(job)
    assert (row.status, row.type, row.driver_info["pid"]) == ("RUNNING", "DRIVER", str(os.getpid()))
    assert job in [row.job_id for row in state.list_jobs()]


@pytest.mark.one_node("it counts the nodes, or names the one")
def test_workers(cluster: None) -> None:
    actor = Counter.remote()
    pid = ray.get(actor.pid.remote())
    rows = {row.pid: row for row in state.list_workers(detail=True)}
    assert rows[pid].worker_type == "WORKER" and rows[pid].is_alive
    assert rows[os.getpid()].worker_type == "DRIVER"
    assert rows[pid].node_id == ray.nodes()[0]["NodeID"]
    assert state.get_worker(rows[pid].worker_id).pid == pid  # type: ignore[union-attr]


def test_placement_groups(cluster: None) -> None:
    group = ray.util.placement_group([{"CPU": 1}], name="pair", strategy="PACK")
    ray.get(group.ready())
    (row,) = state.list_placement_groups(filters=[("name", "=", "pair"), ("state", "=", "CREATED")], detail=True)
    assert (row.placement_group_id, row.state) == (group.id.hex(), "CREATED")
    assert row.bundles is not None and len(row.bundles) == 1
    assert row.creator_job_id == ray.get_runtime_context().get_job_id()
    assert state.get_placement_group(group.id.hex()).name == "pair"  # type: ignore[union-attr]
    ray.util.remove_placement_group(group)
    wait_until(
        lambda: state.get_placement_group(group.id.hex()).state == "REMOVED",  # type: ignore[union-attr]
        what="it to be removed",
    )


def test_summary_of_actors(cluster: None) -> None:
    actors = [Counter.options(num_cpus=0).remote() for _ in range(2)]
    ray.get([actor.pid.remote() for actor in actors])
    found = state.summarize_actors()["cluster"]
    assert found["summary"]["Counter"]["state_counts"]["ALIVE"] >= 2
    assert found["total_actors"] >= 2


def test_rows_read_like_dicts(cluster: None) -> None:
    row = state.list_nodes()[0]
    assert row["node_id"] == row.node_id == dict(row.items())["node_id"] == row.asdict()["node_id"]
    assert "node_id" in row and "colour" not in row and row.get("colour", 7) == 7
    with pytest.raises(KeyError):
        row["colour"]


@pytest.mark.one_node("it counts the nodes, or names the one")
def test_in_a_task(cluster: None) -> None:
    @ray.remote
    def count() -> int:
        return len(state.list_nodes())

    assert ray.get(count.remote()) == 1


@pytest.mark.one_node("it counts the nodes, or names the one")
def test_from_another_program(cluster: None, address: str, tmp_path: Any) -> None:
    program = """
    import sys
    import redray as ray
    from redray.util.state import list_nodes
    print([row.state for row in list_nodes(address=sys.argv[1])], ray.is_initialized())
    """
    assert "['ALIVE'] False" in run_driver(tmp_path, program, [address])


def test_nobody_there(no_cluster: None, tmp_path: Any) -> None:
    with pytest.raises(ServerUnavailable):
        state.list_nodes(address="127.0.0.1:1")
    assert issubclass(ServerUnavailable, RayStateApiException)


def test_runtime_envs(start: Any) -> None:
    start(num_cpus=1, runtime_env={"env_vars": {"COLOUR": "blue"}})
    (row,) = state.list_runtime_envs()
    assert row.runtime_env["env_vars"] == {"COLOUR": "blue"} and row.success
    assert state.list_jobs()[0].runtime_env["env_vars"] == {"COLOUR": "blue"}
