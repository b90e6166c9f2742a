"""Several nodes as people start them: from the command line, each in its shell; drivers with and without a node."""

from __future__ import annotations

import json
import os
import signal as os_signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray import bootstrap
from redray.cluster_utils import Cluster
from redray.exceptions import GetTimeoutError
from tests.helpers import REPOSITORY, run_driver, wait_until
from tests.integration.cluster_fixtures import assert_at_rest, cluster, processes_of, temp_dir

__all__ = ["cluster", "temp_dir"]  # fixtures

BIG = 500_000  # float64 values: 4 MB, in shared memory

PROGRAM = """
import os, time
import numpy as np
import redray as ray
ray.init("auto")

@ray.remote
def where(seconds=0.0):
    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id()

@ray.remote
def make(count):
    return np.arange(count)

@ray.remote
def total(values):
    return int(values.sum()), ray.get_runtime_context().get_node_id()

@ray.remote
class Counter:
    def __init__(self):
        self.calls = 0
    def count(self):
        self.calls += 1
        return self.calls, ray.get_runtime_context().get_node_id()

@ray.remote
def use(counter):
    return ray.get([counter.count.remote() for _ in range(3)])

sites = [{"num_cpus": 0, "resources": {name: 1}} for name in ("first", "second", "third")]
nodes = ray.get([where.options(**site).remote() for site in sites])
assert len(set(nodes)) == 3, nodes

began = time.monotonic()
assert set(ray.get([where.remote(0.5) for _ in range(3)])) == set(nodes)
assert time.monotonic() - began < 1.4, "three sleepers on three nodes with one CPU each"

expected = int(np.arange(1_000_000).sum())
for at, site in enumerate(sites):
    made = make.options(**site).remote(1_000_000)
    for other, reader in enumerate(sites):
        assert ray.get(total.options(**reader).remote(made)) == (expected, nodes[other])
    assert int(ray.get(made).sum()) == expected

for at, site in enumerate(sites):
    counter = Counter.options(**site).remote()
    there = sites[(at + 1) % 3]
    assert ray.get(use.options(**there).remote(counter)) == [(number, nodes[at]) for number in (1, 2, 3)]
    del counter
print("DONE", ray.cluster_resources()["CPU"])
"""


def redray(*arguments: str, temp_dir: str, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "redray.cli", *arguments],
        env={**os.environ, "REDRAY_TEMP_DIR": temp_dir},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def other_dirs(temp_dir: str) -> Iterator[list[str]]:
    """Directories for two more nodes: each stands for a machine."""
    made = [tempfile.TemporaryDirectory(prefix="redray-t-", dir="/tmp") for _ in range(2)]
    with made[0] as first, made[1] as second:
        yield [first, second]
        wait_until(lambda: not processes_of(first) and not processes_of(second), what="the other nodes to end")


def site(name: str) -> list[str]:
    return ["--num-cpus", "1", "--object-store-memory", "100M", "--resources", json.dumps({name: 2})]


def test_head_second_node_third_node_and_a_driver(temp_dir: str, other_dirs: list[str], tmp_path: Path) -> None:
    """`start --head`, `start --address`, `worker`, a driver, `status`, `list`, SIGTERM, `stop`:
    each in its own process."""
    redray("start", "--head", "--port", "0", *site("first"), temp_dir=temp_dir)
    worker: subprocess.Popen[bytes] | None = None
    try:
        address = json.loads((Path(temp_dir) / "cluster.json").read_text())["address"]
        password = str(Path(temp_dir) / "redis_password")
        login = ["--redis-password-file", password]
        redray("start", "--address", address, *login, *site("second"), temp_dir=other_dirs[0])
        worker = subprocess.Popen(
            [sys.executable, "-m", "redray.cli", "worker", "--redis", address, *login, *site("third")],
            env={**os.environ, "REDRAY_TEMP_DIR": other_dirs[1]},
            cwd=REPOSITORY,
        )
        wait_until(lambda: "3 alive" in redray("status", temp_dir=temp_dir), what="three nodes to be alive")
        assert "DONE 3" in run_driver(tmp_path, PROGRAM)
        wait_until(lambda: "0 running" in redray("status", temp_dir=temp_dir), what="the job to have ended")
        assert "no tasks" in redray("list", "tasks", temp_dir=temp_dir)
        assert redray("list", "nodes", temp_dir=temp_dir).count("ALIVE") == 3
        worker.send_signal(os_signal.SIGTERM)
        assert worker.wait(30) == 0
        wait_until(lambda: "2 alive" in redray("status", temp_dir=temp_dir), timeout=5, what="it to leave")
        redray("stop", temp_dir=other_dirs[0])
        assert "1 alive" in redray("status", temp_dir=temp_dir)
    finally:
        if worker is not None and worker.poll() is None:
            worker.kill()
            worker.wait()
        for directory in (*other_dirs, temp_dir):
            redray("stop", "--force", temp_dir=directory, check=False)
    assert "no cluster" in redray("status", temp_dir=temp_dir, check=False)


