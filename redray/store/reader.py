"""A process' side of its node's store: values are views of shared memory, and the node hears when the last is gone."""

from __future__ import annotations

import weakref
from collections import deque
from pathlib import Path
from typing import Any

from redray.store.arena import Arena
from redray.store.serialization import VALUE, Serialized, pieces


class Reader:
    """`unpinned` holds one object id for each `read` whose memory nothing in this process looks at any more.

    The session drains it and tells the node. Entries are only appended, by whatever thread drops the last view.
    """

    def __init__(self, arena_path: str | Path, capacity: int) -> None:
        self.unpinned: deque[str] = deque()
        self._arena = Arena.attach(arena_path, capacity)
        self._watched: dict[int, _Watch] = {}

    def read(self, object_hex: str, offset: int, size: int) -> memoryview:
        """A read-only view of a sealed object, which the node has pinned once for this call."""
        import ctypes  # 2 ms that only a process with large objects pays

        self._arena.check(offset, size)
        # A memoryview of the mapping could not be watched: its slices keep the mapping alive and not the memoryview.
        # A ctypes array exports a buffer of its own, which every slice, cast and array made from it keeps alive.
        exporter = (ctypes.c_ubyte * size).from_buffer(self._arena.memory, offset)
        watch = _Watch(exporter, self._gone)
        watch.object_hex = object_hex
        self._watched[id(watch)] = watch
        return memoryview(exporter).cast("B").toreadonly()

    def _gone(self, watch: weakref.ref[Any]) -> None:
        assert isinstance(watch, _Watch)
        self.unpinned.append(watch.object_hex)
        del self._watched[id(watch)]

    @property
    def watched(self) -> int:
        """How many reads are still looked at."""
        return len(self._watched)

    def write(self, serialized: Serialized, offset: int, tag: bytes = VALUE) -> int:
        """Write a value where the node gave it `serialized.size` bytes, and return that size.

        Raises ObjectStoreFullError if the file system has no room: the node must then be told to drop the object.
        """
        size = serialized.size
        self._arena.write(offset, pieces(serialized, tag), size)
        return size

    def write_view(self, offset: int, size: int) -> memoryview:
        """The same for bytes from elsewhere: a writable view, its pages reserved. `write` is faster for values."""
        return self._arena.writable(offset, size)

    def close(self) -> None:
        self._arena.close()


class _Watch(weakref.ref):  # type: ignore[type-arg]  # weakref.ref is generic for mypy only
    __slots__ = ("object_hex",)

    object_hex: str
