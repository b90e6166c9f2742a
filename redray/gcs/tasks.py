"""The task table: submitted, claimed, finished, cancelled."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redray.gcs.command import Argument, Command

MOST_CANCELLED = 100  # by one call: each may have to wake those that wait for its value

_pack = msgspec.msgpack.Encoder().encode


class Finish(msgspec.Struct, array_like=True, gc=False):
    """How one attempt ended. `returns` are (is inline, size, ids of contained refs); inline values travel beside it."""

    task: str
    attempt: int
    outcome: str
    returns: list[tuple[bool, int, list[str]]]
    borrower: str = ""  # the worker process, for `kept`
    kept: list[str] = []  # refs it goes on holding
    detail: str = ""


def submit(claims: str, specs: Sequence[bytes]) -> Command:
    """`claims` has a letter for each spec: R running on the relaying node, C claimed by it, - for the cluster, L lost:
    a node that went away may have begun it."""
    return Command("task_submit", [claims, *specs])


def claim(free: str, rooms: dict[str, int], limit: int) -> Command:
    return Command("task_claim", [free, _pack(rooms), limit])


def finish(free: str, rooms: dict[str, int], limit: int, finishes: Sequence[tuple[Finish, Sequence[bytes]]]) -> Command:
    """`finishes` are pairs of how an attempt ended and the inline values among its returns, in order."""
    args: list[Argument] = [free, _pack(rooms), limit]
    for end, values in finishes:
        args.append(_pack(end))
        args.extend(values)
    return Command("task_finish", args)


def running(tasks: Sequence[str]) -> Command:
    return Command("task_running", list(tasks))


def cancel(tasks: Sequence[str], how: str, parent: str = "") -> Command:
    """`how` holds the words "force" and "recursive", or is empty; `parent` is the cancelled task which submitted them.
    At most `MOST_CANCELLED` tasks."""
    return Command("task_cancel", [how, parent, *tasks])


def refuse(task: str, reason: str) -> Command:
    """End a queued task with a RaySystemError."""
    return Command("task_refuse", [task, reason])


def export(function: str, job: str, name: str, pickled: bytes, contains: Sequence[str]) -> Command:
    return Command("function_export", [function, job, name, pickled, *contains])
