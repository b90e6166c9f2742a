"""Who keeps what alive: spec lines 40, 42, 44 and 48."""

from __future__ import annotations

import gc
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayActorError
from tests.helpers import Journal, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


def test_040_a_ref_in_a_closure_lives_as_long_as_the_function() -> None:
    def capture() -> Any:
        ref = ray.put("captured")

        @ray.remote
        def read() -> Any:
            return ray.get(ref)

        return read

    read = capture()
    for _ in range(2):
        gc.collect()
        assert ray.get(read.remote()) == "captured"


def test_040_a_ref_pickled_by_hand_is_pinned(tmp_path: Path) -> None:
    ref = ray.put("pickled")
    (tmp_path / "ref").write_bytes(ray.cloudpickle.dumps(ref))
    del ref
    gc.collect()
    ray.get(ray.put("something else"))
    assert ray.get(ray.cloudpickle.loads((tmp_path / "ref").read_bytes())) == "pickled"


@ray.remote
class Owner:
    def put(self, size: int) -> tuple[int, list[Any]]:
        return os.getpid(), [ray.put(b"x" * size)]

    def submit(self) -> tuple[int, list[Any]]:
        @ray.remote
        def work() -> str:
            return "of the owner"

        return os.getpid(), [work.remote()]


@pytest.mark.differs_from_ray("Ray raises OwnerDiedError: its objects die with the process that made them")
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_042_a_value_outlives_the_process_that_put_it(size: int) -> None:
    owner = Owner.remote()
    pid, [ref] = ray.get(owner.put.remote(size))
    os.kill(pid, 9)
    wait_until(lambda: not is_alive(pid), what="the owner to die")
    with pytest.raises(RayActorError):
        ray.get(owner.put.remote(1))
    assert ray.get(ref) == b"x" * size


@pytest.mark.differs_from_ray("Ray raises OwnerDiedError: its objects die with the process that made them")
def test_042_a_result_outlives_the_process_that_asked_for_it() -> None:
    owner = Owner.remote()
    pid, [ref] = ray.get(owner.submit.remote())
    os.kill(pid, 9)
    wait_until(lambda: not is_alive(pid), what="the owner to die")
    assert ray.get(ref) == "of the owner"


def test_044_what_a_worker_put_outlives_its_last_call() -> None:
    @ray.remote(max_calls=1)
    def put() -> tuple[int, list[Any]]:
        return os.getpid(), [ray.put("kept")]

    _pid, [ref] = ray.get(put.remote())
    assert ray.get(put.remote())[0] != _pid
    assert ray.get(ref) == "kept"


def test_048_a_crash_is_retried_without_delay(journal: Journal) -> None:
    @ray.remote(max_retries=5)
    def crash() -> str:
        if journal.add(time.monotonic()) <= 3:
            os._exit(1)
        return "done"

    assert ray.get(crash.remote()) == "done"
    times = [float(line) for line in journal.lines()]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == 3 and min(gaps) < 1.0, f"the system's own delay grows from 1 s only for lack of memory: {gaps}"
