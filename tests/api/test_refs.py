"""Refs as objects: ids, futures, callbacks, where their values are."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import numpy as np
import pytest

import redray as ray
from tests.helpers import Signal

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def echo(value: Any) -> Any:
    return value


@ray.remote(max_retries=0)
def fail() -> None:
    raise ValueError("no value")


def test_a_ref_has_an_id() -> None:
    ref = ray.put(1)
    assert bytes.fromhex(ref.hex()) == ref.binary() and len(ref.binary()) == ref.size()
    again = ray.ObjectRef.from_hex(ref.hex())
    assert again == ref and hash(again) == hash(ref) and {again: 1}[ref] == 1
    assert ray.ObjectRef.from_binary(ref.binary()) == ref
    assert ray.get(again) == 1
    assert ray.ObjectRef.nil().is_nil() and not ref.is_nil()
    assert ref.hex() in repr(ref) and repr(ref).startswith("ObjectRef(")


def test_a_ref_knows_its_task_and_its_maker() -> None:
    first, second = echo.options(num_returns=2).remote([1, 2])
    assert first.task_id() == second.task_id() and isinstance(first.task_id(), ray.TaskID)
    assert isinstance(first.job_id(), ray.JobID)
    assert first.job_id().hex() == ray.get_runtime_context().get_job_id()


@pytest.mark.parametrize("text", ["zz", "00", "", "g" * 56])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError):
        ray.ObjectRef.from_hex(text)
    with pytest.raises((ValueError, TypeError)):
        ray.ObjectRef(3)


@pytest.mark.parametrize("name", ["UniqueID", "ActorID", "TaskID", "JobID", "NodeID", "WorkerID", "PlacementGroupID"])
def test_ids_of_every_kind(name: str) -> None:
    cls = getattr(ray, name)
    nil = cls.nil()
    assert nil.is_nil() and cls.from_hex(nil.hex()) == nil and cls(nil.binary()) == nil
    assert name in repr(nil) and nil.hex() in repr(nil)


def test_035_a_ref_calls_back() -> None:
    heard: queue.Queue[Any] = queue.Queue()
    ref, failed = echo.remote("value"), fail.remote()
    ref._on_completed(heard.put)
    assert heard.get(timeout=30) == "value"
    failed._on_completed(heard.put)
    assert isinstance(heard.get(timeout=30), ValueError)


def test_035_a_ref_as_an_asyncio_future() -> None:
    async def wait() -> Any:
        future = echo.remote(3).as_future()
        assert isinstance(future, asyncio.Future)
        return await future

    assert asyncio.run(wait()) == 3


def test_the_locations_of_values(signal: Signal) -> None:
    from redray.experimental import get_object_locations

    @ray.remote
    def later() -> None:
        signal.wait()

    small, large = ray.put("small"), ray.put(np.zeros(1_000_000, dtype=np.uint8))
    made, pending = echo.remote(np.zeros(2_000_000, dtype=np.uint8)), later.remote()
    ray.wait([made])
    places = get_object_locations([small, large, made, pending])
    here = ray.get_runtime_context().get_node_id()
    assert places[small]["node_ids"] == []
    assert places[large]["node_ids"] == [here] and places[made]["node_ids"]
    assert places[large]["object_size"] >= 1_000_000 and places[made]["object_size"] >= 2_000_000
    assert places[pending]["node_ids"] == [] and places[pending]["object_size"] is None
    assert get_object_locations([]) == {}
    signal.set()
    ray.get(pending)


@pytest.mark.differs_from_ray("Ray fails on the inside")
def test_the_locations_of_something_else() -> None:
    from redray.experimental import get_object_locations

    wrong: Any
    for wrong in (3, ray.put(1), [3]):
        with pytest.raises(TypeError):
            get_object_locations(wrong)


def test_028_get_of_a_generator_is_the_generator() -> None:
    @ray.remote
    def count() -> Any:
        yield 1

    generator: Any = count.remote()
    assert ray.get(generator) is generator
    assert ray.get(next(generator)) == 1


def test_037_an_object_of_ten_thousand_refs() -> None:
    refs = [ray.put(number) for number in range(10_000)]
    outer = ray.put(refs)
    inner = ray.get(outer)
    assert inner == refs
    assert ray.get(inner) == list(range(10_000))
    ready, rest = ray.wait(inner, num_returns=10_000)
    assert ready == inner and rest == []

    @ray.remote
    def total(holder: list[Any]) -> int:
        return sum(ray.get(holder[0]))

    assert ray.get(total.remote([refs])) == sum(range(10_000))
