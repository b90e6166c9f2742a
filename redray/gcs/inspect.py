"""Read-only views of a cluster, for people: what the command line shows. Nothing here changes state or blocks Redis.

Large families are walked with SCAN in slices, and only the fields that are shown are read: a value may be 100 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from redray.gcs import history
from redray.gcs.client import ReplyError
from redray.gcs.history import TaskEvent
from redray.gcs.keys import DEFAULT_TAG, Keys
from redray.gcs.schema import FIELDS, LIMITS, ActorState, NodeState, TaskState
from redray.gcs.submissions import Submission, SubmissionTable
from redray.resources import from_text, from_units
from redray.spec import TaskHead, unpack_head

Row = dict[str, Any]

_NODE = ("state", "address", "pid", "resources", "free", "labels")
_JOB = ("state", "namespace", "driver", "detached", "started", "ended")
_ACTOR = ("state", "class", "name", "namespace", "job", "node", "worker", "restarts", "cause")
_TASK = ("state", "name", "job", "node", "actor", "attempt", "retries", "unready")
_OBJECT = ("state", "size", "at", "refs")
CHILDREN_EXAMINED = 10_000
_ENDED = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED)


class Reader(Protocol):
    """What is asked of a connection: one that is open anyway will do."""

    def call(self, *command: Any) -> Any: ...
    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]: ...


class Inspector:
    """The rows of each table, as dicts with readable keys. `limit` bounds how many are read."""

    def __init__(self, connection: Reader, tag: str = DEFAULT_TAG) -> None:
        self._connection = connection
        self.keys = Keys(tag)

    def nodes(self, limit: int = 10_000) -> list[Row]:
        rows = self.table("node", _NODE, limit)
        for row in rows:
            row["resources"] = json.loads(row["resources"] or "{}")
            row["labels"] = json.loads(row["labels"] or "{}")
            row["free"] = quantities(row["free"]) if row["state"] != NodeState.DEAD else {}
        return sorted(rows, key=lambda row: (row["state"], row["id"]))

    def jobs(self, limit: int = 10_000) -> list[Row]:
        return sorted(self.table("job", _JOB, limit), key=lambda row: (row["started"], row["id"]))

    def actors(self, limit: int = 10_000) -> list[Row]:
        return sorted(self.table("actor", _ACTOR, limit), key=lambda row: (row["state"], row["id"]))

    def tasks(self, limit: int = 10_000) -> list[Row]:
        """Tasks that have not ended, and those that have while somebody holds their value."""
        return sorted(self.table("task", _TASK, limit), key=lambda row: (row["state"], row["id"]))

    def objects(self, limit: int = 10_000) -> list[Row]:
        """Values that were put or returned. A task's first return value lives in the task's own hash."""
        rows = self.table("object", (*_OBJECT, "contains"), limit)
        for row in self.table("task", _OBJECT, limit - len(rows)):
            if row["state"] in _ENDED:
                rows.append({**row, "id": row["id"] + "00000000", "contains": ""})
        lengths = self.query([("HSTRLEN", self.keys.of_object(row["id"]), FIELDS["value"]) for row in rows])
        for row, length in zip(rows, lengths, strict=True):
            row["size"] = int(row["size"] or length)
        return sorted(rows, key=lambda row: str(row["id"]))

    def queued(self) -> dict[str, int]:
        """Ready tasks that no node has taken: demand, or demand|where -> how many, over all jobs."""
        nodes = [_text(node) for node in self._connection.call("SMEMBERS", self._key("nodes"))]
        lists = [self._key("queues"), *(self._key("node_queues", node) for node in nodes)]
        found = self.query([("ZRANGE", key, 0, LIMITS["SLICE"] - 1) for key in lists])
        names = [_text(name) for listed in found for name in listed]
        counts = self.query([("ZCARD", self._key("queue", name)) for name in names])
        waiting: dict[str, int] = {}
        for name, count in zip(names, counts, strict=True):
            kind = name.rpartition("|")[0]
            waiting[kind] = waiting.get(kind, 0) + count
        return waiting

    def living_actors(self, limit: int = 10_000) -> int:
        return sum(row["state"] != ActorState.DEAD for row in self.actors(limit))

    def table(self, family: str, fields: Sequence[str], limit: int, needed: str = "state") -> list[Row]:
        """The named fields of every record of a family of hashes, up to `limit`, as text: "" where there is none."""
        return self.records(family, list(islice(self._identifiers(family), max(0, limit))), fields, needed)

    def records(
        self, family: str, identifiers: Sequence[str], fields: Sequence[str], needed: str = "state"
    ) -> list[Row]:
        """As `table`, of the records that are named. One without the field `needed` does not exist (any more)."""
        names = [FIELDS[field] for field in fields]
        found = self.query([("HMGET", self._key(family, identifier), *names) for identifier in identifiers])
        rows = []
        for identifier, values in zip(identifiers, found, strict=True):
            row: Row = {"id": identifier, **{name: _text(value) for name, value in zip(fields, values, strict=True)}}
            if row[needed]:  # else it was deleted since the scan saw its key
                rows.append(row)
        return rows

    def raw(self, family: str, identifiers: Sequence[str], field: str) -> dict[str, bytes]:
        """A field that is no text, of each record that has it."""
        found = self.query([("HGET", self._key(family, identifier), FIELDS[field]) for identifier in identifiers])
        return {id: value for id, value in zip(identifiers, found, strict=True) if value is not None}

    def history(self) -> list[TaskEvent]:
        """Attempts that ended lately, oldest first."""
        return history.decoded(self.query(history.read(self.keys)))

    def submissions(self) -> list[Submission]:
        """Commands that were submitted as jobs, the oldest first."""
        return SubmissionTable(self._connection, self.keys).all()

    def heads(self, tasks: Sequence[str]) -> dict[str, TaskHead]:
        """What the cluster knows of these tasks beside their records; of unfinished ones alone, and of those that may
        run again. Arguments are not read."""
        lengths = self.query([("GETRANGE", self._key("spec", task), 0, 3) for task in tasks])
        asked = [
            ("GETRANGE", self._key("spec", task), 0, 3 + int.from_bytes(length, "little"))
            for task, length in zip(tasks, lengths, strict=True)
        ]
        return {task: unpack_head(packed) for task, packed in zip(tasks, self.query(asked), strict=True) if packed}

    def children(self, parent: str, job: str) -> list[str]:
        """Unfinished tasks of a job that this task submitted. Of a large job only some are looked at."""
        found: set[str] = set()
        cursor = b"0"
        while len(found) < CHILDREN_EXAMINED:
            cursor, tasks = self._connection.call(
                "SSCAN", self._key("job_tasks", job), cursor, "COUNT", LIMITS["SLICE"]
            )
            found.update(map(_text, tasks))
            if cursor == b"0":
                break
        heads = self.heads(sorted(found))
        return [task for task, head in heads.items() if head.parent == parent]

    def _identifiers(self, family: str) -> Iterator[str]:
        prefix = self._key(family, "")
        seen = set()  # SCAN may name a key twice
        cursor = b"0"
        while True:
            cursor, names = self._connection.call("SCAN", cursor, "MATCH", prefix + "*", "COUNT", LIMITS["SLICE"])
            for name in names:
                identifier = _text(name)[len(prefix) :]
                if identifier not in seen:
                    seen.add(identifier)
                    yield identifier
            if cursor == b"0":
                return

    def query(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The replies to plain commands, asked in slices. Raises ReplyError for one that is refused."""
        replies: list[Any] = []
        for first in range(0, len(commands), LIMITS["SLICE"]):
            replies += self._connection.pipeline(commands[first : first + LIMITS["SLICE"]])
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    def _key(self, name: str, identifier: str | None = None) -> str:
        found = getattr(self.keys, name)
        return str(found if identifier is None else found(identifier))


def quantities(text: str) -> dict[str, float]:
    """`CPU:4,GPU:0.5` -> `{"CPU": 4.0, "GPU": 0.5}`."""
    return {name: from_units(units) for name, units in from_text(text or "-").items()}


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace") if value is not None else ""
