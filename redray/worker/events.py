"""What can happen to a node. The shell turns sockets, replies and exits into these; `NodeState.handle` decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redray.messages import Done, Yielded
from redray.worker.wedge import Waits


class Submitted(NamedTuple):
    """A local process submits tasks and calls. Answered by the letters of `task_submit`'s claims."""

    worker: str
    specs: list[bytes]


class WorkReceived(NamedTuple):
    """Redis handed out work: (attempt, spec, inline values of its arguments by id,
    ids of those that are in shared memory). `leftover` are the demands of ready work that stayed there."""

    items: list[tuple[int, bytes, dict[str, bytes], list[str]]]
    leftover: list[str]


class TaskDone(NamedTuple):
    worker: str
    done: Done


class ItemsYielded(NamedTuple):
    """A worker's attempt yielded items of its stream."""

    worker: str
    items: Yielded


class ItemsPublished(NamedTuple):
    """Redis' answer to RecordItems, in its order: (task, items published or -1 when stale, items taken, items
    missing)."""

    answers: list[tuple[str, int, int, int]]


class ItemsTaken(NamedTuple):
    """The reader of a stream has taken so many items, or is gone (-1)."""

    task: str
    taken: int


class WorkerReady(NamedTuple):
    worker: str


class WorkerGone(NamedTuple):
    """`started` is the serial of the run it began last, 0 before the first; `detail` says how it died, for people."""

    worker: str
    started: int
    detail: str


class WorkerBlocked(NamedTuple):
    """`returned` are serials of runs that it was sent and has not started; `waits_for` are objects."""

    worker: str
    returned: list[int]
    waits_for: Sequence[str] = ()


class WorkerUnblocked(NamedTuple):
    worker: str


class HandedBackTasks(NamedTuple):
    """By the serials of their runs: a task may have been taken back, and even sent again, before this came."""

    worker: str
    serials: list[int]


class Revoked(NamedTuple):
    """Which run a worker had started last, read when it could not start any more up to `serial`."""

    worker: str
    serial: int
    started: int


class WaitsFound(NamedTuple):
    """What the workers of this node wait for, as Redis has it."""

    waits: Waits


class ActorExiting(NamedTuple):
    worker: str
    reason: str


class ActorStartAnswered(NamedTuple):
    """Redis' answer to RecordActorStarted: `outcome` OK, MORE or STALE."""

    actor: str
    outcome: str
    calls: list[tuple[int, bytes, dict[str, bytes], list[str]]]
    callers: dict[str, int]


class CallReceived(NamedTuple):
    attempt: int
    spec: bytes


class ObjectNews(NamedTuple):
    """An object is ready: its packed value, or None when it lies in some node's shared memory."""

    object: str
    value: bytes | None


class CancelRequested(NamedTuple):
    """`how` holds the words "force" (its worker may be killed) and "recursive" (what it submitted, too)."""

    task: str
    how: str


class KillRequested(NamedTuple):
    actor: str
    cause: str


class RetireRequested(NamedTuple):
    actor: str


class BundlesWanted(NamedTuple):
    """Redis asks for bundles of a placement group: (index, demand). `is_alone`: no other node takes part."""

    group: str
    attempt: int
    is_alone: bool
    bundles: list[tuple[int, str]]


class BundlesCommitted(NamedTuple):
    """All nodes have granted: what was set aside may be used."""

    group: str


class BundlesReleased(NamedTuple):
    """`indexes` of bundles that are not needed after all; none: the group was removed."""

    group: str
    indexes: list[int]


class JobEnded(NamedTuple):
    job: str


class Rung(NamedTuple):
    pass


class MemoryShort(NamedTuple):
    """The machine runs out of memory, `text` says how much is in use; `resident` are bytes of each worker."""

    text: str
    resident: dict[str, int]


class Tick(NamedTuple):
    pass


Event = (
    Submitted
    | WorkReceived
    | TaskDone
    | ItemsYielded
    | ItemsPublished
    | ItemsTaken
    | WorkerReady
    | WorkerGone
    | WorkerBlocked
    | WorkerUnblocked
    | HandedBackTasks
    | Revoked
    | WaitsFound
    | ActorExiting
    | ActorStartAnswered
    | CallReceived
    | ObjectNews
    | CancelRequested
    | KillRequested
    | RetireRequested
    | BundlesWanted
    | BundlesCommitted
    | BundlesReleased
    | JobEnded
    | Rung
    | MemoryShort
    | Tick
)
