"""What this process has heard of values: the packed bytes of small ones, where large ones are.
Nothing is forgotten while a ref lives."""

from __future__ import annotations


class Fetch:
    """The value is in Redis, too large for an inbox."""

    __slots__ = ()


class Located:
    """The value lies in nodes' shared memory. `view` is its memory once it is mapped here."""

    __slots__ = ("asked", "nodes", "size", "view")

    def __init__(self, size: int, nodes: list[str]) -> None:
        self.size = size
        self.nodes = nodes
        self.view: memoryview | bytes | None = None
        self.asked = False


Arrival = bytes | Fetch | Located
FETCH = Fetch()
