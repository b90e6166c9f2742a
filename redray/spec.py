"""What travels from caller to worker: the head that schedulers read, and the payload that only the executing worker
opens.

A packed spec is `u32 length of head (little endian) | head (msgpack array) | payload`. Lua and the node decode the head
alone, so a task costs them the same whatever its arguments weigh.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

TASK, ACTOR_CREATION, ACTOR_CALL = 0, 1, 2
STREAMING = -1  # num_returns of a generator task

_LENGTH = struct.Struct("<I")


class TaskHead(msgspec.Struct, array_like=True, gc=False):
    """Ids are hexadecimal text, because they become key names and are read by people in redis-cli."""

    task: str
    kind: int
    job: str
    name: str
    demand: str
    num_returns: int
    max_retries: int
    waits_for: list[str]  # object ids of top-level ref arguments: the task starts when all are ready
    keeps: list[str]  # further object ids inside the arguments: kept alive, not waited for
    depth: int  # 0 for a driver's task, parent's + 1 below
    priority: int
    parent: str  # task id of the submitting task, "" in a driver
    function: str
    actor: str = ""  # actor id, for ACTOR_CREATION and ACTOR_CALL
    sequence: int = 0  # ACTOR_CALL: position among this caller's calls to this actor, from 1
    options: dict[str, Any] = {}  # what only the node and the worker read: runtime_env, concurrency group, ...
    where: str = ""  # which nodes it may run on, see redray.where


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(TaskHead).decode


def pack(head: TaskHead, payload: bytes) -> bytes:
    encoded = _encode(head)
    return _LENGTH.pack(len(encoded)) + encoded + payload


def unpack_head(spec: bytes) -> TaskHead:
    return _decode_head(memoryview(spec)[4 : 4 + _LENGTH.unpack_from(spec)[0]])


def unpack_payload(spec: bytes) -> memoryview:
    return memoryview(spec)[4 + _LENGTH.unpack_from(spec)[0] :]
