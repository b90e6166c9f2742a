"""Simulated processes: workers that run programs, and drivers that submit them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from redray import spec as specs
from redray.gcs.schema import Message, Outcome
from redray.messages import Cancel, Done, Exit, Returned, Run, StreamNews, TakeBack, Yielded
from redray.spec import ACTOR_CALL, ACTOR_CREATION, STREAMING, TASK, TaskHead
from redray.worker import events
from tests.unit.simulated_clock import Pipe, World

if TYPE_CHECKING:
    from tests.unit.simulation import Node


class Channel:
    """A process' numbered calls, through its node or straight to Redis."""

    def __init__(self, world: World, node: Node | None) -> None:
        self.world, self.node = world, node
        self.id = world.new_id()
        self._number = 0
        self._unacknowledged: deque[tuple[int, str, tuple[Any, ...]]] = deque()
        world.cluster.open(self.id, node.id if node is not None else "direct")

    def call(self, verb: str, *args: Any) -> None:
        self._number += 1
        self._unacknowledged.append((self._number, verb, args))
        self._pass_on(*self._unacknowledged[-1])

    def _pass_on(self, number: int, verb: str, args: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def acknowledged(self, number: int) -> None:
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            self._unacknowledged.popleft()


class Worker(Channel):
    """A worker process: runs what it is sent, one after the other (or several calls at once), as the programs say."""

    def __init__(self, world: World, node: Node, id: str) -> None:
        self.world, self.node, self.id = world, node, id
        self._number = 0
        self._unacknowledged = deque()
        self.is_dead = False
        self.down = Pipe(world, self._hear, 2)
        self.up = Pipe(world, lambda event: node.when_alive(self._say, event), 2)
        self._queue: deque[Any] = deque()
        self._running: dict[str, Iterator[float]] = {}
        self.mark = self.revoked = 0  # serials, in shared memory
        self._cancel: tuple[str, int] | None = None
        self._runs: dict[str, int] = {}  # the task that started last -> its attempt
        self._held: list[Any] = []  # said, and still in this process
        self._actor = ""
        self._at_once = 1
        self._values: dict[str, bytes] = {}
        self._waits: dict[str, tuple[set[str], Any]] = {}
        self._children = 0
        self._opening = ""  # the stream that asks what an earlier attempt has published
        self._published = 0
        world.later(world.random.randint(1, 30), self._born)

    def _born(self) -> None:
        if self.is_dead:
            return
        if self.world.random.random() < 0.02:
            self.die("died young")
            return
        self.world.cluster.open(self.id, self.node.id)
        self.world.mail[self.id] = Pipe(self.world, self._read_mail, 3)
        self._tell(events.WorkerReady(self.id))

    def is_busy(self) -> bool:
        return bool(self._queue or self._running or self._held or self.up.on_it or self.down.on_it)

    def _say(self, what: Any) -> None:
        if isinstance(what, tuple) and what[0] == "call":
            self.node.relay(self.id, *what[1:], self.acknowledged)
        else:
            if isinstance(what, events.WorkerGone):
                self.node.workers.pop(self.id, None)
            self.node.handle(what)

    def _pass_on(self, number: int, verb: str, args: tuple[Any, ...]) -> None:
        self._tell(("call", number, verb, args))

    def _hold(self, event: Any) -> None:
        """Results are held back for a moment, to be sent together."""
        self._held.append(event)
        if self.world.random.random() < 0.5:
            self._flush()
        else:
            self.world.later(1, self._flush)

    def _flush(self) -> None:
        if not self.is_dead:
            for event in self._held:
                self.up.send(event)
            self._held.clear()

    def _tell(self, event: Any) -> None:
        self._flush()
        self.up.send(event)

    def die(self, how: str) -> None:
        if self.is_dead:
            return
        if how == "left":
            self._flush()
        self.is_dead = True
        if not self.node.is_dead:  # else whoever reaps the node counts
            lost = [event.done.task for event in self._held if isinstance(event, events.TaskDone)]
            self.world.crashes.update([*self._running, *lost])
        self._held.clear()
        if self._actor:
            self.world.died_actors.add(self._actor)
        self.down.cut()
        self._queue.clear()
        self._running.clear()
        self.world.mail.pop(self.id, None)
        self.up.send(events.WorkerGone(self.id, self.mark, how))

    # ---- what it hears -------------------------------------------------------------------------------------------
    def _hear(self, message: Any) -> None:
        if isinstance(message, Cancel):
            return  # a call that does not look whether it is cancelled
        if isinstance(message, StreamNews):
            if message.task == self._opening:
                self._opening, self._published = "", message.published
                if (steps := self._running.get(message.task)) is not None:
                    self._step(message.task, steps)
            return
        if isinstance(message, TakeBack):
            # Heard while it waits for something inside a task; a busy worker would hear it later.
            if self._waits:
                back = self._take_unstarted(lambda run: run.serial <= message.serial)
                self._tell(events.HandedBackTasks(self.id, back))
            return
        self._queue.append(message)
        self._next()

    def interrupt(self, task: str, attempt: int) -> None:
        self._cancel = (task, attempt)
        if self._runs.get(task) == attempt and task in self._running:
            self._running.pop(task)
            self._waits.pop(task, None)
            self._done(task, attempt, Outcome.CANCELLED, b"S cancelled")

    def _read_mail(self, mail: tuple[str, str, bytes]) -> None:
        kind, id, data = mail
        if kind != Message.VALUE or self.is_dead:
            return
        self._values[id] = data
        for task, (missing, program) in list(self._waits.items()):
            missing.discard(id)
            if not missing:
                del self._waits[task]
                self._tell(events.WorkerUnblocked(self.id))
                self._step(task, program)

    # ---- what it runs --------------------------------------------------------------------------------------------
    def _next(self) -> None:
        while self._queue and len(self._running) < self._at_once and not self.is_dead:
            message = self._queue.popleft()
            if isinstance(message, Exit):
                self.die("left")
            else:
                self._start(message)

    def _start(self, run: Any) -> None:
        head = specs.unpack_head(run.spec)
        program = json.loads(bytes(specs.unpack_payload(run.spec)))
        self.mark = run.serial
        if head.kind == TASK and run.serial <= self.revoked:
            self._hold(events.HandedBackTasks(self.id, [run.serial]))
            return
        self._runs = {head.task: run.attempt}
        self.world.starts[head.task] += 1
        if head.kind == ACTOR_CREATION:
            self._actor, self._at_once = head.task, program.get("at_once", 1)
        elif head.kind == ACTOR_CALL:
            self.world.heard.append((self.id, head.actor, head.task[:16], head.sequence))
        if self._cancel == (head.task, run.attempt) and head.kind == TASK:
            self._done(head.task, run.attempt, Outcome.CANCELLED, b"S cancelled")
            return
        steps = self._program(head, run, program)
        self._running[head.task] = steps
        self._step(head.task, steps)

    def _step(self, task: str, steps: Iterator[float]) -> None:
        if self.is_dead or self._running.get(task) is not steps:
            return
        delay = next(steps, None)
        if delay is None:
            self._running.pop(task, None)
            self._next()
        elif delay >= 0:
            self.world.later(delay, lambda: self._step(task, steps))

    def _program(self, head: TaskHead, run: Any, program: dict[str, Any]) -> Iterator[float]:
        """Yields how long to do nothing; -1: until what it waits for has come."""
        yield program["ms"]
        if program.get("items"):
            yield from self._items(head.task, run.attempt, program)
        if self.is_dead:
            return
        if run.attempt in program.get("dies_in", ()):
            self.die("killed itself")
            return
        total, failed = program["value"], program.get("raises", False)
        for id in head.waits_for:
            value = run.values.get(id) or self.world.cluster.tasks[id[:24]].value
            assert value, f"{head.task} was started before its argument {id} was ready"
            failed = failed or not value.startswith(b"V")
            total += 0 if failed else int(value[1:])
        children = self._submit_children(head, program)
        if children:
            missing = set(children) - set(self._values)
            if missing:
                self._block(head.task, missing)
                yield -1
            for id in children:
                failed = failed or not self._values[id].startswith(b"V")
                total += 0 if failed else int(self._values[id][1:])
            yield program["ms"]
        retry = failed and program.get("raises") and run.attempt <= program.get("retries", 0)
        outcome = Outcome.RETRY if retry else Outcome.ERROR if failed else Outcome.VALUE
        self._done(head.task, run.attempt, outcome, b"E" if failed else b"V%d" % total, abs(head.num_returns))
        if program.get("leaves"):
            self._leave()

    def _items(self, task: str, attempt: int, program: dict[str, Any]) -> Iterator[float]:
        """Each item is said when it is there. A later attempt asks what was published, and passes it over."""
        self._published = 0
        if attempt > 1:
            self._opening = task
            self._tell(events.ItemsYielded(self.id, Yielded(task, attempt, 1, [])))
            yield -1
        for index in range(1, program["items"] + 1):
            if attempt in program.get("dies_in", ()) and index > program["items"] // 2:
                return
            if index > self._published:
                item = Returned(b"I%d" % index, 2, [])
                self._hold(events.ItemsYielded(self.id, Yielded(task, attempt, index, [item])))
            yield self.world.random.choice([0, 0, 1, 5])

    def _block(self, task: str, missing: set[str]) -> None:
        self._waits[task] = (missing, self._running[task])
        self._tell(events.WorkerBlocked(self.id, self._take_unstarted(lambda run: True), sorted(missing)))

    def _take_unstarted(self, wanted: Callable[[Run], bool]) -> list[int]:
        taken, kept = [], deque[Any]()
        for run in self._queue:
            if not isinstance(run, Exit) and specs.unpack_head(run.spec).kind == TASK and wanted(run):
                taken.append(run.serial)
            else:
                kept.append(run)
        self._queue = kept
        return taken

    def _submit_children(self, head: TaskHead, program: dict[str, Any]) -> list[str]:
        packed, ids = [], []
        for child in program.get("children", ()):
            self._children += 1
            id = f"{self.id}{self._children:08x}"
            packed.append(pack_task(id, head.job, child, depth=head.depth + 1, parent=head.task))
            ids.append(id + "00000000")
        if packed:
            self.call("task_submit", "", packed)
        return ids

    def _done(self, task: str, attempt: int, outcome: str, value: bytes, returns: int = 1) -> None:
        self._running.pop(task, None)
        run_us = self.world.random.choice([50, 400, 2_000, 20_000])
        done = Done(task, attempt, outcome, [Returned(value, 9, [])] * returns, run_us)
        self._hold(events.TaskDone(self.id, done))
        self.world.later(0, self._next)

    def _leave(self) -> None:
        """It ran its function often enough: what waits goes back."""
        self._tell(events.HandedBackTasks(self.id, self._take_unstarted(lambda run: True)))
        self.die("left")


class Driver(Channel):
    """A user's program: it hears the results of what it submitted."""

    def __init__(self, world: World, node: Node | None, job: str) -> None:
        super().__init__(world, node)
        self.job = job
        self.results: dict[str, bytes] = {}
        self._heard = 0  # calls up to this number may have reached a node
        self.to_node = Pipe(world, self._at_node, 3)
        self.to_redis = Pipe(world, self._at_redis, 6)
        world.mail[self.id] = Pipe(world, self._read_mail)
        if node is not None:
            node.drivers[self.id] = self

    def _pass_on(self, number: int, verb: str, args: tuple[Any, ...]) -> None:
        (self.to_redis if self.node is None else self.to_node).send((number, verb, args))

    def _at_node(self, call: tuple[int, str, tuple[Any, ...]]) -> None:
        if self.node is not None:
            node = self.node
            node.when_alive(lambda _: node.relay(self.id, *call, self.acknowledged), None)

    def _at_redis(self, call: tuple[int, str, tuple[Any, ...]]) -> None:
        number, verb, args = call
        if verb == "task_submit":
            letter = "L" if number <= self._heard else "-"
            args = (letter * len(args[1]), args[1])
            if letter == "L" and number == self.world.cluster.channels[self.id].last + 1:
                self.world.crashes.update(specs.unpack_head(spec).task for spec in args[1])
        self.world.cluster.call(self.id, "direct", number, verb, *args)
        self.acknowledged(number)

    def go_direct(self) -> None:
        """Its node is gone: it takes to Redis what Redis may not have."""
        self.node = None
        self._heard = self._number
        self.to_node.cut()
        last = self.world.cluster.open(self.id, "direct")
        for number, verb, args in list(self._unacknowledged):
            if number > last:
                self.to_redis.send((number, verb, args))

    def _read_mail(self, mail: tuple[str, str, bytes]) -> None:
        kind, id, data = mail
        if kind == Message.VALUE:
            assert id not in self.results, f"{id} came twice"
            assert id[24:] == "00000000" or id[:24] + "00000000" not in self.results, f"{id} came after the end"
            self.results[id] = data


def pack(head: TaskHead, program: dict[str, Any]) -> bytes:
    return specs.pack(head, json.dumps(program).encode())


def pack_task(id: str, job: str, program: dict[str, Any], depth: int = 0, parent: str = "") -> bytes:
    said = program.get
    demand, retries, needs, function = (
        said("demand", "CPU:1"),
        said("retries", 0),
        said("needs", []),
        said("function", "f"),
    )
    returns = STREAMING if said("items") else 1
    head = TaskHead(
        id, TASK, job, "f", demand, returns, retries, needs, [], depth, said("priority", 0), parent, function
    )
    return pack(head, program)
