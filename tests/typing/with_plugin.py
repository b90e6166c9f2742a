"""What mypy knows of a redray program through redray.mypy_plugin. Run by tests/unit/test_typing.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from typing_extensions import assert_type

import redray as ray
from redray import ObjectRef, remote
from redray.actor import ActorHandle
from redray.generators import ObjectRefGenerator

T = TypeVar("T")


@ray.remote
def both(x: int, y: str = "", *, z: float = 0.0) -> tuple[int, str]:
    return x, y


texts: ObjectRef[str] = ray.put("a")
number = ray.put(1)
both.remote(1, y=texts)
both.remote(x=number, z=number)
both.options(num_cpus=1).remote(1, y=texts)
both.remote(1, y=number)  # type: ignore[arg-type]
both.remote(y=texts)  # type: ignore[call-arg]
both.remote(number, texts, texts)  # type: ignore[call-arg, arg-type]


class Base:
    def inherited(self) -> float:
        return 1.0


@ray.remote
class Counter(Base):
    def __init__(self, start: int, name: str = "") -> None:
        self.value = start

    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    async def later(self, text: str) -> str:
        return text

    def each(self, n: int) -> Iterator[str]:
        yield str(n)

    @ray.method(max_task_retries=1)
    def decorated(self) -> int:
        return self.add(2)

    def untyped(self, x):  # type: ignore[no-untyped-def]
        return x


@remote(num_cpus=2, max_restarts=1)
class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


counter = Counter.remote(1)
assert_type(counter, ActorHandle[Counter])
Counter.remote(number, name=texts)
Counter.options(name="a", lifetime="detached").remote(1, name="b")
Box.remote(1)
Counter.remote()  # type: ignore[call-arg]
Counter.remote("a")  # type: ignore[arg-type]
Counter.remote(texts)  # type: ignore[arg-type]
Counter.options(name="a").remote("a")  # type: ignore[arg-type]

assert_type(counter.add.remote(2), ObjectRef[int])
assert_type(counter.add.remote(by=number), ObjectRef[int])
assert_type(counter.add.options(name="a").remote(), ObjectRef[int])
assert_type(counter.later.remote("a"), ObjectRef[str])
assert_type(counter.each.remote(2), ObjectRefGenerator[str])
assert_type(counter.inherited.remote(), ObjectRef[float])
assert_type(counter.decorated.remote(), ObjectRef[int])
assert_type(ray.get([counter.add.remote() for _ in range(3)]), list[int])
counter.untyped.remote(1)
counter.__ray_ready__.remote()
counter.add.remote("a")  # type: ignore[arg-type]
counter.add.remote(texts)  # type: ignore[arg-type]
counter.add.remote(1, 2)  # type: ignore[call-arg]
counter.missing.remote()  # type: ignore[attr-defined]
