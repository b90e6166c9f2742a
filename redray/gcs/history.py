"""Attempts that ended lately: who ran what, where and when. One capped list for the cluster, oldest first.

Nodes write a batch now and then, never a call per task; beyond `LIMITS["HISTORY_BATCH"]` of them at a time the earlier
ones are left out. What is written here is for people alone: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS

WRITE_S = 0.2  # a node writes a batch so long after the first one of it has ended


class TaskEvent(msgspec.Struct, array_like=True, gc=False):
    """One attempt. Times are in microseconds since the epoch."""

    task: str
    attempt: int
    name: str  # `f`, `Class.__init__` or `Class.method`
    kind: int  # of redray.spec
    job: str
    actor: str
    parent: str
    outcome: str  # a word of redray.gcs.schema.Outcome
    node: str
    host: str
    worker: str
    pid: int
    start_us: int
    end_us: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TaskEvent).decode


def append(keys: Keys, events: Iterable[TaskEvent]) -> list[tuple[Any, ...]]:
    """The commands that write a batch and keep the list short."""
    return [
        ("RPUSH", keys.history, *map(_encode, events)),
        ("LTRIM", keys.history, -LIMITS["HISTORY_TASKS"], -1),
    ]


def read(keys: Keys) -> list[tuple[Any, ...]]:
    """The commands whose replies `decoded` takes, in slices."""
    step = LIMITS["SLICE"]
    return [("LRANGE", keys.history, first, first + step - 1) for first in range(0, LIMITS["HISTORY_TASKS"], step)]


def decoded(replies: Iterable[Iterable[bytes]]) -> list[TaskEvent]:
    return [_decode(packed) for reply in replies for packed in reply]
