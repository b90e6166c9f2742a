"""get, put, wait and values in shared memory: spec lines 25 to 37."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.exceptions import GetTimeoutError, RayTaskError
from tests.helpers import Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def echo(value: Any) -> Any:
    return value


@ray.remote
def when(signal: Signal, value: Any = None) -> Any:
    signal.wait()
    return value


@ray.remote
def fail(text: str = "failed") -> None:
    raise ValueError(text)


# --- get ---------------------------------------------------------------------------------------------------------


def test_025_get_keeps_order_and_duplicates() -> None:
    one, two = echo.remote(1), ray.put(2)
    assert ray.get([two, one, two, two, one]) == [2, 1, 2, 2, 1]


def test_025_get_of_nothing_is_nothing() -> None:
    assert ray.get([]) == []


@pytest.mark.parametrize("make", [tuple, set, iter, dict.fromkeys])
def test_025_get_of_another_iterable_is_a_value_error(make: Any) -> None:
    refs = [ray.put(1), ray.put(2)]
    with pytest.raises(ValueError, match="list"):
        ray.get(make(refs))


@pytest.mark.parametrize("stranger", [1, "text", None, object()])
def test_025_get_of_something_else_is_an_error(stranger: object) -> None:
    with pytest.raises(TypeError):
        ray.get([ray.put(1), stranger])
    with pytest.raises((ValueError, TypeError)):
        ray.get(stranger)


def test_025_get_again_gives_the_value_again() -> None:
    ref = echo.remote([1, 2])
    first = ray.get(ref)
    first.append(3)
    assert ray.get(ref) == [1, 2], "each get makes a value of its own"


def test_026_get_raises_the_first_error_without_waiting_for_the_rest(signal: Signal) -> None:
    slow = when.remote(signal)
    with pytest.raises(ValueError, match="failed"):
        ray.get([slow, fail.remote()])
    assert ray.wait([slow], timeout=0)[0] == []
    signal.set()
    assert ray.get(slow) is None


def test_027_timeout_zero_tries_once(signal: Signal) -> None:
    ref = when.remote(signal, "value")
    with pytest.raises(GetTimeoutError) as caught:
        ray.get(ref, timeout=0)
    assert isinstance(caught.value, TimeoutError)
    signal.set()
    assert ray.get(ref) == "value"
    assert ray.get(ref, timeout=0) == "value", "what is ready is returned even with no time at all"


def test_027_a_timeout_ends_the_wait(signal: Signal) -> None:
    ref = when.remote(signal)
    ready = ray.put("ready")
    begin = time.monotonic()
    with pytest.raises(GetTimeoutError):
        ray.get([ready, ref], timeout=0.2)
    assert 0.2 <= time.monotonic() - begin < 20
    signal.set()
    assert ray.get([ready, ref], timeout=60) == ["ready", None]


@pytest.mark.parametrize(
    "value", [None, 0, "", "text", b"\x00", {"a": [1, (2, 3)]}, {1, 2}, 10**400, float("inf"), int]
)
def test_029_put_and_get_give_back_what_was_put(value: object) -> None:
    again = ray.get(ray.put(value))
    assert again == value and type(again) is type(value)


def test_029_put_takes_a_snapshot() -> None:
    value = [1]
    array = np.zeros(100_000)
    refs = [ray.put(value), ray.put(array)]
    value.append(2)
    array[:] = 1
    small, large = ray.get(refs)
    assert small == [1]
    assert not large.any()


def test_029_put_of_a_ref_is_a_type_error() -> None:
    ref = ray.put(1)
    with pytest.raises(TypeError, match="ObjectRef"):
        ray.put(ref)


def test_029_put_of_a_list_of_refs_is_fine() -> None:
    refs = [ray.put(1), echo.remote(2)]
    again = ray.get(ray.put(refs))
    assert again == refs
    assert ray.get(again) == [1, 2]


def test_029_refs_compare_hash_and_travel_by_id() -> None:
    ref = ray.put(1)
    travelled = ray.get(echo.remote([ref]))[0]
    assert travelled == ref and hash(travelled) == hash(ref)
    assert len({ref, travelled}) == 1
    assert ref != ray.put(1)
    assert ref.hex() == travelled.hex() and bytes.fromhex(ref.hex()) == ref.binary()


# --- wait --------------------------------------------------------------------------------------------------------


def test_030_wait_of_nothing_is_nothing() -> None:
    assert ray.wait([]) == ([], [])


def test_030_wait_refuses_what_it_cannot_do() -> None:
    ref, other = ray.put(1), ray.put(2)
    with pytest.raises(TypeError):
        ray.wait(ref)
    with pytest.raises(TypeError):
        ray.wait((ref, other))
    with pytest.raises(TypeError):
        ray.wait([ref, 1])
    with pytest.raises(ValueError, match="(?i)unique|duplicate"):
        ray.wait([ref, other, ref])
    for count in (0, -1):
        with pytest.raises(ValueError, match="num_returns|number of objects"):
            ray.wait([ref], num_returns=count)
    with pytest.raises(ValueError, match="num_returns"):
        ray.wait([ref, other], num_returns=3)
    with pytest.raises(ValueError, match="timeout"):
        ray.wait([ref], timeout=-1)


def test_031_wait_returns_at_most_num_returns_in_input_order() -> None:
    refs = [ray.put(number) for number in range(6)]
    for count in (1, 3, 6):
        ready, rest = ray.wait(refs, num_returns=count)
        assert len(ready) == count
        assert ready == [ref for ref in refs if ref in ready]
        assert rest == [ref for ref in refs if ref not in ready]


def test_031_both_lists_keep_the_input_order_whatever_finished_first(signal: Signal) -> None:
    late = when.remote(signal)
    refs = [echo.remote(0), late, ray.put(1), echo.remote(2)]
    ready, rest = ray.wait(refs, num_returns=3)
    assert ready == [refs[0], refs[2], refs[3]]
    assert rest == [late]
    signal.set()
    assert ray.wait(refs, num_returns=4) == (refs, [])


def test_031_a_timeout_returns_what_is_ready(signal: Signal) -> None:
    late = when.remote(signal)
    quick = ray.put(1)
    assert ray.wait([late, quick], num_returns=2, timeout=0.1) == ([quick], [late])
    assert ray.wait([late], timeout=0) == ([], [late])
    signal.set()
    assert ray.wait([late, quick], num_returns=2, timeout=60) == ([late, quick], [])


def test_031_results_are_processed_as_they_arrive() -> None:
    pending = [echo.remote(number) for number in range(50)]
    seen = []
    while pending:
        (ref,), pending = ray.wait(pending)
        seen.append(ray.get(ref))
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize("fetch_local", [True, False])
def test_032_fetch_local_on_one_node_changes_nothing(fetch_local: bool) -> None:
    ref = echo.remote(np.zeros(50_000))
    assert ray.wait([ref], fetch_local=fetch_local) == ([ref], [])
    assert ray.get(ref, timeout=0 if fetch_local else None).shape == (50_000,)


def test_033_a_failed_task_counts_as_ready(signal: Signal) -> None:
    late = when.remote(signal)
    failed = fail.remote()
    assert ray.wait([late, failed]) == ([failed], [late])
    signal.set()
    ray.get(late)


# --- futures -----------------------------------------------------------------------------------------------------


def test_035_a_ref_can_be_awaited(signal: Signal) -> None:
    async def use() -> list[object]:
        late = when.remote(signal, "late")
        waiting = asyncio.gather(late, echo.remote("quick"), ray.put("put"))
        assert await echo.remote(1) == 1
        signal.set()
        results: list[object] = [*await waiting]
        with pytest.raises(ValueError, match="failed") as caught:
            await fail.remote()
        return [*results, isinstance(caught.value, RayTaskError)]

    assert asyncio.run(use()) == ["late", "quick", "put", True]


def test_035_a_ref_gives_a_future(signal: Signal) -> None:
    future = when.remote(signal, 5).future()
    assert isinstance(future, concurrent.futures.Future)
    assert not future.done()
    signal.set()
    assert future.result(timeout=60) == 5
    failed = fail.remote("through a future").future()
    assert isinstance(failed.exception(timeout=60), ValueError)


def test_035_a_future_can_be_wrapped_for_asyncio() -> None:
    async def use() -> object:
        return await asyncio.wrap_future(echo.remote(7).future())

    assert asyncio.run(use()) == 7


def test_035_refs_can_be_awaited_in_an_async_actor() -> None:
    @ray.remote
    class Reader:
        async def read(self, refs: list[Any]) -> list[Any]:
            return list(await asyncio.gather(*refs))

        async def read_blocking(self, refs: list[Any]) -> Any:
            return ray.get(refs)

    reader = Reader.remote()
    assert ray.get(reader.read.remote([echo.remote(1), ray.put(2)])) == [1, 2]
    assert ray.get(reader.read_blocking.remote([echo.remote(3)])) == [3], "blocking in an async actor only warns"


# --- shared memory -----------------------------------------------------------------------------------------------


def backing(array: Any) -> tuple[str, str, int]:
    """Device, inode and offset of the file mapping that holds the array's first byte."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode, offset, device, inode, *_ = line.split()
            begin, end = (int(part, 16) for part in span.split("-"))
            if begin <= address < end:
                assert mode[3] == "s", f"not shared memory: {line}"
                return device, inode, int(offset, 16) + address - begin
    raise AssertionError("the array lies in no mapping")


