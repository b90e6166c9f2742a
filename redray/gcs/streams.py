"""Tasks whose values come one by one: items published, and how far their reader has come."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redray.gcs.command import Argument, Command

_pack = msgspec.msgpack.Encoder().encode
GONE = -1  # in place of a number of items taken: the reader wants no more


class Yield(msgspec.Struct, array_like=True, gc=False):
    """Items of one attempt, the first being its `first`th, from 1. Without items it asks how far the stream has come.
    `returns` are (is inline, size, ids of contained refs); inline values travel beside it."""

    task: str
    attempt: int
    first: int
    returns: list[tuple[bool, int, list[str]]]


def publish(yields: Sequence[tuple[Yield, Sequence[bytes]]]) -> Command:
    """`yields` are pairs of what an attempt yielded and the inline values among its items, in order."""
    args: list[Argument] = []
    for items, values in yields:
        args.append(_pack(items))
        args.extend(values)
    return Command("task_yield", args)


def consume(task: str, taken: int, heard: int) -> Command:
    """The reader has taken so many items, or is GONE and lets go itself of the first `heard`."""
    return Command("task_consume", [task, taken, heard])
