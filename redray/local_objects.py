"""The values of a session in local mode: packed as a cluster packs them, and gone with their last ref."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any, NamedTuple

from redray.exceptions import ObjectLostError, RayTaskError
from redray.generators import EndOfStream
from redray.refs import ObjectRef, dropped
from redray.store import serialization


class Packed(NamedTuple):
    data: bytes
    contains: tuple[bytes, ...] = ()  # object ids of the refs inside


def pack(value: Any) -> Packed:
    """Raises TypeError if the value cannot be pickled."""
    serialized = serialization.serialize(value)
    return Packed(serialization.pack(serialized), tuple(serialized.contains))


def pack_task_error(error: BaseException, name: str, instance: object, actor_id: str) -> Packed:
    """What user code raised, as the value of its refs."""
    shown = repr(instance) if instance is not None else None
    wrapped = RayTaskError.from_exception(error, name, os.getpid(), "127.0.0.1", shown, actor_id or None)
    return Packed(serialization.pack_error(wrapped))


def pack_items(items: Any, name: str) -> Iterator[Packed]:
    """Each item of a generator; an error of its body comes as the last one."""
    try:
        for item in items:
            yield pack(item)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # user code may raise anything
        yield pack_task_error(error, name, None, "")


def pack_some(items: Any, count: int, name: str) -> list[Packed]:
    """The first `count` items of a generator; those that its body did not come to are its error."""
    found = list(islice(pack_items(items, name), count))
    if len(found) < count and not (found and serialization.is_error(found[-1].data)):
        problem = ValueError(f"Task returned {len(found)} objects, but num_returns={count}.")
        found.append(pack_task_error(problem, name, None, ""))
    return found + found[-1:] * (count - len(found))


async def collect(items: AsyncIterable[Any]) -> Iterator[Any]:
    """All items, and then what the generator raised."""
    found: list[Any] = []
    try:
        async for item in items:
            found.append(item)
    except Exception as error:  # of the user's: it is raised where it belongs, after the items
        return _replay(found, error)
    return _replay(found, None)


def _replay(items: list[Any], error: Exception | None) -> Iterator[Any]:
    yield from items
    if error is not None:
        raise error


class Objects:
    """Object id -> packed value, with the number of refs that name it. A value counts for the refs inside it."""

    def __init__(self) -> None:
        self._packed: dict[bytes, Packed] = {}
        self._counts: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def add(self, object_id: bytes, packed: Packed) -> ObjectRef[Any]:
        self._packed[object_id] = packed
        for inner in packed.contains:
            self.count(inner)
        return ObjectRef(object_id)  # which counts itself

    def read(self, ref: ObjectRef[Any]) -> Packed:
        found = self._packed.get(ref)
        if found is None:
            raise ObjectLostError(ref.hex(), reason="this session never had it, or has freed it.")
        return found

    def count(self, object_id: bytes) -> None:
        with self._lock:
            self._counts[object_id] = self._counts.get(object_id, 0) + 1

    def discount(self, object_id: bytes) -> bool:
        """One ref less. True if it was the last: its value is gone, and counts for the refs inside no more."""
        with self._lock:
            left = self._counts.get(object_id, 0) - 1
            if left > 0:
                self._counts[object_id] = left
            else:
                self._counts.pop(object_id, None)
        if left != 0:
            return False
        gone = self._packed.pop(object_id, None)
        if gone is not None:
            dropped.extend(gone.contains)  # they may be handles: whoever sweeps must see them
        return True

    def __len__(self) -> int:
        return len(self._packed)


class LocalStream:
    """The items of a generator that has run to its end. Implements `redray.generators.Stream`."""

    handle = b"\xff" * 16  # names nothing: each item is a ref of its own

    def __init__(self, end: ObjectRef[None], made: list[ObjectRef[Any]]) -> None:
        self.end = end
        self._items = deque(made)

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        if not self._items:
            raise EndOfStream
        return self._items.popleft()

    def is_ready(self) -> bool:
        return True

    def is_over(self) -> bool:
        return not self._items

    def future(self) -> Future[None] | None:
        return None
