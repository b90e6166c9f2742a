"""A cluster in one thread and on a virtual clock: the real local schedulers, with everything around them simulated.

A seed decides the workload, how long each message takes, and who dies when. What is real here is `NodeState`; the
shell of a node, the workers and the drivers are short imitations of theirs, and `Cluster` stands for Redis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from redray.gcs.schema import Message, Reply
from redray.gcs.streams import Yield
from redray.worker import actions, events
from redray.worker.state import NodeState
from tests.unit.simulated_clock import Pipe, World
from tests.unit.simulated_processes import Driver, Worker

LEASE_MS = 7_000
RECONNECT_MS = 50
REVOKE_MS = 2
DRAIN_MS = 30_000


class Node:
    """The shell of a node: one link to Redis with its calls in order, an inbox, and its processes."""

    def __init__(self, world: World, resources: dict[str, float], most: int) -> None:
        self.world = world
        self.id = world.new_id()
        self.state = NodeState(resources, world.new_id, most)
        self.workers: dict[str, Worker] = {}
        self.drivers: dict[str, Driver] = {}
        self.is_dead = False
        self.is_over = False  # the cluster knows
        self._number = 0
        self._unanswered: deque[tuple[tuple[Any, ...], Callable[[Any], None] | None]] = deque()
        self._up = True
        self._is_stopped = False
        self._deferred: list[tuple[Callable[[Any], None], Any]] = []
        self._was_stopped = False
        self._turn_due = False
        self._wedged = False
        world.nodes.append(self)
        self._requests = Pipe(world, self._at_redis)
        self._replies = Pipe(world, self._answered)
        world.cluster.register(self.id)
        world.mail[self.id] = Pipe(world, lambda mail: self.when_alive(self._read_mail, mail))
        self._tick()
        self._soon()

    # ---- the loop ------------------------------------------------------------------------------------------------
    def when_alive(self, what: Callable[[Any], None], value: Any) -> None:
        if self._is_stopped:
            self._deferred.append((what, value))
        elif not self.is_dead:
            what(value)
            self._soon()

    def stop(self, duration_ms: int) -> None:
        """SIGSTOP, and SIGCONT later: its workers go on meanwhile, and its lease may run out."""
        if self._is_stopped or self.is_dead:
            return
        self._is_stopped = True
        self.world.later(duration_ms, self._continue)
        if duration_ms > LEASE_MS:
            self._was_stopped = True
            self.world.later(LEASE_MS, self._reaped)

    def _continue(self) -> None:
        self._is_stopped = False
        deferred, self._deferred = self._deferred, []
        for what, value in deferred:
            self.when_alive(what, value)
        self._soon()

    def handle(self, event: events.Event) -> Any:
        answer = self.state.handle(event, self.world.now)
        self.state.validate()
        return answer

    def _soon(self) -> None:
        """What comes in the same millisecond is one turn."""
        if not self._turn_due:
            self._turn_due = True
            self.world.later(0, self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self.is_dead or self._is_stopped:
            return
        self.state.settle(report=self._up and len(self._unanswered) < 4)
        self.state.validate()
        self._act()
        if self.state.has_more_to_settle() and self._up:
            self.world.later(10, self._soon)
        if self.state.draining and self.state.is_at_rest() and not self._unanswered:
            self.die(at_once=True)

    def _tick(self) -> None:
        if not self.is_dead:
            self.when_alive(self.handle, events.Tick())
            wait = 20 if self.state.has_sent_ahead() else 1_000 if self.state.is_at_rest() else 100
            self.world.later(wait, self._tick)

    def is_quiet(self) -> bool:
        if self.is_dead:
            return self.is_over
        pipes = [self._requests, self._replies, self.world.mail[self.id]]
        busy = (
            self._is_stopped
            or any(worker.is_busy() for worker in self.workers.values())
            or any(pipe.on_it for pipe in pipes)
        )
        return self.state.is_at_rest() and not self._unanswered and not busy

    # ---- Redis ---------------------------------------------------------------------------------------------------
    def call(self, on_reply: Callable[[Any], None] | None, verb: str, *args: Any) -> None:
        self._number += 1
        self._send((self.id, "direct", self._number, verb, *args), on_reply)

    def _send(self, request: tuple[Any, ...], on_reply: Callable[[Any], None] | None) -> None:
        self._unanswered.append((request, on_reply))
        if self._up:
            self._requests.send(request)

    def relay(self, process: str, number: int, verb: str, args: tuple[Any, ...], ack: Callable[[int], None]) -> None:
        if verb == "task_submit":
            # Without a fresh lease nothing is started: somebody may be doing it elsewhere by now.
            claims = "-" * len(args[1]) if self._was_stopped else self.handle(events.Submitted(process, args[1]))
            args = (claims, args[1])
            self._act()
        self._send((process, self.id, number, verb, *args), lambda reply: reply[0] == Reply.FENCED or ack(number))

    def _at_redis(self, request: tuple[Any, ...]) -> None:
        self._replies.send(self.world.cluster.call(*request))

    def _answered(self, reply: Any) -> None:
        self.when_alive(self._take_reply, reply)

    def _take_reply(self, reply: Any) -> None:
        _, on_reply = self._unanswered.popleft()
        if on_reply is not None:
            on_reply(reply)

    def cut(self) -> None:
        """The connection breaks: what is under way is lost, both ways; then everything unanswered is sent again."""
        if self.is_dead or not self._up or self._is_stopped or self._was_stopped:
            return
        self._up = False
        self._requests.cut()
        self._replies.cut()
        self.world.later(RECONNECT_MS, self._reconnect)

    def _reconnect(self) -> None:
        if not self.is_dead:
            self._up = True
            for request, _ in self._unanswered:
                self._requests.send(request)
            self._soon()

    # ---- its end -------------------------------------------------------------------------------------------------
    def die(self, at_once: bool = False) -> None:
        """Killed, with its workers. The cluster notices when the lease is over, or at once if it left by itself."""
        if self.is_dead:
            return
        self.is_dead = True
        for worker in list(self.workers.values()):
            worker.die("")
        self._requests.cut()
        self._replies.cut()
        self.world.later(0 if at_once else LEASE_MS, self._reaped)
        for driver in self.drivers.values():
            self.world.later(self.world.random.randint(1, 50), driver.go_direct)

    def _reaped(self) -> None:
        if self.is_over:
            return
        for task in self.world.cluster.tasks.values():
            if task.node == self.id and task.state in ("CLAIMED", "RUNNING"):
                self.world.crashes[task.head.task] += 1
        self.world.cluster.reap(self.id)
        self.is_over = True

    # ---- actions -------------------------------------------------------------------------------------------------
    def _act(self) -> None:
        for action in self.state.take_actions():
            getattr(self, "_" + type(action).__name__)(action)

    def _StartWorker(self, action: actions.StartWorker) -> None:
        self.workers[action.worker] = Worker(self.world, self, action.worker)

    def _Send(self, action: actions.Send) -> None:
        if action.worker in self.workers:
            self.workers[action.worker].down.send(action.message)

    def _Dispatch(self, action: actions.Dispatch) -> None:
        if action.worker in self.workers:
            self.workers[action.worker].down.send(action.run)

    def _Interrupt(self, action: actions.Interrupt) -> None:
        if action.worker in self.workers:
            self.workers[action.worker].interrupt(action.task, action.attempt)

    def _Revoke(self, action: actions.Revoke) -> None:
        worker = self.workers.get(action.worker)
        if worker is None:
            return
        worker.revoked = action.serial

        def look(_: None) -> None:
            self.handle(events.Revoked(worker.id, action.serial, worker.mark))

        self.world.later(REVOKE_MS, lambda: self.when_alive(look, None))

    def _TellWedged(self, action: actions.TellWedged) -> None:
        self._wedged = action.wedged

    def _LookUp(self, action: actions.LookUp) -> None:
        def answer(_: None) -> None:
            self.handle(events.WaitsFound(self.world.cluster.waits(action.tasks, self._nodes())))

        self.world.later(self.world.random.randint(1, 10), lambda: self.when_alive(answer, None))

    def _nodes(self) -> dict[str, tuple[bool, dict[str, float]]]:
        """All that live: whether they are wedged, and what they have in total."""
        alive = [node for node in self.world.nodes if not node.is_over]
        totals = [{name: units / 10_000 for name, units in node.state.ledger.total.items()} for node in alive]
        return {node.id: (node._wedged, total) for node, total in zip(alive, totals, strict=True)}

    def _CancelTasks(self, action: actions.CancelTasks) -> None:
        self.world.cancelled.update(action.tasks)
        self.call(None, "task_cancel", action.how, action.parent, action.tasks)

    def _Refuse(self, action: actions.Refuse) -> None:
        self.call(None, "task_refuse", action.task)

    def _Kill(self, action: actions.Kill) -> None:
        """The template does it, when it comes to it."""
        if action.worker in self.workers:
            worker = self.workers[action.worker]
            self.world.later(self.world.random.randint(0, 3), lambda: worker.die("killed"))

    def _Learn(self, action: actions.Learn) -> None:
        self.call(None, "object_wait", action.objects)

    def _RecordFinishes(self, action: actions.RecordFinishes) -> None:
        def on_reply(reply: Any) -> None:
            if action.limit:
                self._work_came(reply)

        self.call(on_reply, "task_finish", action.finishes, action.free, action.rooms, action.limit)

    def _RecordItems(self, action: actions.RecordItems) -> None:
        def on_reply(reply: Any) -> None:
            if reply[0] == Reply.FENCED:
                self.die()
            elif reply[0] == Reply.REPEAT:
                again = [Yield(items.task, items.attempt, items.first + 1, []) for items, _ in action.yields]
                self._RecordItems(actions.RecordItems([(items, []) for items in again]))
            else:
                answers = [
                    (items.task, *answer, 0, 0) for (items, _), answer in zip(action.yields, reply[1], strict=True)
                ]
                self.handle(events.ItemsPublished([answer[:4] for answer in answers]))

        self.call(on_reply, "task_yield", action.yields)

    def _FreeLarge(self, action: actions.FreeLarge) -> None:
        """Items of the simulation are small."""

    def _Claim(self, action: actions.Claim) -> None:
        self.call(self._work_came, "task_claim", action.free, action.rooms, action.limit)

    def _work_came(self, reply: Any) -> None:
        if reply[0] == Reply.FENCED:
            self.die()
        elif reply[0] == Reply.OK:
            self.handle(events.WorkReceived(reply[-2], reply[-1]))
        else:
            self.handle(events.WorkReceived(reply[1], ["-"]))

    def _RecordRunning(self, action: actions.RecordRunning) -> None:
        self.call(None, "task_running", action.tasks)

    def _RecordActorStarted(self, action: actions.RecordActorStarted) -> None:
        def on_reply(reply: Any) -> None:
            calls, callers = (reply[1], reply[2]) if reply[0] in (Reply.OK, Reply.MORE) else ([], {})
            self.handle(events.ActorStartAnswered(action.actor, reply[0], calls, callers))

        self.call(on_reply, "actor_started", action.actor, action.attempt)

    def _RecordActorDied(self, action: actions.RecordActorDied) -> None:
        self.call(None, "actor_died", action.actor, action.attempt, bool(action.final))

    def _read_mail(self, mail: tuple[str, str, bytes]) -> None:
        kind, id, data = mail
        if kind == Message.LOST:
            self.die()
            return
        self.handle(
            {
                Message.RING: lambda: events.Rung(),
                Message.VALUE: lambda: events.ObjectNews(id, data),
                Message.CALL: lambda: events.CallReceived(int(id), data),
                Message.CANCEL: lambda: events.CancelRequested(id, data.decode()),
                Message.TAKEN: lambda: events.ItemsTaken(id, int(data)),
                Message.KILL: lambda: events.KillRequested(id, data.decode()),
                Message.JOB_ENDED: lambda: events.JobEnded(id),
            }[kind]()
        )

    def drain(self) -> None:
        if not self.is_dead:
            self.state.drain()
            self.world.later(DRAIN_MS, lambda: self.die(at_once=True))  # what runs has had its time
            self._soon()
