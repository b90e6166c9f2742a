"""Inline values that passed through a node lately. Pure."""

from __future__ import annotations

from collections import OrderedDict

RECENT_BYTES = 16 << 20


class Recent:
    """Inline values that this node has seen: an argument among them needs no round trip."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def add(self, object: str, value: bytes) -> None:
        if object not in self._values:
            self._values[object] = value
            self._bytes += len(value) + 100
            while self._bytes > RECENT_BYTES:
                self._bytes -= len(self._values.popitem(last=False)[1]) + 100

    def get(self, object: str) -> bytes | None:
        return self._values.get(object)
