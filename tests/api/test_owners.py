"""Refs outside of redray's sight, and values whose maker is gone: spec lines 40 and 42."""

from __future__ import annotations

import gc
import os
import pickle
import signal as os_signal
from typing import Any

import numpy as np
import pytest

import redray as ray
from tests.helpers import Signal, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

SIZES = [10, 1_000_000]  # in the value's record, and in shared memory


def block(size: int) -> Any:
    return np.arange(size, dtype=np.uint8)


def end(pid: int) -> None:
    os.kill(pid, os_signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), what="the process to be gone")


@ray.remote
class Maker:
    def put(self, size: int) -> list[Any]:
        return [ray.put(block(size))]

    def start(self, signal: Signal) -> list[Any]:
        return [late.remote(signal)]

    def capture(self, signal: Signal) -> list[Any]:
        ref = ray.put("captured")

        @ray.remote
        def read() -> Any:
            signal.wait()
            return ray.get(ref)

        return [read.remote()]

    def pid(self) -> int:
        return os.getpid()


@ray.remote
def late(signal: Signal) -> str:
    signal.wait()
    return "late"


@pytest.mark.parametrize("size", SIZES)
def test_040_a_ref_in_a_closure_stays_valid(size: int) -> None:
    captured = [ray.put(block(size))]

    @ray.remote(max_calls=1)  # each call loads the function anew
    def read() -> int:
        return len(ray.get(captured[0]))

    assert ray.get(read.remote()) == size
    captured.clear()
    gc.collect()
    for _ in range(2):
        assert ray.get(read.remote()) == size


def test_040_a_ref_in_an_actor_class_stays_valid() -> None:
    captured = [ray.put("in the class")]

    @ray.remote
    class Reader:
        def read(self) -> Any:
            return ray.get(captured[0])

    first = Reader.remote()
    captured.clear()
    gc.collect()
    assert ray.get([first.read.remote(), Reader.remote().read.remote()]) == ["in the class"] * 2


@pytest.mark.parametrize("dumps", [ray.cloudpickle.dumps, pickle.dumps], ids=["cloudpickle", "pickle"])
@pytest.mark.parametrize("size", SIZES)
def test_040_a_ref_pickled_by_hand_stays_valid(dumps: Any, size: int) -> None:
    ref = ray.put(block(size))
    by_hand = dumps({"ref": ref})
    del ref
    gc.collect()
    for _ in range(2):
        again = pickle.loads(by_hand)["ref"]
        assert len(ray.get(again)) == size
        del again
        gc.collect()


@pytest.mark.differs_from_ray("in Ray the values of a dead process are lost")
@pytest.mark.parametrize("size", SIZES)
def test_042_a_value_outlives_the_process_that_put_it(size: int) -> None:
    maker = Maker.remote()
    (ref,) = ray.get(maker.put.remote(size))
    end(ray.get(maker.pid.remote()))
    assert len(ray.get(ref)) == size

    @ray.remote
    def length(value: Any) -> int:
        return len(value)

    assert ray.get(length.remote(ref)) == size


@pytest.mark.differs_from_ray("in Ray the values of a dead process are lost")
def test_042_a_task_outlives_the_process_that_started_it(signal: Signal) -> None:
    maker = Maker.remote()
    (ref,) = ray.get(maker.start.remote(signal))
    end(ray.get(maker.pid.remote()))
    signal.set()
    assert ray.get(ref) == "late"


@pytest.mark.differs_from_ray("in Ray the values of a dead process are lost")
def test_042_what_a_closure_captured_outlives_the_process_that_made_it(signal: Signal) -> None:
    maker = Maker.remote()
    (ref,) = ray.get(maker.capture.remote(signal))
    end(ray.get(maker.pid.remote()))
    signal.set()
    assert ray.get(ref) == "captured"
