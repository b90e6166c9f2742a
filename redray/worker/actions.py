"""What the state of a node wants done: the only way it acts. The shell (node.py) carries these out, in order."""

from __future__ import annotations

from typing import NamedTuple

from redray.gcs.streams import Yield
from redray.gcs.tasks import Finish
from redray.messages import Run, _Message


class StartWorker(NamedTuple):
    worker: str


class Send(NamedTuple):
    """A frame for a process of this node."""

    worker: str
    message: _Message


class Dispatch(NamedTuple):
    """A run for a worker; the shell adds the function and the job's facts if the worker has not seen them."""

    worker: str
    run: Run
    function: str
    job: str
    environment: str
    name: str
    is_call: bool


class Interrupt(NamedTuple):
    """Interrupt this attempt in the worker's main thread."""

    worker: str
    task: str
    attempt: int


class CancelTasks(NamedTuple):
    """Wherever they are: `parent`, which submitted them, was cancelled `how`."""

    tasks: list[str]
    how: str
    parent: str


class Revoke(NamedTuple):
    """Take back what was sent up to `serial` and has not started; which that is, a `Revoked` tells a moment later."""

    worker: str
    serial: int


class Kill(NamedTuple):
    worker: str


class TellWedged(NamedTuple):
    """Whether all worker processes of this node wait and there may be no more."""

    wedged: bool


class LookUp(NamedTuple):
    """Find out about tasks that the workers of this node wait for: answered by `WaitsFound`."""

    tasks: list[str]


class Refuse(NamedTuple):
    """End a task that waits in the cluster's queues with an error."""

    task: str
    reason: str


class Learn(NamedTuple):
    """Find out about objects that calls wait for: their news come back as `ObjectNews`."""

    objects: list[str]


class RecordFinishes(NamedTuple):
    """`limit` > 0 asks for that much work in the same call."""

    finishes: list[tuple[Finish, list[bytes]]]
    free: str
    rooms: dict[str, int]
    limit: int


class RecordItems(NamedTuple):
    """Publish items of streams; what Redis says of each comes back as `ItemsPublished`."""

    yields: list[tuple[Yield, list[bytes]]]


class FreeLarge(NamedTuple):
    """Objects in this node's shared memory that nobody will hear of."""

    objects: list[str]


class Claim(NamedTuple):
    free: str
    rooms: dict[str, int]
    limit: int


class RecordRunning(NamedTuple):
    tasks: list[str]


class RecordActorStarted(NamedTuple):
    actor: str
    attempt: int
    worker: str


class RecordActorDied(NamedTuple):
    actor: str
    attempt: int
    final: int  # 0: restart it if that is allowed, 1: its end was asked for, 2: its constructor raised,
    # 3: its environment could not be set up, 4: its placement group was removed
    cause: str


class RecordGranted(NamedTuple):
    """Answers to what placement groups asked for: (group, attempt, granted). `free` is what is free after them."""

    answers: list[tuple[str, int, bool]]
    free: str


class Warn(NamedTuple):
    """A sentence for the drivers of a job."""

    job: str
    text: str


Action = (
    StartWorker
    | Send
    | Dispatch
    | Interrupt
    | CancelTasks
    | Revoke
    | Kill
    | TellWedged
    | LookUp
    | Refuse
    | Learn
    | RecordFinishes
    | RecordItems
    | FreeLarge
    | Claim
    | RecordRunning
    | RecordActorStarted
    | RecordActorDied
    | RecordGranted
    | Warn
)
