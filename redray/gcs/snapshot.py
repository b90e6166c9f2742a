"""All that Redis holds of a cluster, read into dicts for the whole-state check (see audit.py). Values are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redray import spec as specs
from redray.gcs.client import Connection, ReplyError
from redray.gcs.keys import FAMILIES, SINGLETONS, Keys
from redray.gcs.schema import LIMITS

Record = dict[str, str]

# What is read of each hash: never a value, which may be 100 KiB.
_HASHES = {
    "task": "state job name node attempt retries refs unready unpinned contains at kind actor returns alive lineage "
    "items missing queue",
    "object": "state refs contains at group",
    "actor": "state refs node job name namespace detached restarts",
    "process": "kind route state job last",
    "node": "state",
    "job": "state",
    "fn": "users contains",
    "package": "users size parts have",
    "callers": "none",
    "group": "state bundles places awaited reserving job name namespace detached",
}
_SETS = (
    "watchers holds created node_tasks node_actors node_objects node_processes job_tasks job_actors job_functions"
    " job_packages group_queues group_waiters node_groups job_groups"
).split()
_READ: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "dependents": lambda key: ("LRANGE", key, 0, -1),
    "queue": lambda key: ("ZRANGE", key, 0, -1),
    "parked": lambda key: ("ZRANGE", key, 0, -1),
    "node_queues": lambda key: ("ZRANGE", key, 0, -1),
    **{family: lambda key: ("SMEMBERS", key) for family in _SETS},
}


class Snapshot:
    """Everything the checks look at, by family and id."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection, self._keys = connection, keys
        self.unknown: list[str] = []
        self.names: list[tuple[str, str]] = []  # (family or singleton, id or "")
        self._scan()
        self.hashes: dict[str, dict[str, Record]] = {family: self._hashes(family) for family in _HASHES}
        self.members: dict[str, dict[str, list[str]]] = {family: self._members(family) for family in _READ}
        self.heads = self._heads()
        read = self._ask(
            [
                ("ZRANGE", keys.queues, 0, -1),
                ("SMEMBERS", keys.nodes),
                ("SMEMBERS", keys.jobs),
                ("ZRANGE", keys.leases, 0, -1),
                ("HKEYS", keys.idle),
                ("HGETALL", keys.actor_names),
                ("LRANGE", keys.chores, 0, -1),
                ("HGETALL", keys.group_names),
                ("SMEMBERS", keys.groups),
                ("ZRANGE", keys.waiting_groups, 0, -1),
                ("LRANGE", keys.removed_groups, 0, -1),
                ("LRANGE", keys.dead_nodes, 0, -1),
            ]
        )
        self.queues, self.nodes, self.jobs, self.leases, self.idle = (set(_texts(part)) for part in read[:5])
        named, self.chore_list = _texts(read[5]), _texts(read[6])
        names = _texts(read[7])
        self.group_names = dict(zip(names[::2], names[1::2], strict=True))
        self.groups, self.waiting_groups, self.removed_groups, self.dead_nodes = (
            set(_texts(part)) for part in read[8:]
        )
        self.actor_names = dict(zip(named[::2], named[1::2], strict=True))
        self.chores = set(self.chore_list)

    def ids(self, family: str) -> list[str]:
        return [id for found, id in self.names if found == family]

    def hash(self, family: str, id: str) -> Record:
        return self.hashes[family].get(id, {})

    def of_object(self, id: str) -> Record:
        """The record that carries an object's state and count; {} when there is none."""
        if id.endswith("fffffffe"):
            return self.hash("actor", id[:24])
        record = self.hash("task", id[:24]) if id[24:] == "00000000" else self.hash("object", id)
        return record if "refs" in record else {}

    def has_time_to_live(self, family: str, id: str) -> bool:
        return int(self._ask([("TTL", getattr(self._keys, family)(id))])[0]) >= 0

    # ---- reading -----------------------------------------------------------------------------------------------------
    def _scan(self) -> None:
        families = {prefix.rstrip(":"): family for family, prefix in FAMILIES.items()}
        singletons = {text: name for name, text in SINGLETONS.items()}
        cursor, seen = b"0", set()
        while True:
            cursor, names = self._connection.call(
                "SCAN", cursor, "MATCH", self._keys.prefix + "*", "COUNT", LIMITS["SLICE"]
            )
            seen.update(names)
            if cursor == b"0":
                break
        for name in sorted(seen):
            text = name.decode()[len(self._keys.prefix) :]
            kind, colon, id = text.partition(":")
            if colon and kind in families:
                self.names.append((families[kind], id))
            elif text in singletons:
                self.names.append((singletons[text], ""))
            else:
                self.unknown.append(text)

    def _hashes(self, family: str) -> dict[str, Record]:
        ids, fields = self.ids(family), _HASHES[family].split()
        found = self._ask([("HMGET", getattr(self._keys, family)(id), *fields) for id in ids])
        return {
            id: {name: value.decode() for name, value in zip(fields, values, strict=True) if value is not None}
            for id, values in zip(ids, found, strict=True)
        }

    def _members(self, family: str) -> dict[str, list[str]]:
        ids = self.ids(family)
        found = self._ask([_READ[family](getattr(self._keys, family)(id)) for id in ids])
        return {id: _texts(members) for id, members in zip(ids, found, strict=True)}

    def _heads(self) -> dict[str, specs.TaskHead]:
        ids = self.ids("spec")
        lengths = self._ask([("GETRANGE", self._keys.spec(id), 0, 3) for id in ids])
        asked = [
            ("GETRANGE", self._keys.spec(id), 0, 3 + int.from_bytes(length, "little"))
            for id, length in zip(ids, lengths, strict=True)
        ]
        found = zip(ids, self._ask(asked), strict=True)
        return {id: specs.unpack_head(packed) for id, packed in found if packed}

    def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        for first in range(0, len(commands), LIMITS["SLICE"]):
            replies += self._connection.pipeline(commands[first : first + LIMITS["SLICE"]])
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]


def words(record: Record, field: str) -> list[str]:
    return record.get(field, "").split()
