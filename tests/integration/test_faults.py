"""kill -9 of a worker, a node, a driver; SIGTERM of a node. After each: what was promised, and nothing is left over."""

from __future__ import annotations

import os
import signal as os_signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray import bootstrap
from redray.cluster_utils import Cluster, ClusterNode
from redray.exceptions import ActorDiedError, ObjectLostError, WorkerCrashedError
from redray.gcs.server import EmbeddedServer
from redray.local_cluster import make_private_directory
from tests.helpers import Driver, Journal, Signal, is_alive, wait_until
from tests.integration.cluster_fixtures import (
    assert_at_rest,
    cluster,
    processes_of,
    resources_are_free,
    shared_memory,
    temp_dir,
    wait_until_gone,
)

__all__ = ["cluster", "temp_dir"]  # fixtures

BIG = 500_000  # float64 values: 4 MB, in shared memory


@ray.remote
def leave(journal: Journal, gate: Signal) -> int:
    """Says where it runs, and waits."""
    journal.add(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}")
    gate.wait()
    return os.getpid()


@ray.remote
class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def pid(self) -> int:
        return os.getpid()

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Signal]:
    gate = Signal(tmp_path / "gate")
    yield gate
    gate.set()


def pids(journal: Journal) -> list[int]:
    return [int(line.split()[0]) for line in journal.lines()]


def started(journal: Journal, count: int) -> list[int]:
    wait_until(lambda: len(journal.lines()) >= count, what=f"{count} attempts to start")
    return pids(journal)


# ---- a worker --------------------------------------------------------------------------------------------------------
def test_the_task_of_a_killed_worker_runs_again(cluster: Cluster, journal: Journal, gate: Signal) -> None:
    cluster.add_node(num_cpus=2)
    cluster.connect()
    refs = [leave.options(max_retries=1).remote(journal, gate) for _ in range(2)]
    first, other = started(journal, 2)
    os.kill(first, os_signal.SIGKILL)
    third = started(journal, 3)[2]
    gate.set()
    assert sorted(ray.get(refs, timeout=30)) == sorted([other, third]), "the neighbour is not disturbed"
    assert not is_alive(first)
    wait_until(resources_are_free, what="the resources to be given back")
    del refs
    assert_at_rest(cluster)


