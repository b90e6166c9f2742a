"""Reads what the workers of a node wait for, for `wedge`. Plain reads, done only while every worker of a node waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import TaskState
from redray.spec import ACTOR_CALL, unpack_head
from redray.worker.redis_link import RedisLink
from redray.worker.wedge import Waited, Waits

MOST_TASKS = 1_000  # what lies behind these is not looked at: the node waits on


class Lookup:
    """Calls `done` once, when all answers are there."""

    def __init__(self, link: RedisLink, keys: Keys, tasks: list[str], done: Callable[[Waits], None]) -> None:
        self._link = link
        self._keys = keys
        self._done = done
        self._waits = Waits({}, [], set())
        self._asked: set[str] = set()
        self._open = 0
        self._ask(self._take_nodes, "SMEMBERS", keys.nodes)
        for task in tasks:
            self._visit(task)

    def _ask(self, take: Callable[[Any], None], *command: str) -> None:
        self._open += 1

        def on_reply(reply: Any) -> None:
            take(reply)
            self._open -= 1
            if not self._open:
                self._done(self._waits)

        self._link.plain(on_reply, *command)

    def _take_nodes(self, ids: Any) -> None:
        for id in ids:
            self._visit_node(id.decode())

    def _visit_node(self, id: str) -> None:
        self._ask(lambda facts: self._take_node(id, facts), "HMGET", self._keys.node(id), "wedged", "resources")

    def _take_node(self, id: str, facts: list[bytes | None]) -> None:
        if facts[0] == b"1":
            self._waits.wedged.add(id)
        elif facts[1] is not None:
            self._waits.others.append(msgspec.json.decode(facts[1]))

    def _visit(self, task: str) -> None:
        if task not in self._asked and len(self._asked) < MOST_TASKS:
            self._asked.add(task)
            self._ask(
                lambda record: self._take_task(task, record), "HMGET", self._keys.task(task), "state", "node", "kind"
            )

    def _take_task(self, task: str, record: list[bytes | None]) -> None:
        if record[0] is None:
            return
        state, node, kind = record[0].decode(), (record[1] or b"").decode(), int(record[2] or 0)
        self._waits.tasks[task] = Waited(state, node, kind)
        if state in (TaskState.QUEUED, TaskState.WAITING):
            self._ask(lambda spec: self._take_spec(task, spec), "GET", self._keys.spec(task))

    def _take_spec(self, task: str, spec: bytes | None) -> None:
        if spec is None:  # it has ended meanwhile
            del self._waits.tasks[task]
            return
        head = unpack_head(spec)
        known = self._waits.tasks[task]
        behind = [head.actor] if head.kind == ACTOR_CALL else []
        if known.state == TaskState.WAITING:
            behind = [object[:24] for object in head.waits_for]
        self._waits.tasks[task] = known._replace(
            name=head.name, demand=head.demand, depth=head.depth, behind=tuple(behind)
        )
        for other in behind:
            self._visit(other)
