"""The node table, leases, and the chores that anybody may do."""

from __future__ import annotations

import msgspec

from redray.gcs.command import Command
from redray.gcs.keys import Keys

_pack = msgspec.msgpack.Encoder().encode


def register(keys: Keys, id: str, now: int, pid: int, facts: dict[str, str]) -> Command:
    return Command("node_register", [id, now, pid, _pack(facts)], (keys.node(id), keys.process(id)))


def renew(keys: Keys, member: str, now: int, free: str) -> Command:
    """`member` is `node:` or `driver:` and an id."""
    return Command("lease_renew", [member, now, free], (keys.leases,))


def reap(keys: Keys, id: str, now: int, leaving: bool) -> Command:
    return Command("node_reap", [id, now, int(leaving)], (keys.node(id),))


def do_chore(keys: Keys, now: int) -> Command:
    return Command("chore_do", [now], (keys.chores,))
