"""What a process and its node say to each other over their unix socket.

A frame is `u32 length (little endian) | msgpack array`, the first element being the tag of the message class. Process
-> node messages that change the cluster's state are `Call`s: numbered, relayed to Redis in order, kept by the sender
until acknowledged. Object, task and worker ids are hexadecimal text.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

VERSION = 1
IS_HERE = -1
HEADER = struct.Struct("<I")


class _Message(msgspec.Struct, array_like=True, gc=False):
    pass


# ---- process -> node -------------------------------------------------------------------------------------------------
class Hello(_Message, tag=1):
    """First frame on a connection. `last` is the number of the last call this process knows to be acknowledged."""

    version: int
    kind: str  # "driver" or "worker"
    worker: str
    job: str
    pid: int
    last: int
    namespace: str = ""  # a driver's
    config: bytes = b""  # a driver's packed job configuration, for the workers of its job


class Call(_Message, tag=2):
    """A numbered call of a Lua script: the node relays it, or (task_submit) first decides what it starts itself."""

    number: int
    seen: str  # the inbox position up to which entries may be trimmed ("" = unchanged)
    verb: str
    args: list[bytes]
    wants_reply: bool = False


class Blocked(_Message, tag=3):
    """The worker's task is about to block in get/wait on `waits_for`;
    `returned` are serials of runs that it was sent and has not started."""

    waits_for: list[str]
    returned: list[int]


class Unblocked(_Message, tag=4):
    pass


class Allocate(_Message, tag=5):
    """Ask for `size` bytes of shared memory for `object`. Answered by Reply(request, [offset]) or an error; the offset
    is IS_HERE when the object has been written before."""

    request: int
    object: str
    size: int


class Locate(_Message, tag=6):
    """Ask for values to be brought here and pinned for this process.
    Answered by Reply(request, [[offset, size] or error, ...])."""

    request: int
    objects: list[str]
    timeout_ms: int  # -1: wait until they are here or lost


class Unpin(_Message, tag=7):
    """No view of these values lives in this process any more (one entry per pin)."""

    objects: list[str]


class Returned(msgspec.Struct, array_like=True, gc=False):
    """One return value of a task: inline bytes, or the size of what was written at the place that Allocate gave."""

    inline: bytes | None
    size: int
    contains: list[str]  # object ids of refs inside the value


class Done(_Message, tag=8):
    """A worker finished an attempt. `outcome` is a word of `redray.gcs.schema.Outcome`."""

    task: str
    attempt: int
    outcome: str
    returns: list[Returned]
    run_us: int
    detail: str = ""  # for people: why it failed, where no packed error says it better
    # Borrowed refs the worker still holds (an actor's state): registered before the argument pins drop.
    keeps: list[str] = []
    # If it was cancelled: the number of the last task it had submitted by then. What came later was meant to clean up.
    submitted: int = 0


class Yielded(_Message, tag=12):
    """A worker's attempt yielded items, the first being its `first`th, from 1. Without items it asks how far its stream
    has come. Answered by `StreamNews`, once Redis has them."""

    task: str
    attempt: int
    first: int
    items: list[Returned]


class GetFunction(_Message, tag=9):
    """Ask for an exported function or class that Run did not carry. Answered by Reply(request, bytes)."""

    request: int
    function: str


class ActorExit(_Message, tag=10):
    """The actor asked to end (exit_actor, __ray_terminate__): do not restart it."""

    reason: str


# ---- node -> process -------------------------------------------------------------------------------------------------
class Welcome(_Message, tag=32):
    node: str
    last: int  # the last call number of this process that the node has taken: send again what comes after
    arena: str  # path of the shared memory file
    capacity: int
    config: dict[str, Any]


class Ack(_Message, tag=33):
    """Redis has every call up to `number`; `failures` are (number, outcome word, detail)."""

    number: int
    failures: list[tuple[int, str, str]] = []


class CallReply(_Message, tag=34):
    """Redis' reply to a Call that wanted one."""

    number: int
    reply: Any


class Reply(_Message, tag=35):
    request: int
    value: Any
    error: str = ""  # name of a class in redray.exceptions
    detail: str = ""


class Run(_Message, tag=36):
    """Execute one attempt. `values` are the inline values of `waits_for` refs known to the node ({object id: bytes});
    others are fetched by the worker. `function` is the pickled function the first time this worker needs it, else
    None."""

    spec: bytes
    attempt: int
    values: dict[str, bytes]
    function: bytes | None
    gpus: list[int | str]
    serial: int = 1  # counts the runs sent to this worker: a task may be sent to it, taken back, and sent again


class JobInfo(_Message, tag=37):
    """What a worker must know of its job before its first task."""

    job: str
    config: dict[str, Any]  # sys_path, cwd, namespace, runtime_env, ...
    environment: str = ""  # of this worker, if it is not the job's: see redray.environments
    cache: str = ""  # where this node keeps the files of environments


class Cancel(_Message, tag=38):
    task: str


class TakeBack(_Message, tag=39):
    """Return the runs up to this serial that have not started: answered by `HandedBack`."""

    serial: int


class HandedBack(_Message, tag=11):
    """Serials of runs that did not start: asked for by TakeBack, or revoked through shared memory."""

    serials: list[int]


class StreamNews(_Message, tag=41):
    """How far a stream has come: items that Redis has (0: nothing new), items that its reader has taken (-1: it wants
    no more, or the attempt is no longer this worker's) and items that were lost since they were published (-1: this is
    news of the reader only)."""

    task: str
    published: int
    taken: int
    missing: int


class Exit(_Message, tag=40):
    """Finish what runs, then leave. `reason` ends up in the actor's death message."""

    reason: str


ToNode = (
    Hello
    | Call
    | Blocked
    | Unblocked
    | Allocate
    | Locate
    | Unpin
    | Done
    | Yielded
    | GetFunction
    | ActorExit
    | HandedBack
)
ToProcess = Welcome | Ack | CallReply | Reply | Run | JobInfo | Cancel | TakeBack | StreamNews | Exit

AnyMessage = _Message

_encode = msgspec.msgpack.Encoder().encode
decode_to_node = msgspec.msgpack.Decoder(ToNode).decode
decode_to_process = msgspec.msgpack.Decoder(ToProcess).decode


def frame(message: _Message) -> bytes:
    body = _encode(message)
    return HEADER.pack(len(body)) + body


def split(buffer: bytearray) -> list[bytes]:
    """Cut whole frames off the front of `buffer` and return their bodies."""
    bodies = []
    at, size = 0, len(buffer)
    while size - at >= 4:
        end = at + 4 + HEADER.unpack_from(buffer, at)[0]
        if end > size:
            break
        bodies.append(bytes(buffer[at + 4 : end]))
        at = end
    if at:
        del buffer[:at]
    return bodies
