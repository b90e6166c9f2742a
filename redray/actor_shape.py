"""What all handles to actors of one class share, pickled once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from redray.options import MethodOptions


class ActorShape:
    """The name of a class and its methods."""

    __slots__ = ("_packed", "class_name", "methods")

    def __init__(self, class_name: str, methods: Mapping[str, MethodOptions]) -> None:
        self.class_name = class_name
        self.methods = dict(methods)
        self._packed = b""

    def packed(self) -> bytes:
        """Pickled once, however many handles travel."""
        if not self._packed:
            from redray.store import serialization

            self._packed = serialization.pack(serialization.serialize((self.class_name, self.methods)))
        return self._packed

    @staticmethod
    @lru_cache(maxsize=1024)
    def unpack(packed: bytes) -> ActorShape:
        from redray.store import serialization

        return ActorShape(*serialization.deserialize(packed))
