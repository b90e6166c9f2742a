"""Why a task, actor or object is not done: the chain of reasons, in sentences. Read-only, and not atomic: what is said
of a cluster at work may have changed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from redray.gcs.inspect import Inspector, Row
from redray.gcs.schema import ActorState, NodeState, ObjectState, TaskState
from redray.ids import HANDLE_INDEX
from redray.resources import from_text, from_units, missing
from redray.spec import ACTOR_CALL, ACTOR_CREATION, TaskHead
from redray.where import may_admit

DEEPEST = 50  # reasons behind reasons
MOST_FOLLOWED = 5  # arguments or children of one task; the rest are counted

_TASK = ("state", "name", "job", "node", "attempt", "retries", "actor", "kind")
_OBJECT = ("state", "size", "at", "refs")
_ACTOR = ("state", "class", "name", "node", "cause", "restarts")
_TASK_DIGITS, _OBJECT_DIGITS = 24, 32
_HANDLE = f"{HANDLE_INDEX:08x}"
_PLACED = (TaskState.CLAIMED, TaskState.RUNNING)
_ENDS = {
    TaskState.FINISHED: "has ended with a value",
    TaskState.FAILED: "has ended with an error: get() raises it",
    TaskState.CANCELLED: "was cancelled",
}


class Reason(NamedTuple):
    """One sentence; `depth` says of which earlier one it is the reason."""

    depth: int
    sentence: str


class Reasons:
    """Asks `inspector` for what one explanation needs, and follows it down to what nothing else waits for."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._seen: set[str] = set()
        self._nodes: list[Row] | None = None

    def of(self, id: str) -> Iterator[Reason]:
        """The reasons for the state of what has this hexadecimal id: 24 digits of a task or actor, 32 of an object.

        Raises ValueError for a text that is no such id.
        """
        id = id.lower()
        if len(id) not in (_TASK_DIGITS, _OBJECT_DIGITS) or set(id) - set("0123456789abcdef"):
            raise ValueError(
                f"{id!r} is no id: a task or actor has {_TASK_DIGITS} hexadecimal digits, an object {_OBJECT_DIGITS}."
            )
        return self._object(id, 0) if len(id) == _OBJECT_DIGITS else self._task_or_actor(id, 0)

    # ---- objects -----------------------------------------------------------------------------------------------------
    def _object(self, id: str, depth: int) -> Iterator[Reason]:
        task, index = id[:_TASK_DIGITS], id[_TASK_DIGITS:]
        if index == _HANDLE:
            yield from self._actor(task, depth)
            return
        if index == "0" * 8:
            yield from self._first_value(id, task, depth)
            return
        found = self._inspector.records("object", [id], _OBJECT)
        if not found:
            yield Reason(depth, f"Object {id} is not known: it was freed, or its maker has not said so yet.")
        elif found[0]["state"] == ObjectState.PENDING:
            yield Reason(depth, f"Object {id} is a value of task {task}, which has not ended.")
            yield from self._task_or_actor(task, depth + 1)
        else:
            yield Reason(depth, f"Object {id} is {found[0]['state']}{_place(found[0])}.")

    def _first_value(self, id: str, task: str, depth: int) -> Iterator[Reason]:
        found = self._inspector.records("task", [task], (*_OBJECT, "name"))
        if not found:
            yield Reason(depth, f"Object {id} is not known: it was freed, or its maker has not said so yet.")
        elif found[0]["state"] in _ENDS:
            yield Reason(
                depth, f"Object {id} is there: task {found[0]['name']} {_ENDS[found[0]['state']]}{_place(found[0])}."
            )
        else:
            yield Reason(depth, f"Object {id} is the value of task {task}, which has not ended.")
            yield from self._task_or_actor(task, depth + 1)

    # ---- tasks -------------------------------------------------------------------------------------------------------
    def _task_or_actor(self, id: str, depth: int) -> Iterator[Reason]:
        if id in self._seen:
            yield Reason(depth, f"{id} is explained above.")
            return
        self._seen.add(id)
        if depth > DEEPEST:
            yield Reason(depth, f"{id}, and so on: ask for that one.")
            return
        found = self._inspector.records("task", [id], _TASK)
        if found and found[0]["kind"] != str(ACTOR_CREATION):
            yield from self._task(found[0], depth)
        elif found or self._inspector.records("actor", [id], ("state",)):
            yield from self._actor(id, depth)
        else:
            yield Reason(depth, f"Nothing is known of {id}: it has ended and was freed, or was never submitted.")

    def _task(self, row: Row, depth: int) -> Iterator[Reason]:
        head = self._inspector.heads([row["id"]]).get(row["id"])
        what = f"Task {row['name']} ({row['id']})"
        if row["state"] in _ENDS:
            yield Reason(depth, f"{what} {_ENDS[row['state']]}.")
        elif row["state"] in _PLACED:
            verb = "runs" if row["state"] == TaskState.RUNNING else "was given to, and has not started there:"
            yield Reason(depth, f"{what} {verb} {self._node(row['node'])}{_attempts(row)}.")
            yield from self._children(row, depth + 1)
        elif row["state"] == TaskState.WAITING:
            yield Reason(depth, f"{what} waits for its arguments.")
            yield from self._arguments(head, depth + 1)
        elif row["kind"] == str(ACTOR_CALL):
            yield Reason(depth, f"{what} waits until its actor is alive.")
            yield from self._actor(row["actor"], depth + 1)
        else:
            yield Reason(depth, f"{what} is ready, and no node has taken it{_attempts(row)}.")
            if head is not None:
                yield from self._room(head, depth + 1)

    def _children(self, row: Row, depth: int) -> Iterator[Reason]:
        """A task that runs may wait for what it submitted: nobody but its worker knows, so say what has not ended."""
        children = self._inspector.children(row["id"], row["job"])
        if children:
            what = "1 task that has not" if len(children) == 1 else f"{len(children)} tasks that have not"
            yield Reason(depth, f"It submitted {what} ended, and may wait for that:")
        for child in children[:MOST_FOLLOWED]:
            yield from self._task_or_actor(child, depth + 1)

    def _arguments(self, head: TaskHead | None, depth: int) -> Iterator[Reason]:
        if head is None:
            return
        unready = [id for id in dict.fromkeys(head.waits_for) if not self._is_ready(id)]
        for id in unready[:MOST_FOLLOWED]:
            yield from self._object(id, depth)
        if len(unready) > MOST_FOLLOWED:
            yield Reason(depth, f"And {len(unready) - MOST_FOLLOWED} more arguments are not ready.")

    def _is_ready(self, id: str) -> bool:
        family, key = ("task", id[:_TASK_DIGITS]) if id.endswith("0" * 8) else ("object", id)
        found = self._inspector.records(family, [key], ("state",))
        return bool(found) and found[0]["state"] in (*_ENDS, ObjectState.READY)

    def _room(self, head: TaskHead, depth: int) -> Iterator[Reason]:
        alive = [row for row in self._all_nodes() if row["state"] == NodeState.ALIVE]
        if not alive:
            yield Reason(depth, "The cluster has no live node.")
            return
        alive = [row for row in alive if may_admit(head.where, row["labels"])]
        if head.where:
            yield Reason(depth, f"It may run where this holds: {head.where}.")
        if not alive:
            yield Reason(depth, "No live node has such labels.")
        elif lacking := missing(head.demand, [row["resources"] for row in alive]):
            yield Reason(depth, f"It needs {_quantities(head.demand)}: no live node has {lacking}.")
        elif lacking := missing(head.demand, [row["free"] for row in alive]):
            yield Reason(depth, f"It needs {_quantities(head.demand)}, and all that is in use: {_in_use(head, alive)}.")
        else:
            yield Reason(depth, f"It needs {_quantities(head.demand)}, which is free: a node takes it any moment now.")

    # ---- actors ------------------------------------------------------------------------------------------------------
    def _actor(self, id: str, depth: int) -> Iterator[Reason]:
        found = self._inspector.records("actor", [id], _ACTOR)
        if not found:
            yield Reason(depth, f"Nothing is known of actor {id}: it is dead, and nobody has a handle any more.")
            return
        row = found[0]
        what = f"Actor {row['class']} ({row['name'] + ', ' if row['name'] else ''}{id})"
        if row["state"] == ActorState.DEAD:
            yield Reason(depth, f"{what} is dead: {row['cause'].rstrip('.')}.")
        elif row["state"] == ActorState.ALIVE:
            yield Reason(depth, f"{what} is alive on {self._node(row['node'])}.")
        else:
            again = "starts again" if row["state"] == ActorState.RESTARTING else "has not started"
            yield Reason(depth, f"{what} {again}: its creation is a task.")
            creation = self._inspector.records("task", [id], _TASK)
            for task in creation:
                yield from self._task(task, depth + 1)

    # ---- nodes -------------------------------------------------------------------------------------------------------
    def _all_nodes(self) -> list[Row]:
        if self._nodes is None:
            self._nodes = self._inspector.nodes()
        return self._nodes

    def _node(self, id: str) -> str:
        row = next((row for row in self._all_nodes() if row["id"] == id), None)
        if row is None:
            return f"node {id}, which has left"
        dead = "" if row["state"] == NodeState.ALIVE else f", which is {row['state']}"
        return f"node {id} at {row['address']}{dead}"


def _in_use(head: TaskHead, alive: list[Row]) -> str:
    names = list(from_text(head.demand))
    shown = []
    for row in alive[:MOST_FOLLOWED]:
        free = ", ".join(f"{row['free'].get(name, 0):g} of {row['resources'].get(name, 0):g} {name}" for name in names)
        shown.append(f"node {row['id']} has {free} free")
    return "; ".join(shown)


def _quantities(demand: str) -> str:
    return " and ".join(f"{from_units(units):g} {name}" for name, units in from_text(demand).items()) or "no resources"


def _attempts(row: Row) -> str:
    return f" (attempt {row['attempt']})" if row["attempt"] not in ("", "1") else ""


def _place(row: Row) -> str:
    return f", on node {row['at'].replace(' ', ' and ')}" if row.get("at") else ""
