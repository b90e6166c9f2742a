"""Lifetime of values in shared memory: spec lines 38, 39, 41 and 44.

A value's memory is looked at from outside: available_resources()["object_store_memory"] is what the store has left.
"""

from __future__ import annotations

import gc
import os
import signal as os_signal
from typing import Any

import numpy as np
import pytest

import redray as ray
from tests.helpers import Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

ON_ONE_NODE = True
CLUSTER_OPTIONS = {"object_store_memory": 120_000_000}
MEGABYTES_10 = 10_000_000


def used() -> float:
    gc.collect()
    total = ray.cluster_resources()["object_store_memory"]
    return float(total - ray.available_resources().get("object_store_memory", 0))


def is_empty() -> bool:
    return used() < MEGABYTES_10 / 10


def wait_until_empty() -> None:
    wait_until(is_empty, what="the object store to be empty")


def wait_until_stored(count: int = 1) -> None:
    wait_until(lambda: used() >= count * MEGABYTES_10, what=f"{count} values to be in the object store")


def block(fill: int = 1) -> Any:
    return np.full(MEGABYTES_10, fill, dtype=np.uint8)


@ray.remote
def make(fill: int = 1) -> Any:
    return np.full(MEGABYTES_10, fill, dtype=np.uint8)


@ray.remote
class Holder:
    def __init__(self) -> None:
        self.refs: list[Any] = []

    def hold(self, refs: list[Any]) -> None:
        self.refs = refs

    def total(self) -> int:
        return sum(int(ray.get(ref)[-1]) for ref in self.refs)

    def drop(self) -> None:
        self.refs = []
        gc.collect()

    def pid(self) -> int:
        return os.getpid()


def test_038_a_put_value_is_freed_with_its_last_local_ref() -> None:
    ref = ray.put(block())
    wait_until_stored()
    other = ref
    del ref
    assert ray.get(other)[0] == 1
    del other
    wait_until_empty()


def test_038_a_task_result_is_freed_with_its_last_local_ref() -> None:
    ref = make.remote()
    assert ray.get(ref)[0] == 1
    wait_until_stored()
    del ref
    wait_until_empty()


def test_038_a_result_nobody_waits_for_is_freed(signal: Signal) -> None:
    @ray.remote
    def late() -> Any:
        signal.wait()
        return block()

    @ray.remote
    def after(value: Any) -> bool:
        return value is not None

    ref = late.remote()
    done = after.remote(ref)
    del ref
    signal.set()
    assert ray.get(done)
    wait_until_empty()


def test_038_a_pending_task_keeps_its_arguments(signal: Signal) -> None:
    @ray.remote
    def gate() -> None:
        signal.wait()

    @ray.remote
    def use(direct: Any, nested: list[Any], gate: Any) -> int:
        return int(direct[0]) + int(ray.get(nested[0])[0])

    direct, nested = ray.put(block(3)), ray.put(block(4))
    result = use.remote(direct, [nested], gate.remote())
    del direct, nested
    wait_until_stored(2)
    signal.set()
    assert ray.get(result) == 7
    wait_until_empty()


def test_038_an_actor_keeps_the_refs_it_holds() -> None:
    holder = Holder.remote()
    ref = ray.put(block(5))
    ray.get(holder.hold.remote([ref]))
    del ref
    gc.collect()
    assert ray.get(holder.total.remote()) == 5
    wait_until_stored()
    ray.get(holder.drop.remote())
    wait_until_empty()


@pytest.mark.parametrize("how", ["kill", "crash", "forget"])
def test_038_a_dead_actors_refs_are_let_go(how: str) -> None:
    holder = Holder.remote()
    ref = ray.put(block(5))
    ray.get(holder.hold.remote([ref]))
    del ref
    assert ray.get(holder.total.remote()) == 5
    if how == "kill":
        ray.kill(holder)
    elif how == "crash":
        os.kill(ray.get(holder.pid.remote()), os_signal.SIGKILL)
    del holder
    wait_until_empty()