# ---- a driver without a node -----------------------------------------------------------------------------------------
@pytest.fixture
def direct(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two nodes, and this process as a driver that speaks to Redis itself, as on a machine without a node."""
    cluster.add_node(num_cpus=1, resources={"left": 2})
    cluster.add_node(num_cpus=1, resources={"right": 2})
    monkeypatch.setattr(bootstrap, "_local_node", lambda *_: ("", ""))
    cluster.connect()
    yield cluster
    ray.shutdown()
    assert_at_rest(cluster)


def test_tasks_and_errors_without_a_node(direct: Cluster) -> None:
    @ray.remote
    def add(one: int, other: int) -> int:
        if other < 0:
            raise ValueError("no")
        return one + other

    total = ray.put(0)
    for number in range(50):
        total = add.remote(total, number)
    assert ray.get(total, timeout=30) == sum(range(50))
    assert ray.get([add.remote(number, 1) for number in range(1000)], timeout=30) == list(range(1, 1001))
    with pytest.raises(ValueError, match="no"):
        ray.get(add.remote(1, -1), timeout=30)
    ready, rest = ray.wait([add.remote(1, 1), add.options(resources={"nowhere": 1}).remote(1, 1)], timeout=10)
    assert (len(ready), len(rest)) == (1, 1)
    with pytest.raises(GetTimeoutError):
        ray.get(rest, timeout=0.1)
    ray.cancel(rest[0])
    assert len(ray.nodes()) == 2


def test_large_values_without_a_node(direct: Cluster) -> None:
    values = np.random.default_rng(0).random(BIG)

    @ray.remote
    def total(values: Any) -> float:
        return float(values.sum())

    @ray.remote
    def double(values: Any) -> Any:
        return values * 2

    ref = ray.put(values)
    assert (ray.get(ref) == values).all()
    for side in ("left", "right"):
        where = {"num_cpus": 0, "resources": {side: 1}}
        assert ray.get(total.options(**where).remote(ref), timeout=30) == values.sum()
        assert ray.get(total.options(**where).remote(values), timeout=30) == values.sum()
        doubled = double.options(**where).remote(ref)
        ray.wait([doubled], timeout=30)
        assert (ray.get(doubled, timeout=30) == values * 2).all()


def test_actors_without_a_node(direct: Cluster) -> None:
    @ray.remote
    class Keeper:
        def __init__(self) -> None:
            self.values: list[Any] = []

        def add(self, value: Any) -> int:
            self.values.append(value)
            return len(self.values)

        def all(self) -> list[Any]:
            return self.values

    @ray.remote
    def use(keeper: Any) -> int:
        return int(ray.get(keeper.add.remote("from a task")))

    keepers = [Keeper.options(name=side, num_cpus=0, resources={side: 1}).remote() for side in ("left", "right")]
    for keeper in keepers:
        assert ray.get([keeper.add.remote(number) for number in range(100)], timeout=30)[-1] == 100
        assert ray.get(use.remote(keeper), timeout=30) == 101
    assert ray.get(ray.get_actor("left").all.remote(), timeout=30)[-1] == "from a task"
    ray.kill(keepers[0])
    with pytest.raises(ValueError, match="left"):
        ray.get_actor("left")
    assert ray.get(keepers[1].add.remote("still here"), timeout=30) == 102


def test_a_lost_value_is_computed_again_for_a_driver_without_a_node(direct: Cluster) -> None:
    @ray.remote
    def make() -> Any:
        return np.arange(BIG)

    goes = direct.add_node(num_cpus=0, resources={"both": 1})
    made = make.options(num_cpus=0, resources={"both": 1}).remote()
    ray.wait([made], timeout=30)
    direct.add_node(num_cpus=0, resources={"both": 1})
    direct.remove_node(goes, allow_graceful=False)
    assert ray.get(made, timeout=20).sum() == np.arange(BIG).sum()