@pytest.mark.parametrize("number", [os_signal.SIGKILL, os_signal.SIGSEGV])
def test_without_retries_the_error_tells_signal_and_last_words(cluster: Cluster, number: os_signal.Signals) -> None:
    cluster.add_node(num_cpus=1)
    cluster.connect()

    @ray.remote(max_retries=0)
    def crash() -> None:
        print("first line", file=sys.stderr)
        print("these are my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)

    with pytest.raises(WorkerCrashedError) as caught:
        ray.get(crash.remote(), timeout=30)
    assert number.name in str(caught.value)
    assert "these are my last words" in str(caught.value)
    assert "crash" in str(caught.value), "names the task"
    del caught
    assert_at_rest(cluster)


def test_a_task_that_always_kills_its_worker_is_given_up(cluster: Cluster, journal: Journal) -> None:
    cluster.add_node(num_cpus=1)
    cluster.connect()

    @ray.remote(max_retries=2)
    def crash() -> None:
        journal.add("attempt")
        os.kill(os.getpid(), os_signal.SIGKILL)

    with pytest.raises(WorkerCrashedError):
        ray.get(crash.remote(), timeout=30)
    assert len(journal.lines()) == 3


def test_what_a_killed_worker_wrote_into_shared_memory_is_freed(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=64 << 20)
    cluster.connect()

    @ray.remote(max_retries=0)
    def crash() -> None:
        kept = ray.put(np.ones(BIG))
        assert ray.get(kept)[0] == 1
        os.kill(os.getpid(), os_signal.SIGKILL)

    for _ in range(30):  # 120 MB into a store of 64
        with pytest.raises(WorkerCrashedError):
            ray.get(crash.remote(), timeout=30)
    assert ray.get(ray.put(np.ones(BIG)))[0] == 1
    assert_at_rest(cluster)


# ---- a node ----------------------------------------------------------------------------------------------------------
def test_a_killed_node(cluster: Cluster, journal: Journal, gate: Signal) -> None:
    """Its workers die with it, its tasks run elsewhere within 10 s, its objects are computed again or lost, its actors
    start again elsewhere."""
    cluster.add_node(num_cpus=2)
    victim = cluster.add_node(num_cpus=2, resources={"victim": 4})
    cluster.connect()
    elsewhere = {"num_cpus": 0, "resources": {"both": 1}}

    @ray.remote(**elsewhere)
    def make() -> Any:
        return np.arange(BIG)

    @ray.remote(**elsewhere)
    def stored() -> list[Any]:
        return [ray.put(np.ones(BIG))]

    wanted = cluster.add_node(num_cpus=0, resources={"both": 4})
    made, (put,) = make.remote(), ray.get(stored.remote())
    ray.wait([made])
    actor = Counter.options(max_restarts=1, max_task_retries=1, **elsewhere).remote()
    mortal = Counter.options(**elsewhere).remote()
    assert ray.get([actor.node.remote(), mortal.node.remote()]) == [wanted.node_id] * 2
    actor_pid = ray.get(actor.pid.remote())
    runs = leave.options(max_retries=1, **elsewhere).remote(journal, gate)
    once = leave.options(max_retries=0, num_cpus=0, resources={"both": 1}).remote(journal, gate)
    running = started(journal, 2)

    spare = cluster.add_node(num_cpus=0, resources={"both": 4})
    cluster.remove_node(wanted, allow_graceful=False)
    wait_until(lambda: not any(map(is_alive, [*running, actor_pid])), timeout=2, what="its workers to die with it")
    wait_until(lambda: len(journal.lines()) == 3, timeout=10, what="its task to run elsewhere")
    assert journal.lines()[2].endswith(spare.node_id)
    gate.set()
    assert ray.get(runs, timeout=10) == pids(journal)[2]
    with pytest.raises(WorkerCrashedError, match="node has died"):
        ray.get(once, timeout=10)
    assert ray.get(made, timeout=10).sum() == np.arange(BIG).sum()
    with pytest.raises(ObjectLostError):
        ray.get(put, timeout=10)
    assert ray.get(actor.node.remote(), timeout=10) == spare.node_id
    with pytest.raises(ActorDiedError):
        ray.get(mortal.count.remote(), timeout=10)
    assert len(journal.lines()) == 3, "at most once, and once more"
    wait_until(lambda: not Path(wanted.socket_path).parent.exists(), what="its shared memory to be swept")
    assert victim.is_alive()
    ray.kill(actor)
    del made, put, actor, mortal, runs, once
    assert_at_rest(cluster)


@pytest.mark.parametrize("end", ["kill", "drain"])
def test_a_driver_outlives_its_node(
    cluster: Cluster, end: str, journal: Journal, gate: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    attach_to(goes, monkeypatch)
    cluster.connect()
    assert ray.get_runtime_context().get_node_id() == goes.node_id
    refs = [leave.options(max_retries=1).remote(journal, gate) for _ in range(4)]
    started(journal, 2)
    (goes.kill if end == "kill" else lambda: os.kill(goes.pid, os_signal.SIGTERM))()
    gate.set()
    assert len(ray.get(refs, timeout=30)) == 4
    assert len(journal.lines()) == (5 if end == "kill" else 4)
    wait_until(lambda: not goes.is_alive(), what="the node to end")
    big = ray.put(np.ones(BIG))
    assert ray.get(leave.remote(journal, gate), timeout=30)
    assert ray.get(big).sum() == BIG
    cluster.remove_node(goes)
    cluster.wait_for_nodes(timeout=15)
    assert stays.is_alive()
    del refs, big
    ray.shutdown()
    assert_at_rest(cluster)


def attach_to(node: ClusterNode | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of this machine's nodes a driver goes through is no user's business; None: as if there were none."""
    place = (node.socket_path, node.node_id) if node is not None else ("", "")
    monkeypatch.setattr(bootstrap, "_local_node", lambda *_: place)


def test_a_node_that_is_terminated_drains(cluster: Cluster, journal: Journal, gate: Signal) -> None:
    """What runs ends there; what waits there goes elsewhere; neither uses up a retry."""
    stays, goes = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    cluster.connect()
    refs = [leave.options(max_retries=0).remote(journal, gate) for _ in range(20)]
    started(journal, 2)
    os.kill(goes.pid, os_signal.SIGTERM)
    gate.set()
    assert len(ray.get(refs, timeout=30)) == 20
    assert len(journal.lines()) == 20
    wait_until(lambda: not goes.is_alive(), what="the node to end")
    cluster.remove_node(goes)
    cluster.wait_for_nodes(timeout=3)  # it said so: nobody waits for its lease
    assert stays.is_alive()
    del refs
    assert_at_rest(cluster)


# ---- a driver --------------------------------------------------------------------------------------------------------
DRIVER = """
import os, sys
import numpy as np
import redray as ray
from tests.helpers import Journal, Signal
address, journal, gate = sys.argv[1], Journal(sys.argv[2]), Signal(sys.argv[3])
if sys.argv[4] == "direct":
    from redray import bootstrap
    bootstrap._local_node = lambda *_: ("", "")
ray.init(address, namespace="faults")

@ray.remote
def leave(first):
    journal.add(os.getpid())
    gate.wait()
    return first

@ray.remote
class Counter:
    def __init__(self):
        self.calls = 0
    def count(self):
        self.calls += 1
        return self.calls
    def pid(self):
        return os.getpid()

running = [leave.remote(1) for _ in range(2)]
queued = [leave.remote(running[0]) for _ in range(20)] + [leave.remote(2) for _ in range(20)]
values = [ray.put(np.ones(500_000)), ray.put("small"), ray.put([ray.put("inner")])]
actor = Counter.options(name="mine", num_cpus=0).remote()
detached = Counter.options(name="survivor", lifetime="detached", num_cpus=0).remote()
print("pids", ray.get(actor.pid.remote()), ray.get(detached.count.remote()))
print("READY")
gate.wait()
"""


@pytest.mark.parametrize("way", ["node", "direct"])
def test_a_killed_driver(cluster: Cluster, way: str, journal: Journal, gate: Signal, tmp_path: Path) -> None:
    """Its work is cancelled, its actors and objects go; a detached actor goes on."""
    node = cluster.add_node(num_cpus=2)
    driver = Driver(tmp_path, DRIVER, [cluster.address, journal.path, gate.path, way])
    try:
        output = driver.wait_for_output("READY")
        workers = started(journal, 2)
        actor_pid = int(output.split("pids ")[1].split()[0])
        driver.kill()
        wait_until(lambda: not any(map(is_alive, [*workers, actor_pid])), timeout=5, what="its workers to end")
        ray.init(cluster.address, namespace="faults")
        survivor = ray.get_actor("survivor")
        assert ray.get(survivor.count.remote(), timeout=10) == 2
        with pytest.raises(ValueError, match="mine"):
            ray.get_actor("mine")
        ray.kill(survivor)
        del survivor
        ray.shutdown()
        assert_at_rest(cluster)
        assert len(journal.lines()) == 2, "nothing of what was queued has started"
        assert node.is_alive()
    finally:
        driver.kill()


def test_a_driver_leaves_with_work_pending(cluster: Cluster, journal: Journal, gate: Signal, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2)
    head, _, _ = DRIVER.rpartition("gate.wait()")
    source = head + "sys.exit(0)\n"
    driver = Driver(tmp_path, source, [cluster.address, journal.path, gate.path, "node"])
    try:
        driver.finish()
        ray.init(cluster.address, namespace="faults")
        ray.kill(ray.get_actor("survivor"))
        ray.shutdown()
        assert_at_rest(cluster)
        wait_until(lambda: not any(map(is_alive, pids(journal))), what="its workers to end")
    finally:
        driver.kill()


# ---- Redis -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["node", "direct"])
def test_a_restart_of_redis_is_a_pause(
    temp_dir: str, way: str, journal: Journal, gate: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs meanwhile ends once, what is submitted meanwhile runs, and nobody is declared dead."""
    port = free_port()
    directory = make_private_directory(os.path.join(temp_dir, "redis"))
    server = EmbeddedServer.start_tcp("127.0.0.1", port, "secret", directory)
    with Cluster(redis=server.address.url()) as cluster:
        cluster.add_node(num_cpus=2)
        if way == "direct":
            attach_to(None, monkeypatch)
        cluster.connect()
        actor = Counter.remote()
        big = ray.put(np.ones(BIG))
        assert ray.get(actor.count.remote(), timeout=30) == 1
        refs = [leave.options(max_retries=0).remote(journal, gate) for _ in range(4)]
        started(journal, 2)
        os.kill(server.pid, os_signal.SIGKILL)
        wait_until(lambda: not server.is_alive(), what="Redis to be gone")
        gate.set()
        with ThreadPoolExecutor(1) as executor:
            more = executor.submit(lambda: [leave.options(max_retries=0).remote(journal, gate) for _ in range(4)])
            server = EmbeddedServer.start_tcp("127.0.0.1", port, "secret", directory)
            refs += more.result(30)
        assert len(ray.get(refs, timeout=30)) == 8
        assert len(journal.lines()) == 8
        assert ray.get(actor.count.remote(), timeout=30) == 2
        assert ray.get(big, timeout=30).sum() == BIG
        del actor, big, refs, more
        assert_at_rest(cluster)
    server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- an embedded cluster ---------------------------------------------------------------------------------------------
EMBEDDED = """
import os, sys
import numpy as np
import redray as ray
from tests.helpers import Signal
gate = Signal(sys.argv[1])
ray.init(address="local", num_cpus=2)
big = ray.put(np.ones(500_000))

@ray.remote
def wait():
    gate.wait()

refs = [wait.remote() for _ in range(5)]
print("READY")
if sys.argv[2] == "exit":
    os._exit(3)
gate.wait()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_nothing_is_left_of_an_embedded_cluster(end: str, temp_dir: str, gate: Signal, tmp_path: Path) -> None:
    before = shared_memory()
    driver = Driver(tmp_path, EMBEDDED, [gate.path, end])
    try:
        if end == "kill":
            driver.wait_for_output("READY")
            assert len(processes_of(temp_dir)) >= 5, "driver, guardian, Redis, node, template, workers"
            driver.kill()
        else:
            driver.process.wait(30)
        wait_until_gone(temp_dir)
        wait_until(lambda: not os.listdir(temp_dir), timeout=5, what="its directory to be removed")
        assert not {path for path in shared_memory() - before if not is_alive(int((path / "owner").read_text()))}
    finally:
        driver.kill()


DIES = """
import os, signal, sys
import redray
from redray import bootstrap
from redray.gcs import server
from redray.worker import launch
name = sys.argv[1]
home = next(module for module in (bootstrap, server, launch) if hasattr(module, name))
real = getattr(home, name)
def then_die(*args, **options):
    real(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(home, name, then_die)
redray.init(address="local", num_cpus=1)
"""


STEPS = ["begin_node", "_start_guardian", "_write_config", "_spawn", "_answers", "_address_info"]


@pytest.mark.parametrize("step", STEPS)
def test_a_driver_that_dies_while_its_cluster_starts(step: str, temp_dir: str, tmp_path: Path) -> None:
    """Right after each step of the start, nobody is told more than that step has told."""
    driver = Driver(tmp_path, DIES, [step])
    assert driver.process.wait(30) == -os_signal.SIGKILL, driver.output
    wait_until_gone(temp_dir)
    wait_until(lambda: not os.listdir(temp_dir), timeout=5, what="its directory to be removed")


def test_a_server_ends_with_its_owner_though_its_directory_is_gone(temp_dir: str, tmp_path: Path) -> None:
    """Somebody who tidies up /tmp must not make it immortal."""
    source = """
    import os, shutil, signal
    from redray.config import new_session_directory
    from redray.gcs.server import EmbeddedServer
    directory = new_session_directory()
    server = EmbeddedServer.start(directory)
    shutil.rmtree(directory)
    assert server.is_alive()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    driver = Driver(tmp_path, source)
    assert driver.process.wait(30) == -os_signal.SIGKILL, driver.output
    wait_until_gone(temp_dir)