def test_038_a_crashed_tasks_arguments_are_let_go() -> None:
    @ray.remote(max_retries=1)
    def dies(value: Any) -> None:
        os.kill(os.getpid(), os_signal.SIGKILL)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(dies.remote(ray.put(block())))
    wait_until_empty()


def test_038_a_value_made_in_a_task_outlives_the_task() -> None:
    @ray.remote
    def make_inside() -> list[Any]:
        return [ray.put(block(6))]

    (inner,) = ray.get(make_inside.remote())
    wait_until_stored()
    assert ray.get(inner)[-1] == 6
    del inner
    wait_until_empty()


def test_038_a_borrowed_ref_passed_on_keeps_the_value() -> None:
    holder = Holder.remote()

    @ray.remote
    def pass_on(refs: list[Any], target: Any) -> None:
        ray.get(target.hold.remote(refs))

    ref = ray.put(block(7))
    ray.get(pass_on.remote([ref], holder))
    del ref
    gc.collect()
    assert ray.get(holder.total.remote()) == 7
    del holder
    wait_until_empty()


def test_038_more_than_the_store_holds_passes_through_it() -> None:
    for number in range(30):  # 300 MB through 120 MB
        ref = ray.put(block(number))
        assert ray.get(ref)[-1] == number
        del ref
    results = [make.remote(1)]
    for number in range(2, 25):
        results.append(make.remote(number))
        assert ray.get(results.pop(0))[0] == number - 1
    results.clear()
    wait_until_empty()


def test_038_big_silent_arguments_are_freed_after_the_call() -> None:
    @ray.remote
    def size(array: Any) -> int:
        return len(array)

    assert ray.get([size.remote(block()) for _ in range(4)]) == [MEGABYTES_10] * 4
    wait_until_empty()


def test_039_an_outer_object_keeps_the_inner_one() -> None:
    inner = ray.put(block(8))
    outer = ray.put({"nested": [inner]})
    del inner
    gc.collect()
    wait_until_stored()
    assert ray.get(ray.get(outer)["nested"][0])[0] == 8


def test_039_deleting_the_outer_object_frees_the_inner_one() -> None:
    outermost = ray.put([ray.put([ray.put(block(9))])])
    wait_until_stored()
    middle = ray.get(outermost)[0]
    del outermost
    gc.collect()
    assert ray.get(ray.get(middle)[0])[0] == 9
    del middle
    wait_until_empty()


def test_039_an_inner_ref_taken_out_survives_the_outer_object() -> None:
    outer = ray.put([ray.put(block(10))])
    inner = ray.get(outer)[0]
    del outer
    gc.collect()
    assert ray.get(inner)[0] == 10
    wait_until_stored()
    del inner
    wait_until_empty()


def test_041_an_array_stays_valid_after_its_ref_is_gone() -> None:
    ref = ray.put(block(11))
    array = ray.get(ref)
    del ref
    view = array[5_000_000:]
    del array
    gc.collect()
    for number in range(20):  # more than the store holds: freed memory would be used again
        ray.get(ray.put(block(number)))
    assert (view == 11).all()
    del view
    wait_until_empty()


def test_041_an_array_kept_by_an_actor_stays_valid() -> None:
    @ray.remote
    class Model:
        def __init__(self, weights: Any) -> None:
            self.weights = weights

        def check(self) -> bool:
            return bool((self.weights == 12).all())

    model = Model.remote(ray.put(block(12)))
    assert ray.get(model.check.remote())
    for number in range(20):
        ray.get(ray.put(block(number)))
    assert ray.get(model.check.remote())
    del model
    wait_until_empty()


def test_044_a_worker_that_ran_its_last_call_gives_resources_back() -> None:
    @ray.remote(num_cpus=2, max_calls=1)
    def once() -> tuple[int, list[Any]]:
        return os.getpid(), [ray.put(block(13))]

    results = [ray.get(once.remote()) for _ in range(3)]  # each needs both CPUs
    assert len({pid for pid, _ in results}) == 3, "max_calls=1 ends the process after each call"
    assert [int(ray.get(refs[0])[0]) for _, refs in results] == [13] * 3
    del results
    wait_until_empty()