def test_036_arrays_come_back_read_only_and_equal() -> None:
    original = np.arange(200_000, dtype=np.int64).reshape(400, 500)
    array = ray.get(ray.put(original))
    np.testing.assert_array_equal(array, original)
    assert array.dtype == original.dtype and array.shape == original.shape
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    copy = array.copy()
    copy[0, 0] = -1
    assert array[0, 0] == 0


def test_036_getting_twice_gives_the_same_memory() -> None:
    ref = ray.put({"weights": np.ones(500_000), "name": "model"})
    first, second = ray.get([ref, ref])
    assert np.shares_memory(first["weights"], second["weights"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_036_processes_of_one_node_share_the_memory() -> None:
    @ray.remote
    def where(array: Any) -> tuple[int, tuple[str, str, int]]:
        return os.getpid(), backing(array)

    ref = ray.put(np.arange(500_000))
    here = backing(ray.get(ref))
    pid, there = ray.get(where.remote(ref))
    assert pid != os.getpid()
    assert there == here


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_036_a_tasks_large_result_is_shared_memory_too() -> None:
    @ray.remote
    def zeros() -> Any:
        return np.zeros(500_000)

    assert backing(ray.get(zeros.remote()))


@pytest.mark.parametrize("dtype", ["float32", "int8", "complex128", "datetime64[s]", "bool", "U7", "S3"])
def test_036_arrays_of_every_kind_survive(dtype: str) -> None:
    original = np.zeros(40_000, dtype=dtype)
    array = ray.get(echo.remote(original))
    assert array.dtype == original.dtype
    np.testing.assert_array_equal(array, original)


def test_036_arrays_that_are_not_plain_buffers_survive() -> None:
    base = np.arange(90_000).reshape(300, 300)
    values = [base.T, base[::2, ::3], np.asfortranarray(base), np.array([{"a": 1}, None], dtype=object), np.array(7)]
    for original, again in zip(values, ray.get(ray.put(values)), strict=True):
        np.testing.assert_array_equal(again, original)


def test_036_buffers_are_aligned() -> None:
    arrays = ray.get(ray.put([np.zeros(100_001, dtype=np.int8), np.zeros(100_001), np.zeros(3, dtype=np.int16)]))
    assert [array.__array_interface__["data"][0] % 64 for array in arrays[:2]] == [0, 0]


@pytest.mark.parametrize("length", [3, 50_000])
def test_037_identity_of_arrays_inside_one_object_is_kept(length: int) -> None:
    many = ray.get(ray.put([np.zeros(length)] * 99))
    assert many[0] is many[1]
    assert all(one is many[0] for one in many)


@pytest.mark.differs_from_ray("Ray copies plain lists, whose pickling it leaves to MessagePack")
def test_037_identity_of_lists_inside_one_object_is_kept() -> None:
    many = ray.get(ray.put([[1]] * 99))
    assert all(one is many[0] for one in many)


def test_037_cycles_and_ordered_containers_survive() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    again = ray.get(ray.put(loop))
    assert again[1] is again
    ordered = OrderedDict(b=1, a=2)
    assert list(ray.get(ray.put(ordered)).items()) == [("b", 1), ("a", 2)]


def test_037_many_refs_in_one_get() -> None:
    refs = [ray.put(number) for number in range(1000)]
    assert ray.get(refs) == list(range(1000))


def test_033_a_task_waits_for_many_results() -> None:
    @ray.remote
    def collect(refs: list[Any]) -> int:
        ready, rest = ray.wait(refs, num_returns=len(refs))
        return len(ready) - len(rest)

    assert ray.get(collect.remote([echo.remote(number) for number in range(20)])) == 20
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="the CPUs to be free")
