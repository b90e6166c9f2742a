"""More values than memory has room for: they go to disk, and come back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.cluster_utils import Cluster
from tests.helpers import wait_until

pytestmark = [
    pytest.mark.differs_from_ray("the store is smaller than Ray allows, and its files are ours"),
    pytest.mark.one_node("what spills is the node of the driver, with a small store"),
]

MIB = 1 << 20
STORE = 32 * MIB
NUMBERS = MIB // 8  # in a value of 1 MiB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "spilled"


@pytest.fixture
def small(start: Callable[..., Any], disk: Path) -> Iterator[None]:
    start(num_cpus=2, object_store_memory=STORE, object_spilling_directory=str(disk))
    yield
    ray.shutdown()
    wait_until(lambda: not disk.exists() or not list(disk.iterdir()), what="the node to take its files along")


def value(number: int, mib: int = 4) -> Any:
    return np.full(NUMBERS * mib, number, dtype="f8")


def files(disk: Path) -> list[Path]:
    return list(disk.rglob("objects-*")) if disk.exists() else []


def is_value(found: Any, number: int, mib: int = 4) -> bool:
    return found.shape == (NUMBERS * mib,) and bool((found == number).all())


@ray.remote
def make(number: int) -> Any:
    return value(number)


@ray.remote
def check(found: Any, number: int) -> bool:
    return is_value(found, number)


@pytest.mark.usefixtures("small")
def test_ten_times_the_store_is_put_read_and_let_go(disk: Path) -> None:
    count = 10 * STORE // (4 * MIB)
    refs = [ray.put(value(number)) for number in range(count)]
    assert files(disk)
    assert all(is_value(ray.get(ref), number) for number, ref in enumerate(refs))
    assert all(ray.get([check.remote(ref, number) for number, ref in enumerate(refs)], timeout=60))
    refs.clear()
    gc.collect()
    wait_until(lambda: not files(disk), what="the files to go with the last references")


@pytest.mark.usefixtures("small")
def test_results_of_tasks_spill_too() -> None:
    refs = [make.remote(number) for number in range(24)]
    assert all(ray.get([check.remote(ref, number) for number, ref in enumerate(refs)], timeout=60))
    assert all(is_value(ray.get(ref), number) for number, ref in enumerate(refs))


@pytest.mark.usefixtures("small")
def test_what_somebody_looks_at_stays(disk: Path) -> None:
    first = ray.put(value(1))
    looked_at = ray.get(first)
    others = [ray.put(value(number)) for number in range(2, 14)]
    assert files(disk)
    assert is_value(looked_at, 1)
    assert all(is_value(ray.get(ref), number) for number, ref in enumerate(others, 2))
    assert is_value(looked_at, 1)


@pytest.mark.usefixtures("small")
def test_a_store_of_which_all_is_looked_at_is_full() -> None:
    looked_at = [ray.get(ray.put(value(number))) for number in range(7)]
    with pytest.raises(ray.exceptions.ObjectStoreFullError, match="Drop references"):
        ray.put(value(8, mib=8))
    looked_at.clear()
    assert is_value(ray.get(ray.put(value(8, mib=8))), 8, mib=8)


def test_a_damaged_file_is_computed_again_or_lost(start: Callable[..., Any], disk: Path) -> None:
    start(num_cpus=1, object_store_memory=STORE, object_spilling_directory=str(disk))
    computed, given = make.remote(1), ray.put(value(2))
    ray.wait([computed], timeout=30)
    others = [ray.put(value(number)) for number in range(20)]
    assert len(others) == 20
    assert files(disk)
    for path in files(disk):
        path.write_bytes(b"\1" * path.stat().st_size)
    assert is_value(ray.get(computed, timeout=60), 1)
    with pytest.raises(ray.exceptions.ObjectLostError):
        ray.get(given, timeout=60)


def test_a_disk_that_cannot_be_written_is_named(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    start(num_cpus=1, object_store_memory=STORE, object_spilling_directory=str(tmp_path / "file"))
    refs = []
    with pytest.raises(ray.exceptions.OutOfDiskError, match=str(tmp_path / "file")):
        while len(refs) < 20:
            refs.append(ray.put(value(len(refs))))
    assert 5 <= len(refs) < 9
    refs.clear()
    gc.collect()
    assert is_value(ray.get(ray.put(value(3))), 3)


@pytest.mark.usefixtures("no_cluster")
def test_another_node_reads_what_is_on_disk(tmp_path: Path) -> None:
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, object_store_memory=STORE, object_spilling_directory=str(tmp_path / "spilled"))
        cluster.add_node(num_cpus=1, object_store_memory=8 * STORE, resources={"other": 1})
        ray.init(cluster.address, log_to_driver=False)
        refs = [make.options(resources={"other": 0}).remote(number) for number in range(20)]
        there = check.options(resources={"other": 0.01})
        assert all(ray.get([there.remote(ref, number) for number, ref in enumerate(refs)], timeout=60))
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize("bad", [7, [7], b"/tmp"])
def test_a_directory_is_a_text(bad: Any, no_cluster: None) -> None:
    with pytest.raises(TypeError, match="object_spilling_directory"):
        ray.init(address="local", object_spilling_directory=bad)


def test_an_empty_name_is_no_directory(no_cluster: None) -> None:
    with pytest.raises(ValueError, match="names no directory"):
        ray.init(address="local", object_spilling_directory="")
