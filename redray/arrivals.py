"""What this process has heard of values: the packed bytes of small ones, where large ones are.
Nothing is forgotten while a ref lives."""

from __future__ import annotations

import weakref
from typing import Any


class Fetch:
    """The value is in Redis, too large for an inbox."""

    __slots__ = ()


class Located:
    """The value lies in nodes' shared memory."""

    __slots__ = ("_copy", "_mapped", "asked", "nodes", "size")

    def __init__(self, size: int, nodes: list[str]) -> None:
        self.size = size
        self.nodes = nodes
        self.asked = False
        self._copy: memoryview | bytes | None = None
        self._mapped: weakref.ref[Any] | None = None

    @property
    def view(self) -> memoryview | bytes | None:
        """Its bytes, if this process has them. Of mapped memory that is only as long as somebody looks at it: were it
        kept here, nothing that was read once could leave the store before its ref goes."""
        if self._copy is not None:
            return self._copy
        mapped = self._mapped() if self._mapped is not None else None
        return memoryview(mapped).cast("B").toreadonly() if mapped is not None else None

    def keep(self, packed: memoryview | bytes) -> None:
        """A copy in this process' own memory has come."""
        self._copy = packed

    def map(self, view: memoryview, node: str) -> None:
        """The value lies in the memory of `node` too, this process' own, and `view` looks at it there."""
        self._mapped = weakref.ref(view.obj)
        if node not in self.nodes:
            self.nodes.append(node)


Arrival = bytes | Fetch | Located
FETCH = Fetch()
