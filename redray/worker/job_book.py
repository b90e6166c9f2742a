"""What a node knows of jobs: the configuration their workers need, and exported functions,
fetched from Redis when unknown."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.worker.redis_link import RedisLink

MOST_FUNCTION_BYTES = 256 << 20
_REMEMBERED_ENDS = 1_000


class JobBook:
    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._configs: dict[str, dict[str, Any]] = {}
        self._functions: OrderedDict[str, bytes] = OrderedDict()
        self._function_bytes = 0
        self._missing: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()

    # ---- jobs --------------------------------------------------------------------------------------------------------
    def learn(self, job: str, packed: bytes) -> None:
        self._configs[job] = msgspec.msgpack.decode(packed) if packed else {}

    def known_config(self, job: str) -> dict[str, Any] | None:
        return self._configs.get(job)

    def config(self, job: str, found: Callable[[dict[str, Any]], None]) -> None:
        def on_reply(reply: Any) -> None:
            self.learn(job, reply if isinstance(reply, bytes) else b"")
            found(self._configs[job])

        self._link.plain(on_reply, "HGET", self._keys.job(job), "config")

    def ended(self, job: str) -> None:
        self._configs.pop(job, None)
        self._ended[job] = None
        if len(self._ended) > _REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    def has_ended(self, job: str) -> bool:
        return job in self._ended

    # ---- functions ---------------------------------------------------------------------------------------------------
    def learn_function(self, function: str, pickled: bytes) -> None:
        if function not in self._functions:
            self._functions[function] = pickled
            self._function_bytes += len(pickled)
            while self._function_bytes > MOST_FUNCTION_BYTES and len(self._functions) > 1:
                self._function_bytes -= len(self._functions.popitem(last=False)[1])

    def known_function(self, function: str) -> bytes | None:
        return self._functions.get(function)

    def is_missing(self, function: str) -> bool:
        return function in self._missing

    def function(self, function: str, found: Callable[[bytes | None], None]) -> None:
        known = self._functions.get(function)
        if known is not None:
            found(known)
            return

        def on_reply(reply: Any) -> None:
            if isinstance(reply, bytes):
                self.learn_function(function, reply)
                found(reply)
            else:
                self._missing.add(function)
                found(None)

        self._link.plain(on_reply, "HGET", self._keys.fn(function), "pickled")
