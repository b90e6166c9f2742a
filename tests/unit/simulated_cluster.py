"""What the Lua scripts do, in memory and in short. The scripts themselves are tested against a real Redis."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redray import spec as specs
from redray.gcs.schema import ActorState, Message, Outcome, Reply, TaskState
from redray.resources import from_text
from redray.spec import ACTOR_CALL, ACTOR_CREATION
from redray.worker.actor_table import Item
from redray.worker.wedge import Waited, Waits

FINAL = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED)
SLICE = 3  # of an actor's parked calls: small, so that it matters
Post = Callable[[str, str, str, Any], None]


@dataclass
class Task:
    head: specs.TaskHead
    spec: bytes
    state: str
    node: str = ""
    attempt: int = 1
    retries: int = 0
    value: bytes = b""
    unready: int = 0
    items: list[bytes] = field(default_factory=list)  # published, of a stream
    closed: bool = False  # its reader wants no more
    returned: bool = False  # it was taken out of its caller's order once


@dataclass
class Actor:
    max_restarts: int
    state: str = ActorState.PENDING
    node: str = ""
    restarts: int = 0
    parked: list[tuple[int, str]] = field(default_factory=list)
    callers: dict[str, int] = field(default_factory=dict)
    kept: tuple[str, int, str, list[str]] = ("", 0, "", [])


@dataclass
class Channel:
    route: str
    last: int = 0
    kept: tuple[int, list[str]] = (0, [])  # the call that handed out work last, and the work


class Cluster:
    def __init__(self, post: Post) -> None:
        self.post = post
        self.tasks: dict[str, Task] = {}
        self.actors: dict[str, Actor] = {}
        self.channels: dict[str, Channel] = {}
        self.nodes: set[str] = set()
        self.idle: dict[str, dict[str, int]] = {}
        self.queues: dict[str, list[tuple[tuple[int, int, int], str]]] = {}
        self.served: dict[str, int] = {}
        self.dependents: dict[str, list[str]] = {}
        self.watchers: dict[str, set[str]] = {}
        self.ended_jobs: set[str] = set()
        self.sequence = 0

    # ---- channels ------------------------------------------------------------------------------------------------
    def register(self, node: str) -> None:
        self.nodes.add(node)
        self.channels[node] = Channel("direct")

    def open(self, process: str, route: str) -> int:
        """The number of the last call that arrived."""
        channel = self.channels.setdefault(process, Channel(route))
        channel.route = route
        return channel.last

    def call(self, process: str, route: str, number: int, verb: str, *args: Any) -> tuple[Any, ...]:
        channel = self.channels.get(process)
        if channel is None or channel.route != route:
            return (Reply.FENCED,)
        if number <= channel.last:
            return self._repeat(process, channel, number, verb, args)
        assert number == channel.last + 1, f"a gap in the calls of {process}: {channel.last}, then {number}"
        channel.last = number
        answer: tuple[Any, ...] = getattr(self, verb)(process, route, number, *args)
        return answer

    def _repeat(self, node: str, channel: Channel, number: int, verb: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if verb == "actor_started":
            kept = self.actors[args[0]].kept
            if kept[:2] == (node, number):
                return self._started_answer(args[0], kept[2], self._hand_again(node, kept[3]))
        work = channel.kept[1] if channel.kept[0] == number else []
        return (Reply.REPEAT, self._hand_again(node, work))

    # ---- tasks ---------------------------------------------------------------------------------------------------
    def task_submit(self, process: str, route: str, _number: int, claims: str, packed: list[bytes]) -> tuple[Any, ...]:
        heads = [specs.unpack_head(spec) for spec in packed]
        if heads[0].job in self.ended_jobs:
            return (Reply.JOB_ENDED,)
        rung: dict[str, int] = {}
        for head, spec, claim in zip(heads, packed, claims, strict=True):
            assert head.task not in self.tasks, f"{head.task} was submitted twice"
            task = self.tasks[head.task] = Task(head, spec, TaskState.CLAIMED, route, retries=head.max_retries)
            if head.kind == ACTOR_CALL:
                self.actors[head.actor].callers[process] = head.sequence
            if claim == "L":
                task.node = ""
                self._lose(task)
            elif claim == "-":
                task.node = ""
                if head.kind == ACTOR_CALL and self.actors[head.actor].state == ActorState.RESTARTING:
                    self._lose(task)
                elif head.kind == ACTOR_CALL:
                    self._return_call(task)
                elif self._enqueue(task):
                    rung[head.demand] = rung.get(head.demand, 0) + 1
        for demand, count in rung.items():
            self._ring_idle(demand, count, "")
        return (Reply.OK,)

    def _enqueue(self, task: Task, front: bool = False) -> bool:
        """False when it has to wait for arguments."""
        head = task.head
        task.node = ""
        missing = {id for id in head.waits_for if self.tasks[id[:24]].state not in FINAL}
        if missing:
            task.state, task.unready = TaskState.WAITING, len(missing)
            for id in missing:
                self.dependents.setdefault(id, []).append(head.task)
            return False
        task.state = TaskState.QUEUED
        self.sequence += 1
        name = f"{head.demand}|{head.job}"
        if name not in self.queues:
            self.queues[name] = []
            self.served[name] = min((self.served[other] for other in self.queues if other in self.served), default=0)
        insort(self.queues[name], ((-head.priority, -head.depth, 0 if front else self.sequence), head.task))
        return True

    def _unqueue(self, task: Task) -> None:
        """Take it out of where it waits."""
        if task.head.kind == ACTOR_CALL:
            actor = self.actors[task.head.actor]
            actor.parked = [entry for entry in actor.parked if entry[1] != task.head.task]
        for name, queue in list(self.queues.items()):
            queue[:] = [entry for entry in queue if entry[1] != task.head.task]
            if not queue:
                del self.queues[name]

    def _ring_idle(self, demand: str, count: int, but: str) -> None:
        for node, free in list(self.idle.items()):
            if count > 0 and node != but and times_fit(demand, free):
                del self.idle[node]
                self.post(node, Message.RING, "", b"")
                count -= 1

    def task_claim(
        self, node: str, _route: str, number: int, free: str, rooms: dict[str, int], limit: int
    ) -> tuple[Any, ...]:
        return (Reply.OK, self._hand_out(node, number, free, rooms, limit), self._leftover())

    def _leftover(self) -> list[str]:
        return sorted({name.partition("|")[0] for name in self.queues})

    def _hand_out(self, node: str, number: int, free_text: str, rooms: dict[str, int], limit: int) -> list[Item]:
        free, rooms, claimed = from_text(free_text.partition(" of ")[0]), dict(rooms), []
        names = sorted(self.queues, key=lambda name: (self.queues[name][0][0][0], self.served[name], name))
        most = max(1, math.ceil(limit / max(1, len(names))))
        for share in (most, limit):
            for name in names:
                demand = name.partition("|")[0]
                slots = times_fit(demand, free)
                count = min(slots + rooms.get(name, 0), limit - len(claimed), share)
                taken = [task for _, task in self.queues.get(name, [])[: max(0, count)]]
                for id in taken:
                    self._unqueue(self.tasks[id])
                    self.tasks[id].state, self.tasks[id].node = TaskState.CLAIMED, node
                claimed += taken
                self.served[name] += len(taken)
                for resource, units in from_text(demand).items():
                    free[resource] = free.get(resource, 0) - units * min(slots, len(taken))
                rooms[name] = rooms.get(name, 0) - max(0, len(taken) - slots)
        if len(claimed) < limit:
            self.idle[node] = free
        else:
            self.idle.pop(node, None)
        for name in list(self.queues):
            self._ring_idle(name.partition("|")[0], 1, node)
        self.channels[node].kept = (number, claimed)
        return [self._item(id) for id in claimed]

    def _item(self, id: str) -> Item:
        task = self.tasks[id]
        values = {object: self.tasks[object[:24]].value for object in task.head.waits_for}
        return task.attempt, task.spec, {id: value for id, value in values.items() if value}, []

    def _hand_again(self, node: str, ids: list[str]) -> list[Item]:
        mine = [id for id in ids if self.tasks[id].node == node and self.tasks[id].state in ("CLAIMED", "RUNNING")]
        return [self._item(id) for id in mine]

    def task_yield(self, node: str, _route: str, _number: int, yields: list[Any]) -> tuple[Any, ...]:
        return (Reply.OK, [self._yield(node, items, values) for items, values in yields])

    def _yield(self, node: str, items: Any, values: list[bytes]) -> list[int]:
        task = self.tasks[items.task]
        if task.node != node or task.attempt != items.attempt or task.state not in ("CLAIMED", "RUNNING"):
            return [-1]
        for index, value in enumerate(values, items.first):
            if index == len(task.items) + 1 and not task.closed:
                task.items.append(value)
                self.post(items.task[:16], Message.VALUE, f"{items.task}{index:08x}", value)
            else:
                assert index <= len(task.items) or task.closed, f"an item of {items.task} before {index} is missing"
        return [len(task.items), -1 if task.closed else 0, 0]

    def task_consume(self, _reader: str, _route: str, _number: int, id: str, taken: int) -> tuple[Any, ...]:
        task = self.tasks.get(id)
        if task is not None:
            task.closed = task.closed or taken < 0
            if task.state in ("CLAIMED", "RUNNING"):
                self.post(task.node, Message.TAKEN, id, b"%d" % taken)
        return (Reply.OK,)

    def task_running(self, node: str, _route: str, _number: int, ids: list[str]) -> tuple[Any, ...]:
        for id in ids:
            task = self.tasks.get(id)
            if task is not None and task.node == node and task.state == TaskState.CLAIMED:
                task.state = TaskState.RUNNING
        return (Reply.OK,)

    def task_finish(
        self, node: str, _route: str, number: int, finishes: list[Any], free: str, rooms: dict[str, int], limit: int
    ) -> tuple[Any, ...]:
        stale = [end.task for end, values in finishes if not self._finish(node, end, values)]
        work = self._hand_out(node, number, free, rooms, limit) if limit else []
        return (Reply.OK, stale, work, self._leftover() if limit else [])

    def _finish(self, node: str, end: Any, values: list[bytes]) -> bool:
        task = self.tasks.get(end.task)
        if task is None or task.node != node or task.attempt != end.attempt or task.state not in ("CLAIMED", "RUNNING"):
            return False
        outcome = end.outcome
        retried = outcome in (Outcome.RETRY, Outcome.CRASHED) and task.retries != 0
        again = retried or outcome == Outcome.HANDED_BACK
        if again and task.head.job not in self.ended_jobs:
            self._run_again(task, counts=retried)
        elif outcome == Outcome.VALUE:
            self._end(task, TaskState.FINISHED, values[0])
        elif again or outcome == Outcome.CANCELLED:
            self._end(task, TaskState.CANCELLED, b"S cancelled")
        else:
            self._end(task, TaskState.FAILED, values[0] if values else b"S crashed")
        return True

    def _run_again(self, task: Task, counts: bool) -> None:
        task.returned = True
        if counts:
            task.attempt += 1
            task.retries -= 1
        if task.head.kind == ACTOR_CALL:
            self._return_call(task)
        elif self._enqueue(task, front=True):
            self._ring_idle(task.head.demand, 1, "")

    def _lose(self, task: Task) -> None:
        """Its node is gone, and may have begun it."""
        if task.retries != 0:
            self._run_again(task, counts=True)
        else:
            self._end(task, TaskState.FAILED, b"S crashed")

    def _end(self, task: Task, state: str, value: bytes) -> None:
        assert task.state not in FINAL, f"{task.head.task} ended twice"
        task.state, task.value, task.node = state, value, ""
        if task.head.kind == ACTOR_CREATION:
            return
        id = task.head.task + "00000000"
        for process in {task.head.task[:16], *self.watchers.pop(id, ())}:
            self.post(process, Message.VALUE, id, value)
        for waiting in self.dependents.pop(id, ()):
            dependent = self.tasks[waiting]
            if dependent.state == TaskState.WAITING:
                dependent.unready -= 1
                if not dependent.unready and self._enqueue(dependent):
                    self._ring_idle(dependent.head.demand, 1, "")

    def task_cancel(
        self, _process: str, _route: str, _number: int, how: str, parent: str, ids: list[str]
    ) -> tuple[Any, ...]:
        known = [task for task in map(self.tasks.get, ids) if task is not None]
        if "force" in how and not parent:
            if any(task.head.kind == ACTOR_CALL and task.state not in FINAL for task in known):
                return (Reply.REFUSED,)
        for task in known:
            self._cancel(task, how.replace("force", "").strip() if task.head.kind == ACTOR_CALL else how)
        return (Reply.OK,)

    def _cancel(self, task: Task, how: str) -> None:
        if task.state in (TaskState.QUEUED, TaskState.WAITING):
            self._unqueue(task)
            self._end(task, TaskState.CANCELLED, b"S cancelled")
        elif task.state not in FINAL:
            self.post(task.node, Message.CANCEL, task.head.task, how.encode())

    def task_refuse(self, _node: str, _route: str, _number: int, id: str) -> tuple[Any, ...]:
        task = self.tasks[id]
        if task.state != TaskState.QUEUED or task.head.kind == ACTOR_CREATION:
            return (Reply.STALE,)
        self._unqueue(task)
        self._end(task, TaskState.FAILED, b"S refused")
        return (Reply.OK,)

    def waits(self, ids: list[str], nodes: dict[str, tuple[bool, dict[str, float]]]) -> Waits:
        """What a node reads of the tasks that its workers wait for."""
        found: dict[str, Waited] = {}
        left = list(ids)
        while left:
            task = self.tasks.get(id := left.pop())
            if task is None or id in found:
                continue
            head = task.head
            waiting = task.state in (TaskState.QUEUED, TaskState.WAITING)
            behind = [object[:24] for object in head.waits_for] if task.state == TaskState.WAITING else []
            if task.state == TaskState.QUEUED and head.kind == ACTOR_CALL:
                behind = [head.actor]
            left += behind
            known = (head.name, head.demand, head.depth, tuple(behind)) if waiting else ()
            found[id] = Waited(task.state, task.node, head.kind, *known)
        others = [total for wedged, total in nodes.values() if not wedged]
        return Waits(found, others, {node for node, (wedged, _) in nodes.items() if wedged})

    def object_wait(self, process: str, _route: str, _number: int, ids: list[str]) -> tuple[Any, ...]:
        for id in ids:
            task = self.tasks.get(id[:24])
            if task is None:
                self.post(process, Message.VALUE, id, b"S lost")
            elif task.state in FINAL:
                self.post(process, Message.VALUE, id, task.value)
            else:
                self.watchers.setdefault(id, set()).add(process)
        return (Reply.OK,)

    # ---- actors --------------------------------------------------------------------------------------------------
    def actor_create(
        self, _process: str, _route: str, _number: int, packed: bytes, max_restarts: int
    ) -> tuple[Any, ...]:
        head = specs.unpack_head(packed)
        if head.job in self.ended_jobs:
            return (Reply.JOB_ENDED,)
        task = self.tasks[head.task] = Task(head, packed, TaskState.QUEUED)
        self.actors[head.task] = Actor(max_restarts)
        if self._enqueue(task):
            self._ring_idle(head.demand, 1, "")
        return (Reply.OK,)

    def _return_call(self, task: Task) -> None:
        """A call goes to where its actor is, waits for it, or fails with it."""
        actor = self.actors[task.head.actor]
        if actor.state == ActorState.ALIVE:
            task.state, task.node = TaskState.CLAIMED, actor.node
            self.post(actor.node, Message.CALL, str(task.attempt), task.spec)
        elif actor.state == ActorState.DEAD:
            task.state = TaskState.CLAIMED
            self._end(task, TaskState.FAILED, b"S actor died")
        else:
            task.state, task.node = TaskState.QUEUED, ""
            insort(actor.parked, (task.head.sequence, task.head.task))

    def actor_started(self, node: str, _route: str, number: int, id: str, attempt: int) -> tuple[Any, ...]:
        actor, creation = self.actors[id], self.tasks[id]
        mine = creation.node == node and creation.attempt == attempt
        if not mine or actor.state not in (ActorState.PENDING, ActorState.RESTARTING):
            return (Reply.STALE,)
        taken, actor.parked = [task for _, task in actor.parked[:SLICE]], actor.parked[SLICE:]
        for task in taken:
            self.tasks[task].state, self.tasks[task].node = TaskState.CLAIMED, node
        outcome = Reply.MORE if actor.parked else Reply.OK
        if outcome == Reply.OK:
            actor.state, actor.node, creation.state = ActorState.ALIVE, node, TaskState.FINISHED
        actor.kept = (node, number, outcome, taken)
        return self._started_answer(id, outcome, [self._item(task) for task in taken])

    def _started_answer(self, id: str, outcome: str, calls: list[Item]) -> tuple[Any, ...]:
        return (outcome, calls, dict(self.actors[id].callers) if outcome == Reply.OK else {})

    def actor_died(self, node: str, _route: str, _number: int, id: str, attempt: int, final: bool) -> tuple[Any, ...]:
        creation = self.tasks[id]
        if creation.node != node or creation.attempt != attempt:
            return (Reply.STALE,)
        if final:
            self.bury(id)
        else:
            self._restart_or_bury(id)
        return (Reply.OK,)

    def actor_kill(self, _process: str, _route: str, _number: int, id: str, final: bool) -> tuple[Any, ...]:
        actor = self.actors[id]
        hosts = {actor.node, self.tasks[id].node} - {""}
        if final:
            self.bury(id)
        for host in hosts:
            self.post(host, Message.KILL, id, b"killed")
        return (Reply.OK,)

    def _restart_or_bury(self, id: str) -> None:
        actor, creation = self.actors[id], self.tasks[id]
        if actor.state == ActorState.DEAD:
            return
        if actor.restarts >= actor.max_restarts:
            self.bury(id)
            return
        actor.state, actor.node = ActorState.RESTARTING, ""
        actor.restarts += 1
        creation.attempt += 1
        if self._enqueue(creation, front=True):
            self._ring_idle(creation.head.demand, 1, "")

    def bury(self, id: str) -> None:
        actor, creation = self.actors[id], self.tasks[id]
        if actor.state == ActorState.DEAD:
            return
        actor.state, actor.node = ActorState.DEAD, ""
        self._unqueue(creation)
        creation.state, creation.node = TaskState.FAILED, ""
        parked, actor.parked = actor.parked, []
        for _, task in parked:
            self._return_call(self.tasks[task])

    # ---- ends ----------------------------------------------------------------------------------------------------
    def reap(self, node: str) -> None:
        """Its lease is over: what it had is done elsewhere."""
        self.nodes.discard(node)
        self.idle.pop(node, None)
        self.channels.pop(node, None)
        for channel in self.channels.values():
            if channel.route == node:
                channel.route = ""
        self.post(node, Message.LOST, "", b"")
        for id, actor in self.actors.items():
            if actor.node == node or (self.tasks[id].node == node and self.tasks[id].state in ("CLAIMED", "RUNNING")):
                self._restart_or_bury(id)
        for task in list(self.tasks.values()):
            if task.node == node and task.state in ("CLAIMED", "RUNNING"):
                if task.head.job in self.ended_jobs:
                    self._end(task, TaskState.CANCELLED, b"S cancelled")
                else:
                    self._lose(task)

    def end_job(self, job: str) -> None:
        self.ended_jobs.add(job)
        for id, actor in self.actors.items():
            if self.tasks[id].head.job == job:
                hosts = {actor.node, self.tasks[id].node} - {""}
                self.bury(id)
                for host in hosts:
                    self.post(host, Message.KILL, id, b"its job has ended")
        for task in list(self.tasks.values()):
            if task.head.job == job and task.state in (TaskState.QUEUED, TaskState.WAITING):
                self._unqueue(task)
                self._end(task, TaskState.CANCELLED, b"S cancelled")
        for node in self.nodes:
            self.post(node, Message.JOB_ENDED, job, b"")


def times_fit(demand: str, free: dict[str, int]) -> int:
    return max(0, min((free.get(name, 0) // units for name, units in from_text(demand).items()), default=500))
