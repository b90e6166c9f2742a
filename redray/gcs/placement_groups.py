"""The placement group table: created, granted by nodes, removed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redray.gcs.command import Command
from redray.gcs.keys import Keys

_pack = msgspec.msgpack.Encoder().encode


class GroupRecord(msgspec.Struct, array_like=True, gc=False):
    """What a group's creator says of it. `bundles` are demands, as `resources.to_text` writes them."""

    name: str
    namespace: str
    strategy: str
    detached: int
    bundles: list[str]


def create(id: str, ready: str, job: str, record: GroupRecord, handle: bytes) -> Command:
    """`ready` is an object that becomes ready with the group, with `handle` as its value."""
    return Command("placement_group_create", [id, ready, job, _pack(record), handle])


def ready(id: str, ready: str) -> Command:
    return Command("placement_group_ready", [id, ready])


def granted(free: str, answers: Sequence[tuple[str, int, bool]]) -> Command:
    """`answers` are (group, attempt, whether its bundles were set aside); `free` is what is free after them."""
    return Command("placement_group_granted", [free, *(f"{id} {attempt} {int(ok)}" for id, attempt, ok in answers)])


def remove(id: str) -> Command:
    return Command("placement_group_remove", [id])


def tell_free(keys: Keys, node: str, free: str, groups: str) -> Command:
    return Command("node_free", [node, free, groups], (keys.node(node),))
