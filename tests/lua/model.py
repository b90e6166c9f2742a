"""The control state as plain Python: what the Lua scripts must do, said by definition instead of by counters and lists.

An object lives while something in the state counts on it; a task is where its state says; what is left to do later is a
list of chores. Slow, simple, and the judge of the scripts: see test_model.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from redray.gcs.schema import Outcome, TaskState
from redray.spec import ACTOR_CALL, ACTOR_CREATION, STREAMING, TASK, TaskHead

FINAL = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED)
PLACED = (TaskState.CLAIMED, TaskState.RUNNING)
LARGE = "LARGE"  # a return value that stays in its node's shared memory


def handle(actor: str) -> str:
    return actor + "fffffffe"


def first(task: str) -> str:
    return task + "00000000"


def error(name: str) -> str:
    return f"S {name}"


@dataclass
class Task:
    head: TaskHead
    state: str
    node: str
    retries: int
    pins: list[str]  # what it keeps alive, as long as it may run
    attempt: int = 1
    unready: set[str] = field(default_factory=set)
    lineage: bool = False
    large: bool = False  # an item lay in shared memory
    items: int = 0  # published, of a task that streams
    closed: bool = False  # it is to bring no more
    anew: int = 0  # the attempt that brings all of them again

    @property
    def streams(self) -> bool:
        return self.head.num_returns == STREAMING

    def item(self, index: int) -> str:
        return f"{self.head.task}{index:08x}"

    @property
    def may_run(self) -> bool:
        return self.state not in FINAL or self.lineage or self.head.kind == ACTOR_CREATION

    @property
    def returns(self) -> list[str]:
        return [self.item(index) for index in range(1 + self.items if self.streams else self.head.num_returns)]


@dataclass
class Value:
    content: str | None = None
    at: set[str] = field(default_factory=set)
    contains: list[str] = field(default_factory=list)

    @property
    def present(self) -> bool:
        return self.content is not None or bool(self.at)


@dataclass
class Actor:
    job: str
    max_restarts: int
    name: str
    detached: bool
    creator: str = ""  # the worker whose crash it does not survive
    state: str = "PENDING"
    node: str = ""
    restarts: int = 0


@dataclass
class Process:
    kind: str
    route: str
    job: str


class Control:
    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.processes: dict[str, Process] = {}
        self.running_jobs: set[str] = set()
        self.holds: dict[str, set[str]] = {}
        self.tasks: dict[str, Task] = {}
        self.values: dict[str, Value] = {}
        self.actors: dict[str, Actor] = {}
        self.chores: list[tuple[str, str]] = []
        self.crashed: set[str] = set()

    # ---- references --------------------------------------------------------------------------------------------------
    def exists(self, id: str) -> bool:
        return id[:24] in self.actors if id.endswith("fffffffe") else id in self.values

    def counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for held in self.holds.values():
            found.update(held)
        for task in self.tasks.values():
            found.update(task.pins if task.may_run else ())
        for value in self.values.values():
            found.update(value.contains)
        found.update(handle(id) for id, actor in self.actors.items() if actor.detached and actor.state != "DEAD")
        return found

    def is_final(self, id: str) -> bool:
        task = self.tasks.get(id[:24])
        runs = task is not None and id == first(task.head.task) and task.state not in FINAL
        return self.values[id].present and not runs

    def collect(self) -> None:
        """Forget everything that nothing counts on."""
        while True:
            counts = self.counts()
            freed = [id for id in self.values if not counts[id] and self.is_final(id)]
            dead = [id for id, actor in self.actors.items() if actor.state == "DEAD" and not counts[handle(id)]]
            for id in freed:
                del self.values[id]
            for id in dead:
                del self.actors[id]
            done = [
                id
                for id, task in self.tasks.items()
                if task.state in FINAL
                and task.head.kind != ACTOR_CREATION
                and not any(value in self.values for value in task.returns)
            ]
            for id in done:
                del self.tasks[id]
            if not (freed or dead or done):
                return

    # ---- tasks -------------------------------------------------------------------------------------------------------
    def submit(self, process: str, head: TaskHead, claim: str = "-") -> None:
        pins = [*head.waits_for, *head.keeps, *([handle(head.actor)] if head.kind == ACTOR_CALL else [])]
        task = Task(head, TaskState.QUEUED, "", head.max_retries, [id for id in pins if self.exists(id)])
        self.tasks[head.task] = task
        for id in task.returns:
            self.values[id] = Value()
            self.holds[process].add(id)
        if claim in "RC":
            task.state, task.node = (
                (TaskState.RUNNING if claim == "R" else TaskState.CLAIMED),
                self.processes[process].route,
            )
        elif head.kind == ACTOR_CALL:
            self.call(task)
        else:
            self.queue(task)
            if task.state == TaskState.QUEUED and self.is_lost(task):
                self.chores.pop()
                self.end(task, TaskState.FAILED, "TaskUnschedulableError")

    def only_node(self, task: Task) -> str:
        """The only node it may run on, "" when there are more."""
        return task.head.where.partition("=")[2] if not task.head.where.endswith("*") else ""

    def is_lost(self, task: Task) -> bool:
        return bool(self.only_node(task)) and self.only_node(task) not in self.nodes

    def call(self, task: Task) -> None:
        actor = self.actors.get(task.head.actor)
        if actor is None or actor.state != "RESTARTING":
            self.to_actor(task)
        elif task.retries:
            self.run_again(task)
        else:
            self.end(task, TaskState.FAILED, "ActorUnavailableError")

    def must_wait_for(self, id: str) -> bool:
        value = self.values.get(id)
        return value is not None and (not value.present or (bool(value.at) and not value.at & self.nodes))

    def queue(self, task: Task) -> None:
        """Queue it, or let it wait."""
        task.node = ""
        task.unready = {id for id in task.head.waits_for if self.must_wait_for(id)}
        task.state = TaskState.WAITING if task.unready else TaskState.QUEUED
        if task.state == TaskState.QUEUED and self.is_lost(task):
            self.chores.append(("place", task.head.task))

    def do_place(self, id: str) -> None:
        if id in self.tasks and self.tasks[id].state == TaskState.QUEUED:
            self.end(self.tasks[id], TaskState.FAILED, "TaskUnschedulableError")

    def do_node(self, node: str) -> None:
        for task in self.tasks.values():
            if task.state == TaskState.QUEUED and self.only_node(task) == node:
                self.end(task, TaskState.FAILED, "TaskUnschedulableError")

    def to_actor(self, task: Task) -> None:
        actor = self.actors.get(task.head.actor)
        if actor is None or actor.state == "DEAD":
            self.end(task, TaskState.FAILED, "ActorDiedError")
        elif actor.state == "ALIVE":
            task.state, task.node = TaskState.CLAIMED, actor.node
        else:
            task.state, task.node = TaskState.QUEUED, ""

    def wake(self, id: str) -> None:
        for task in self.tasks.values():
            if id in task.unready:
                task.unready.discard(id)
                if not task.unready:
                    task.state = TaskState.QUEUED
                    if self.is_lost(task):
                        self.chores.append(("place", task.head.task))

    def publish(self, id: str, content: str | None, at: str = "", contains: Iterable[str] = ()) -> None:
        value = self.values[id]
        value.content, value.at = content, {at} if at else set()
        value.contains = [inner for inner in contains if self.exists(inner)]
        self.wake(id)

    def end(self, task: Task, state: str, error_name: str) -> None:
        intact = first(task.head.task) not in self.values or self.values[first(task.head.task)].present
        missing = self.missing(task)
        for id in task.returns[:1] if task.streams else task.returns:
            if id in self.values and not self.values[id].present:
                self.publish(id, error(error_name))
        task.state = TaskState.FINISHED if intact and task.head.num_returns else state
        task.unready, task.lineage = set(), False
        if missing:
            self.chores.append(("lost", task.head.task))

    def finish(
        self,
        node: str,
        task: Task,
        outcome: str,
        values: list[str],
        contains: list[str],
        borrower: str,
        kept: list[str],
    ) -> None:
        """The end of the attempt that the node has."""
        if borrower in self.processes:
            self.holds[borrower].update(id for id in kept if self.exists(id))
        if task.streams and outcome == Outcome.VALUE and self.must_run_anew(task):
            self.run_again(task)
            return
        is_free = outcome == Outcome.OUT_OF_MEMORY and task.head.kind == TASK
        costs = outcome in (Outcome.RETRY, Outcome.CRASHED, Outcome.OUT_OF_MEMORY) and not is_free
        may_repeat = outcome == Outcome.HANDED_BACK or (costs and task.retries) or (is_free and task.head.max_retries)
        if may_repeat and (task.head.kind == ACTOR_CREATION or task.head.job in self.running_jobs):
            task.attempt += is_free
            self.run_again(task, costs)
        elif may_repeat:
            self.end(task, TaskState.CANCELLED, "TaskCancelledError")
        elif values:
            self.complete(node, task, outcome, values, contains)
        else:
            state = TaskState.CANCELLED if outcome == Outcome.CANCELLED else TaskState.FAILED
            self.end(task, state, self.error_of(task, outcome))

    # ---- streams -----------------------------------------------------------------------------------------------------
    def missing(self, task: Task) -> list[str]:
        """Items that were lost, and are not there again."""
        items = task.returns[1:] if task.streams else []
        return [id for id in items if id in self.values and not self.values[id].present]

    def must_run_anew(self, task: Task) -> bool:
        runs = task.head.job in self.running_jobs and task.retries and task.head.kind == 0
        return bool(self.missing(task) and task.anew != task.attempt and runs)

    def yield_items(self, node: str, task: Task, start: int, values: list[str], contains: list[str]) -> None:
        known, maker = task.items, task.head.task[:16]
        wanted = not task.closed and maker in self.processes
        for index, content in enumerate(values, start):
            id, at = task.item(index), node if content == LARGE else ""
            if index > known and wanted:
                self.values[id] = Value()
                self.holds[maker].add(id)
                task.items = index
            if id in self.values and not self.values[id].present:
                self.publish(id, None if at else content, at, contains)
            task.large = task.large or bool(at)
        if not values and self.missing(task):
            task.anew = task.attempt

    def consume(self, task: Task, heard: int, gone: bool) -> None:
        if gone:
            task.closed = True
            if task.items > heard:
                self.chores.append(("unread", f"{task.head.task} {heard}"))

    def do_unread(self, place: str) -> None:
        id, heard = place.split()
        task = self.tasks.get(id)
        for index in range(int(heard) + 1, task.items + 1 if task is not None else 0):
            self.holds.get(id[:16], set()).discard(f"{id}{index:08x}")

    def do_lost(self, id: str) -> None:
        task = self.tasks.get(id)
        for item in self.missing(task) if task is not None else ():
            self.publish(item, error("ObjectLostError"))

    def end_stream(self, node: str, task: Task, values: list[str]) -> None:
        if self.missing(task):
            self.chores.append(("lost", task.head.task))
        if len(values) > 1:
            self.yield_items(node, task, task.items + 1, values[1:], [])
        task.closed = True

    def complete(self, node: str, task: Task, outcome: str, values: list[str], contains: list[str]) -> None:
        if task.streams:
            self.end_stream(node, task, values)
            del values[1:]
        for index, (id, content) in enumerate(zip(task.returns, values, strict=not task.streams)):
            if id in self.values and not self.values[id].present:
                inner = contains if index == 0 else []
                self.publish(id, None, node, inner) if content == LARGE else self.publish(id, content, "", inner)
        task.state = TaskState.FINISHED if outcome == Outcome.VALUE else TaskState.FAILED
        large = LARGE in values or task.large
        task.lineage = large and task.head.kind == 0 and outcome == Outcome.VALUE

    def error_of(self, task: Task, outcome: str) -> str:
        if task.head.kind == ACTOR_CALL and outcome == Outcome.CRASHED:
            actor = self.actors.get(task.head.actor)
            return "ActorUnavailableError" if actor and actor.state in ("ALIVE", "RESTARTING") else "ActorDiedError"
        names = {
            Outcome.CRASHED: "WorkerCrashedError",
            Outcome.CANCELLED: "TaskCancelledError",
            Outcome.OUT_OF_MEMORY: "OutOfMemoryError",
        }
        return names.get(outcome, "RaySystemError")

    def run_again(self, task: Task, costs: bool = True) -> None:
        if costs:
            task.attempt += 1
            task.retries -= task.retries > 0
        if task.head.kind == ACTOR_CALL:
            self.to_actor(task)
        else:
            self.queue(task)

    def cancel(self, task: Task) -> None:
        if task.state in (TaskState.QUEUED, TaskState.WAITING) and task.head.kind != ACTOR_CREATION:
            self.end(task, TaskState.CANCELLED, "TaskCancelledError")

    # ---- values in shared memory -------------------------------------------------------------------------------------
    def put(self, process: str, id: str, content: str | None, node: str, contains: list[str]) -> None:
        if node and node not in self.nodes:
            content, node = error("ObjectLostError"), ""
        self.values[id] = Value()
        self.publish(id, None if node else content, node, contains)
        self.holds[process].add(id)

    def lose(self, node: str, id: str) -> None:
        value = self.values.get(id)
        if value is None or not value.at:
            return
        value.at.discard(node)
        if value.at:
            return
        value.contains = []
        if not self.recompute(id):
            self.publish(id, error("ObjectLostError"))
            if id.endswith("00000000"):
                self.tasks[id[:24]].state = TaskState.FAILED

    def recompute(self, id: str) -> bool:
        task = self.tasks.get(id[:24])
        if task is None or id.endswith("ffffffff"):
            return False
        if task.state not in FINAL:
            return True
        if not (
            task.lineage and task.retries and task.state == TaskState.FINISHED and task.head.job in self.running_jobs
        ):
            return False
        task.lineage = False
        self.run_again(task)
        return True

    # ---- actors ------------------------------------------------------------------------------------------------------
    def create_actor(self, process: str, head: TaskHead, name: str, max_restarts: int, detached: bool) -> None:
        creator = process if self.processes[process].kind == "worker" and not detached else ""
        self.actors[head.task] = Actor(head.job, max_restarts, name, detached, creator)
        if detached:
            self.running_jobs.add(head.job)
        self.submit(process, head)
        self.holds[process].add(handle(head.task))

    def started(self, node: str, id: str) -> None:
        actor, creation = self.actors[id], self.tasks[id]
        actor.state, actor.node, creation.state = "ALIVE", node, TaskState.FINISHED
        for task in self.parked(id):
            task.state, task.node = TaskState.CLAIMED, node

    def parked(self, actor: str) -> list[Task]:
        return [
            task
            for task in self.tasks.values()
            if task.head.kind == ACTOR_CALL and task.head.actor == actor and task.state == TaskState.QUEUED
        ]

    def actor_died(self, id: str, final: bool) -> None:
        actor = self.actors[id]
        exhausted = 0 <= actor.max_restarts <= actor.restarts
        if final or exhausted or not self.counts()[handle(id)]:
            self.bury(id)
            return
        actor.state, actor.node, actor.restarts = "RESTARTING", "", actor.restarts + 1
        self.tasks[id].attempt += 1
        self.queue(self.tasks[id])

    def bury(self, id: str) -> None:
        actor = self.actors[id]
        if actor.state == "DEAD":
            return
        actor.state = "DEAD"
        del self.tasks[id]
        if self.parked(id):
            self.chores.append(("parked", id))
        if actor.detached:
            self.chores.append(("job", actor.job))

    # ---- processes and nodes -----------------------------------------------------------------------------------------
    def open(self, process: str, kind: str, route: str, job: str) -> None:
        self.processes[process] = Process(kind, route, job)
        self.holds.setdefault(process, set())
        if kind == "driver":
            self.running_jobs.add(job)

    def end_process(self, id: str, crashed: bool) -> None:
        process = self.processes.pop(id)
        self.crashed |= {id} if crashed else set()
        self.chores.append(("process", id))
        if process.kind == "driver":
            self.running_jobs.discard(process.job)
            self.chores.append(("job", process.job))

    def reap(self, node: str) -> None:
        self.nodes.discard(node)
        self.chores.append(("node", node))
        for id, actor in list(self.actors.items()):
            if actor.node == node and actor.state == "ALIVE":
                self.actor_died(id, final=False)
        for task in list(self.tasks.values()):
            if task.node == node and task.state in PLACED:
                self.reap_task(task)
        for id in [id for id, value in self.values.items() if node in value.at]:
            self.lose(node, id)
        for id, process in list(self.processes.items()):
            if process.route == node and process.kind == "driver":
                process.route = "direct"
            elif process.route == node:
                self.end_process(id, crashed=True)

    def reap_task(self, task: Task) -> None:
        if task.head.kind == ACTOR_CREATION:
            self.actor_died(task.head.task, final=False)
        elif task.head.job not in self.running_jobs:
            self.end(task, TaskState.CANCELLED, "TaskCancelledError")
        elif task.retries:
            self.run_again(task)
        else:
            error = self.error_of(task, Outcome.CRASHED)
            self.end(task, TaskState.FAILED, error.replace("WorkerCrashedError", "TaskLostWithNode"))

    # ---- chores ------------------------------------------------------------------------------------------------------
    def do_chores(self) -> None:
        self.bury_unneeded()
        while self.chores:
            kind, id = self.chores.pop(0)
            getattr(self, f"do_{kind}")(id)
            self.collect()
            self.bury_unneeded()

    def do_process(self, id: str) -> None:
        for actor in [actor for actor, record in self.actors.items() if record.creator == id and id in self.crashed]:
            self.bury(actor)
        del self.holds[id]

    def do_parked(self, id: str) -> None:
        for task in self.parked(id):
            self.end(task, TaskState.FAILED, "ActorDiedError")

    def do_job(self, id: str) -> None:
        self.running_jobs.discard(id)
        for actor in [actor for actor, record in self.actors.items() if record.job == id]:
            self.bury(actor)
        for task in [task for task in self.tasks.values() if task.head.job == id]:
            self.cancel(task)

    def bury_unneeded(self) -> None:
        """Actors that nobody has a handle of and no node has begun to start."""
        counts = self.counts()
        for id, actor in list(self.actors.items()):
            unclaimed = actor.state in ("PENDING", "RESTARTING") and not self.tasks[id].node
            if unclaimed and not counts[handle(id)]:
                self.bury(id)
        self.collect()
