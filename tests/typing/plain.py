"""What a type checker knows of a redray program, without any plugin. Run by tests/unit/test_typing.py."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from typing_extensions import assert_type

import redray as ray
from redray import ObjectRef
from redray.actor import ActorClass, ActorHandle, ActorProxy
from redray.generators import ObjectRefGenerator


@ray.remote
def length(text: str) -> int:
    return len(text)


@ray.remote
def both(x: int, y: str = "", *, z: float = 0.0) -> tuple[int, str]:
    return x, y


@ray.remote(num_cpus=2, max_retries=0)
def nothing() -> None: ...


@ray.remote(num_returns=2)
def pair(x: int) -> tuple[int, str]:
    return x, ""


@ray.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@ray.remote
def total(numbers: list[int], *more: int) -> int:
    return sum(numbers)


# ---- tasks -----------------------------------------------------------------------------------------------------------
ref = length.remote("a")
assert_type(ref, ObjectRef[int])
assert_type(length.remote(text="a"), ObjectRef[int])
assert_type(nothing.remote(), ObjectRef[None])
texts: ObjectRef[str] = ray.put("a")
assert_type(length.remote(texts), ObjectRef[int])
both.remote(1)
both.remote(1, "a")
both.remote(ref, "a")
both.remote(1, texts)
both.remote(ref, texts)
both.remote(1, y="a", z=0.5)
both.remote(ref, z=0.5)
total.remote([1], 2, 3)
truth: ObjectRef[bool] = ray.put(True)
both.remote(truth)

length.remote(1)  # type: ignore[call-overload]
length.remote()  # type: ignore[call-overload]
length.remote("a", "b")  # type: ignore[call-overload]
length.remote(size="a")  # type: ignore[call-overload]
length.remote(ref)  # type: ignore[arg-type]
both.remote("a")  # type: ignore[call-overload]
both.remote(1, 2)  # type: ignore[call-overload]
both.remote(1, ref)  # type: ignore[arg-type]
both.remote(texts)  # type: ignore[arg-type]
nothing.remote(1)  # type: ignore[call-arg]
length("a")  # type: ignore[misc]

# ---- options ---------------------------------------------------------------------------------------------------------
assert_type(length.options(num_cpus=1).remote("a"), ObjectRef[int])
length.options(name="a").remote(1)  # type: ignore[call-overload]
first, second = pair.remote(1)
pair.remote("a")  # type: ignore[call-overload]
assert_type(both.options(num_returns=2).remote(1), Any)

# ---- values ----------------------------------------------------------------------------------------------------------
assert_type(ray.get(ref), int)
assert_type(ray.get(ref, timeout=1), int)
assert_type(ray.get([ref, ref]), list[int])
assert_type(ray.get([length.remote(text) for text in "abc"]), list[int])
assert_type(ray.put(1.5), ObjectRef[float])
assert_type(ray.get(ray.put({"a": 1})), dict[str, int])
ready, not_ready = ray.wait([ref], num_returns=1, timeout=0.5)
assert_type(ready, list[ObjectRef[int]])
assert_type(not_ready, list[ObjectRef[int]])
assert_type(ref.future(), Future[int])
ray.get(ref, 1)  # type: ignore[call-overload]


async def awaited() -> None:
    assert_type(await ref, int)
    async for item in count.remote(3):
        assert_type(item, ObjectRef[int])


# ---- generators ------------------------------------------------------------------------------------------------------
items = count.remote(3)
assert_type(items, ObjectRefGenerator[int])
assert_type(next(items), ObjectRef[int])
assert_type([ray.get(item) for item in items], list[int])
assert_type(count.remote(ref), ObjectRefGenerator[int])
count.remote("a")  # type: ignore[call-overload]


# ---- actors ----------------------------------------------------------------------------------------------------------
class Counter:
    def __init__(self, start: int, name: str = "") -> None:
        self.value = start

    def plain(self, by: int) -> int:
        return by

    @ray.method
    def add(self, by: int) -> int:
        self.value += by
        return self.get() + by

    @ray.method
    def get(self) -> int:
        return self.value

    @ray.method
    async def later(self, text: str) -> str:
        return text

    @ray.method
    def each(self, n: int) -> Iterator[str]:
        yield str(n)

    @ray.method(num_returns=2)
    def two(self) -> tuple[int, str]:
        return 1, ""

    @ray.method(concurrency_group="io")
    def grouped(self, x: int = 0) -> float:
        return x


RemoteCounter = ray.remote(Counter)
assert_type(RemoteCounter.remote(1), ActorHandle[Counter])
RemoteCounter.remote(ref, "name")
RemoteCounter.remote(start=1, name="a")
RemoteCounter.options(name="a").remote(1)
ray.remote(num_cpus=1)(Counter).remote(1)
RemoteCounter.remote()  # type: ignore[call-overload]
RemoteCounter.remote("a")  # type: ignore[call-overload]
RemoteCounter.remote(texts)  # type: ignore[arg-type]
RemoteCounter.options(name="a").remote("a")  # type: ignore[call-overload]

handle: ActorHandle[Counter] = RemoteCounter.remote(1)
handle.plain.remote(1)
handle.add.options(name="a").remote(1)
ray.kill(handle)
ray.kill(3)  # type: ignore[arg-type]

counter: ActorProxy[Counter] = RemoteCounter.remote(1)
assert_type(counter.add.remote(1), ObjectRef[int])
assert_type(counter.add.remote(ref), ObjectRef[int])
assert_type(counter.add.remote(by=1), ObjectRef[int])
assert_type(counter.get.remote(), ObjectRef[int])
assert_type(counter.later.remote("a"), ObjectRef[str])
assert_type(counter.later.remote(texts), ObjectRef[str])
assert_type(counter.each.remote(1), ObjectRefGenerator[str])
assert_type(counter.grouped.remote(), ObjectRef[float])
assert_type(ray.get(counter.add.options(name="a").remote(1)), int)
one, two = counter.two.remote()
counter.add.remote("a")  # type: ignore[call-overload]
counter.add.remote()  # type: ignore[call-overload]
counter.add.remote(texts)  # type: ignore[arg-type]
counter.later.remote(1)  # type: ignore[call-overload]
counter.missing.remote()  # type: ignore[attr-defined]


def makes(cls: ActorClass[Counter]) -> ActorHandle[Counter]:
    return cls.remote(1, 2, 3)


makes(RemoteCounter)
