"""Resources and the order of work on one node: spec lines 81, 85, 89, 90 and 98."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import redray as ray
from tests.helpers import Driver, Journal, Signal, schedulable, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

ON_ONE_NODE = True


def free(resource: str) -> float:
    return schedulable(ray.available_resources()).get(resource, 0)


@ray.remote
def when(signal: Signal, value: Any = None) -> Any:
    signal.wait()
    return value


def test_081_a_task_blocked_in_get_lends_its_cpus() -> None:
    @ray.remote(num_cpus=2)  # every CPU there is
    def factorial(number: int) -> int:
        return number * int(ray.get(factorial.remote(number - 1))) if number > 1 else 1

    assert ray.get(factorial.remote(8)) == 40320


def test_081_a_binary_tree_of_tasks_finishes_on_one_cpu_at_a_time() -> None:
    @ray.remote(num_cpus=2)
    def leaves(depth: int) -> int:
        return sum(ray.get([leaves.remote(depth - 1) for _ in range(2)])) if depth else 1

    assert ray.get(leaves.remote(3)) == 8


def test_081_a_task_blocked_in_wait_lends_its_cpus() -> None:
    @ray.remote(num_cpus=2)
    def child() -> int:
        return 1

    @ray.remote(num_cpus=2)
    def parent() -> int:
        children = [child.remote(), child.remote()]
        ready, _ = ray.wait(children, num_returns=2)
        return len(ready)

    assert ray.get(parent.remote()) == 2


@pytest.mark.differs_from_ray("looks at how redray's workers wait")
@pytest.mark.parametrize("size", [1, 300_000])
def test_082_a_get_of_what_is_there_already_lends_nothing(size: int) -> None:
    @ray.remote
    def announced(refs: list[Any]) -> tuple[int, int]:
        """How often this worker says that it is blocked: in a get of what is there, in one of what is not."""
        from redray import current, hearing

        hearing.SOON_S = 60  # a slow machine takes longer to look than a value that is not ready to come
        session: Any = current.current()
        begin, said = session._begin_block, []
        session._begin_block = lambda waits_for: (said.append(1), begin(waits_for))[1]
        assert len(ray.get(refs[0])) == size
        there = len(said)
        ray.get(child.remote())
        return there, len(said) - there

    @ray.remote
    def child() -> None: ...

    assert ray.get(announced.remote([ray.put(b"x" * size)])) == (0, 1)


def test_081_gpus_and_custom_resources_are_kept_while_blocked(signal: Signal) -> None:
    @ray.remote(num_cpus=2, num_gpus=2, resources={"disk": 1})
    def parent(late: list[Any]) -> Any:
        return ray.get(late[0])

    child = when.options(num_cpus=1).remote(signal, "done")
    wait_until(lambda: free("CPU") == 1, what="the child to run")
    blocked = parent.options(num_cpus=1).remote([child])
    wait_until(lambda: (free("GPU"), free("disk")) == (0, 1), what="the parent to start")
    wait_until(lambda: free("CPU") == 1, what="the blocked parent to lend its CPU")
    assert (free("GPU"), free("disk")) == (0, 1)
    signal.set()
    assert ray.get(blocked) == "done"


def test_081_tasks_run_at_once_as_far_as_cpus_go(tmp_path: Path) -> None:
    here, there = Signal(tmp_path / "here"), Signal(tmp_path / "there")

    @ray.remote
    def meet(mine: Signal, other: Signal) -> bool:
        mine.set()
        other.wait()
        return True

    assert ray.get([meet.remote(here, there), meet.remote(there, here)]) == [True, True]


@pytest.mark.parametrize("options", [{"num_cpus": 2}, {"num_cpus": 0, "resources": {"disk": 2}}, {"num_gpus": 2}])
def test_081_tasks_never_use_more_than_there_is(options: dict[str, Any], journal: Journal) -> None:
    @ray.remote(**options)
    def alone(number: int) -> None:
        journal.add(f"begin {number}")
        journal.add(f"end {number}")

    ray.get([alone.remote(number) for number in range(6)])
    lines = journal.lines()
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin.replace("begin", "end") == end, lines


def test_085_infeasible_work_waits_while_other_work_goes_on() -> None:
    @ray.remote
    def quick() -> int:
        return 1

    infeasible = quick.options(resources={"unobtainable": 1}).remote()
    too_much = quick.options(num_cpus=3).remote()
    assert ray.get([quick.remote() for _ in range(5)]) == [1] * 5
    assert ray.wait([infeasible, too_much], timeout=0.2) == ([], [infeasible, too_much])
    ray.cancel(infeasible)
    ray.cancel(too_much)


def test_085_a_warning_names_what_is_missing(tmp_path: Path, signal: Signal) -> None:
    driver = Driver(
        tmp_path,
        """
        import sys
        import redray as ray
        from tests.helpers import Signal
        ray.init("local", num_cpus=1, include_dashboard=False)
        @ray.remote(resources={"unobtainable": 1})
        def needs_too_much():
            pass
        ref = needs_too_much.remote()
        Signal(sys.argv[1]).wait()
        ray.shutdown()
        """,
        [signal.path],
    )
    try:
        driver.wait_for_output("unobtainable")
        signal.set()
        driver.finish()
    finally:
        driver.kill()


@pytest.mark.one_node("it counts what one node has")
def test_089_every_node_has_its_implicit_resources() -> None:
    total = ray.cluster_resources()
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert total[f"node:{address}"] == 1
    assert total["node:__internal_head__"] == 1
    assert total["memory"] > 0 and total["object_store_memory"] > 0
    assert (total["CPU"], total["GPU"], total["disk"]) == (2, 2, 2)


@pytest.mark.one_node("all of them are at 127.0.0.1")
def test_089_a_task_can_ask_for_a_node_by_its_resource() -> None:
    @ray.remote
    def where() -> str:
        return str(ray.get_runtime_context().get_node_id())

    node = ray.nodes()[0]
    task = where.options(resources={f"node:{node['NodeManagerAddress']}": 0.01})
    assert ray.get(task.remote()) == node["NodeID"]


def test_089_available_resources_omit_what_is_used_up(signal: Signal) -> None:
    task = when.options(num_cpus=2, resources={"disk": 0.5}).remote(signal)
    wait_until(lambda: "CPU" not in ray.available_resources(), what="CPU to be left out at zero")
    assert ray.available_resources()["disk"] == 1.5
    assert ray.cluster_resources()["CPU"] == 2
    signal.set()
    ray.get(task)


def test_090_fractions_are_exact_to_a_ten_thousandth(signal: Signal) -> None:
    tasks = [when.options(num_cpus=0.1, resources={"disk": 0.0001}).remote(signal, number) for number in range(3)]
    wait_until(lambda: free("CPU") == 1.7, what="three tenths of a CPU to be held")
    assert free("disk") == 1.9997
    signal.set()
    assert ray.get(tasks) == [0, 1, 2]


def test_090_fractional_actors_share_gpu_ids() -> None:
    @ray.remote(num_cpus=0, num_gpus=0.5)
    class Half:
        def gpus(self) -> tuple[list[Any], str | None]:
            return list(ray.get_gpu_ids()), os.environ.get("CUDA_VISIBLE_DEVICES")

    halves = [Half.remote() for _ in range(4)]
    answers = ray.get([half.gpus.remote() for half in halves])
    assert Counter(str(ids[0]) for ids, _ in answers) == {"0": 2, "1": 2}
    assert all([str(gpu) for gpu in ids] == [visible] for ids, visible in answers)


def test_090_whole_gpus_are_told_apart() -> None:
    @ray.remote(num_gpus=2)
    def gpus() -> tuple[list[str], str | None]:
        return [str(gpu) for gpu in ray.get_gpu_ids()], os.environ.get("CUDA_VISIBLE_DEVICES")

    ids, visible = ray.get(gpus.remote())
    assert sorted(ids) == ["0", "1"]
    assert visible == ",".join(ids)


def test_084_a_gpu_task_has_a_process_of_its_own() -> None:
    """It neither comes after a task without GPUs, nor does anything come after it."""

    @ray.remote
    def pid() -> int:
        return os.getpid()

    without = set(ray.get([pid.remote() for _ in range(4)]))
    with_gpu = ray.get([pid.options(num_gpus=1).remote() for _ in range(4)])
    assert len(set(with_gpu)) == 4 and without.isdisjoint(with_gpu)
    assert set(ray.get([pid.remote() for _ in range(4)])).isdisjoint(with_gpu)


def test_084_with_max_calls_0_a_gpu_worker_serves_gpu_tasks_again() -> None:
    @ray.remote(num_gpus=1, max_calls=0)
    def pid() -> int:
        return os.getpid()

    @ray.remote
    def pid_without() -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

    pids = [ray.get(pid.remote()) for _ in range(4)]
    assert len(set(pids)) == 1
    other, visible = ray.get(pid_without.remote())
    assert other not in pids
    assert visible == os.environ.get("CUDA_VISIBLE_DEVICES"), "without GPUs the variable is left alone"


def test_100_idle_workers_beyond_the_cpus_leave() -> None:
    @ray.remote
    def nested(depth: int) -> set[int]:
        return {os.getpid()} | (ray.get(nested.remote(depth - 1)) if depth else set())

    pids = ray.get(nested.remote(5))  # each waits for the next: six processes on two CPUs
    assert len(pids) == 6
    wait_until(lambda: sum(map(psutil.pid_exists, pids)) <= 2, what="the workers beyond the CPUs to leave")


def test_099_without_gpus_cuda_visible_devices_is_left_alone(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path,
        """
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = "5,7"
        import redray as ray
        ray.init("local", num_cpus=2, include_dashboard=False)
        @ray.remote
        def seen():
            return ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")
        print("GPUs:", ray.cluster_resources()["GPU"])
        print("without:", *ray.get(seen.remote()))
        print("zero:", *ray.get(seen.options(num_gpus=0).remote()))
        print("with one:", *ray.get(seen.options(num_gpus=1).remote()))
        print("with both:", *ray.get(seen.options(num_gpus=2).remote()))
        """,
    )
    try:
        out = driver.finish()
    finally:
        driver.kill()
    for line in ("GPUs: 2.0", "without: [] 5,7", "zero: [] 5,7", "with one: ['5'] 5", "with both: ['5', '7'] 5,7"):
        assert line in out


@pytest.mark.parametrize("cpus, threads", [(1, "1"), (2, "2"), (0.5, "1"), (0, "1"), (1.5, "1")])
def test_098_omp_num_threads_follows_num_cpus(cpus: float, threads: str) -> None:
    assert "OMP_NUM_THREADS" not in os.environ, "this test needs an environment without OMP_NUM_THREADS"

    @ray.remote(num_cpus=cpus)
    def omp_num_threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get(omp_num_threads.remote()) == threads


def test_098_omp_num_threads_of_the_user_is_kept(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path,
        """
        import os
        os.environ["OMP_NUM_THREADS"] = "7"
        import redray as ray
        ray.init("local", num_cpus=2, include_dashboard=False)
        @ray.remote(num_cpus=2)
        def omp_num_threads():
            return os.environ["OMP_NUM_THREADS"]
        print("threads:", ray.get(omp_num_threads.remote()))
        """,
    )
    try:
        assert "threads: 7" in driver.finish()
    finally:
        driver.kill()
