"""The part of the local scheduler that hosts actors. Pure, like the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redray import spec as specs
from redray.gcs.schema import Outcome, Reply
from redray.messages import Done
from redray.worker import actions, events
from redray.worker.hosted_actors import HostedActor
from redray.worker.policy import RunTimes
from redray.worker.workers import Attempt, Worker, split_started

if TYPE_CHECKING:
    from redray.worker.state import NodeState

Item = tuple[int, bytes, dict[str, bytes], list[str]]


class ActorTable:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self.run_times = RunTimes()
        self.hosted: dict[str, HostedActor] = {}
        self._missing: dict[str, set[str]] = {}  # call -> arguments that are not known to be ready
        self._to_learn: set[str] = set()
        self._awaited: dict[str, list[Attempt]] = {}  # object -> calls that wait for it

    # ---- life --------------------------------------------------------------------------------------------------------
    def begin(self, creation: Attempt, worker: Worker) -> None:
        worker.actor = creation.task
        self.hosted[creation.task] = HostedActor(creation, worker.id)
        self._node.send(worker, creation)

    def created(self, creation: Attempt, worker: Worker, done: Done) -> None:
        """The constructor returned, or raised."""
        actor = self.hosted[creation.task]
        self._node.book.forget(creation)
        if done.outcome != Outcome.VALUE:
            actor.final = 3 if done.outcome == Outcome.SETUP_FAILED else 2
            actor.cause = done.detail
            self._node.out.append(actions.RecordActorDied(actor.id, actor.attempt, actor.final, done.detail))
            self._forget(actor)
            self._node.out.append(actions.Kill(worker.id))
            return
        self._node.ledger.exchange(worker, str(creation.head.options.get("demand_held", "-")))
        self._node.ask_for_work()
        self._node.out.append(actions.RecordActorStarted(actor.id, actor.attempt, worker.id))

    def start_answered(self, event: events.ActorStartAnswered) -> None:
        actor = self.hosted.get(event.actor)
        if actor is None:
            # Its process died before this answer came: the calls in it were given to this node, and go back.
            for number, packed, _, _ in event.calls:
                self._return(number, packed)
            return
        if event.outcome not in (Reply.OK, Reply.MORE):
            self._node.out.append(actions.Kill(actor.worker))
            return
        for name, last in event.callers.items():
            caller = actor.caller(name)
            caller.last = max(caller.last, last)  # the inbox may have been faster with calls made after this answer
        for item in event.calls:
            self._line_up(actor, item)
        if event.outcome == Reply.MORE:
            self._node.out.append(actions.RecordActorStarted(actor.id, actor.attempt, actor.worker))
            return
        actor.come_alive()
        self._pump(actor)
        self._retire_if_done(actor)

    def worker_gone(self, worker: Worker, started: int, detail: str, shortage: str) -> None:
        """`shortage`: why it was killed for want of memory, if it was."""
        actor = self.hosted.get(worker.actor)
        if actor is None:
            return
        if actor.id in worker.sent and started < actor.creation.serial and not actor.cause:
            # Its constructor never began: another worker may take it, and no restart is used up.
            creation = worker.sent.pop(actor.id)
            self._forget(actor)
            self._node.return_to_backlog(creation)
            return
        outcome = Outcome.OUT_OF_MEMORY if shortage else Outcome.CRASHED
        how = f"It was killed because {shortage}." if shortage else detail
        cause = actor.cause or f"The actor is dead because its worker process has died. {how}"
        self._node.book.forget(actor.creation)
        worker.sent.pop(actor.id, None)
        self._node.out.append(actions.RecordActorDied(actor.id, actor.attempt, actor.final, cause))
        began, unstarted = split_started(worker, started) if actor.serial else (list(worker.sent.values()), [])
        for attempt in began:
            self._node.book.finish_without_value(attempt, outcome, cause)
        if actor.alive and not actor.final:  # else it is dead for all callers, and Redis tells them why
            unstarted += filter(self._is_wanted, actor.sendable(self._is_ready))
        for attempt in unstarted:
            # Made is made, for a call that may not be repeated: as with Ray, its caller is told, rather than a new
            # incarnation. Whether it was still in line here, or already with the process, is not for a caller to see.
            end = Outcome.HANDED_BACK if attempt.head.max_retries else Outcome.CRASHED
            self._node.book.finish_without_value(attempt, end, cause)
        self._forget(actor, cause)

    def _forget(self, actor: HostedActor, cause: str = "") -> None:
        """Hand back what was not sent: Redis orders it by its callers' numbers."""
        del self.hosted[actor.id]
        for attempt in filter(self._is_wanted, actor.drain()):
            self._missing.pop(attempt.task, None)
            self._node.book.finish_without_value(attempt, Outcome.HANDED_BACK, cause)

    def exiting(self, event: events.ActorExiting) -> None:
        worker = self._node.workers.get(event.worker)
        actor = self.hosted.get(worker.actor) if worker is not None else None
        if actor is not None:
            actor.final, actor.cause = 1, f"The actor is dead because {event.reason}."

    def kill_requested(self, event: events.KillRequested) -> None:
        actor = self.hosted.get(event.actor)
        if actor is not None:
            actor.cause = event.cause
            self._node.out.append(actions.Kill(actor.worker))
        elif (creation := self._node.drop_creation(event.actor)) is not None:
            # If it was killed for good Redis knows already, and answers STALE; else it may start again.
            self._node.out.append(actions.RecordActorDied(event.actor, creation.attempt, 0, event.cause))

    def retire_requested(self, event: events.RetireRequested) -> None:
        actor = self.hosted.get(event.actor)
        if actor is not None:
            actor.retiring = True
            self._retire_if_done(actor)

    def _retire_if_done(self, actor: HostedActor) -> None:
        worker = self._node.workers[actor.worker]
        if actor.alive and actor.retiring and not worker.sent and actor.is_quiet() and not worker.leaving:
            actor.final, actor.cause = 1, "The actor is gone: all its handles went out of scope."
            self._node.pool.let_go(worker, actor.cause)

    # ---- calls -------------------------------------------------------------------------------------------------------
    def submit_local(self, caller: str, packed: bytes, head: specs.TaskHead) -> str:
        """A call from a process of this node: the short way if the actor lives here, else Redis finds it."""
        actor = self.hosted.get(head.actor)
        if actor is None or not actor.alive or actor.final or self._node.withdrawals.has_ended(head.job):
            return "-"
        attempt = Attempt(packed, head, 1, {})
        self._node.attempts[head.task] = attempt
        actor.caller(caller).line_up_local(attempt)
        self._look_up_arguments(attempt)
        self._pump(actor)
        sent = self._node.workers[actor.worker].sent
        attempt.told_running = attempt.task in sent and (not actor.serial or len(sent) == 1)
        return "R" if attempt.told_running else "C"

    def job_ended(self, job: str) -> None:
        """Calls of that job to actors of other jobs: those they wait for will not come any more."""
        for actor in list(self.hosted.values()):
            for attempt in actor.take_early(job):
                self._node.book.cancelled.add(attempt.task)
                self._node.book.finish_without_value(attempt, Outcome.CANCELLED, "")
                self.call_cancelled(attempt)

    def call_cancelled(self, attempt: Attempt) -> None:
        """It has ended without being sent; whatever its caller lined up behind it need not wait for its arguments."""
        self._missing.pop(attempt.task, None)
        actor = self.hosted.get(attempt.head.actor)
        if actor is not None:
            self._pump(actor)
            self._retire_if_done(actor)

    def call_received(self, event: events.CallReceived) -> None:
        head = specs.unpack_head(event.spec)
        actor = self.hosted.get(head.actor)
        item: Item = (event.attempt, event.spec, {}, [])
        if actor is None:
            self._return(event.attempt, event.spec)
            return
        self._line_up(actor, item)
        self._pump(actor)

    def _return(self, number: int, packed: bytes) -> None:
        """A call came for an actor that does not live here any more."""
        attempt = Attempt(packed, specs.unpack_head(packed), number, {})
        self._node.book.finish_without_value(attempt, Outcome.HANDED_BACK, "The actor is gone.")

    def call_done(self, worker: Worker, attempt: Attempt, run_us: int) -> None:
        actor = self.hosted.get(worker.actor)
        if actor is None:
            return
        self.run_times.record(actor.method(attempt), run_us)
        if actor.serial:
            if self._node.book.cancelled:
                self._node.withdrawals.interrupt_next(worker)
            self._pump(actor)
        if actor.retiring:
            self._retire_if_done(actor)

    def _line_up(self, actor: HostedActor, item: Item) -> None:
        number, packed, values, located = item
        attempt = Attempt(packed, specs.unpack_head(packed), number, dict(values))
        self._node.attempts[attempt.task] = attempt
        self._look_up_arguments(attempt, located)
        actor.caller(attempt.task[:16]).line_up(attempt)

    def _look_up_arguments(self, attempt: Attempt, located: list[str] | None = None) -> None:
        missing = set()
        for object in attempt.head.waits_for:
            value = self._node.recent.get(object)
            if value is not None:
                attempt.values[object] = value
            elif object not in attempt.values and object not in self._node.here and object not in (located or ()):
                missing.add(object)
        if missing:
            self._missing[attempt.task] = missing
            for object in missing:
                self._awaited.setdefault(object, []).append(attempt)
            self._to_learn.update(missing)

    def learn(self) -> None:
        """At the end of the turn: an argument may be the result of a task in the very batch that is being recorded."""
        if self._to_learn:
            self._node.out.append(actions.Learn(sorted(self._to_learn)))
            self._to_learn.clear()

    def object_news(self, event: events.ObjectNews) -> None:
        touched = {}
        for attempt in self._awaited.pop(event.object, []):
            if event.value is not None:
                attempt.values[event.object] = event.value
            missing = self._missing.get(attempt.task)
            if missing is not None:
                missing.discard(event.object)
                if not missing:
                    del self._missing[attempt.task]
                    touched[attempt.head.actor] = True
        for id in touched:
            if id in self.hosted:
                self._pump(self.hosted[id])

    def _is_wanted(self, attempt: Attempt) -> bool:
        return self._node.attempts.get(attempt.task) is attempt

    def _is_ready(self, attempt: Attempt) -> bool:
        return attempt.task not in self._missing or not self._is_wanted(attempt)

    def pump_all(self) -> None:
        for actor in list(self.hosted.values()):
            self._pump(actor)

    def _pump(self, actor: HostedActor) -> None:
        """Before Redis has handed over all that waited, a later call may already be here: nothing goes before that."""
        if not actor.alive or self._node.is_fenced:
            return
        worker = self._node.workers[actor.worker]
        if worker.doom:
            return  # it is being killed: what it has not begun goes back when it is gone

        def may_go(attempt: Attempt) -> bool:
            if not self._is_ready(attempt):
                return False
            return not actor.serial or len(worker.sent) < self.run_times.ahead(actor.method(attempt))

        for attempt in actor.sendable(may_go):
            if self._is_wanted(attempt):
                self._node.send(worker, attempt)
