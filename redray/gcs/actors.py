"""The actor table: created, started, died, killed."""

from __future__ import annotations

import msgspec

from redray.gcs.command import Command

_pack = msgspec.msgpack.Encoder().encode


class ActorRecord(msgspec.Struct, array_like=True, gc=False):
    """What an actor's creator says of it, besides its creation task."""

    name: str
    namespace: str
    class_name: str
    detached: int
    max_restarts: int
    max_task_retries: int


def create(spec: bytes, record: ActorRecord, methods: bytes) -> Command:
    """`methods` is opaque to Redis: what handles made by name need to know."""
    return Command("actor_create", [spec, _pack(record), methods])


def started(actor: str, attempt: int, process: str) -> Command:
    return Command("actor_started", [actor, attempt, process])


def died(actor: str, attempt: int, final: int, cause: str) -> Command:
    """`final` 1: its end was asked for, 2: its constructor raised; 0: restart it while that is allowed."""
    return Command("actor_died", [actor, attempt, final, cause])


def kill(actor: str, final: bool, cause: str) -> Command:
    return Command("actor_kill", [actor, int(final), cause])
