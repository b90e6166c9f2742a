"""The part of the local scheduler that hosts actors. Pure, like the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redray import spec as specs
from redray.gcs.schema import Outcome, Reply
from redray.worker import actions, events
from redray.worker.hosted_actors import HostedActor
from redray.messages import Done
from redray.worker.workers import Attempt, Worker

if TYPE_CHECKING:
    from redray.worker.state import NodeState

Item = tuple[int, bytes, dict[str, bytes], list[str]]


class ActorTable:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self.hosted: dict[str, HostedActor] = {}
        self._missing: dict[str, set[str]] = {}  # call -> arguments that are not known to be ready
        self._awaited: dict[str, list[Attempt]] = {}  # object -> calls that wait for it

    # ---- life --------------------------------------------------------------------------------------------------------------------
    def begin(self, creation: Attempt, worker: Worker) -> None:
        worker.actor = creation.task
        self.hosted[creation.task] = HostedActor(creation, worker.id)
        self._node.send(worker, creation)

    def created(self, creation: Attempt, worker: Worker, done: Done) -> None:
        """The constructor returned, or raised."""
        actor = self.hosted[creation.task]
        self._node.attempts.pop(creation.task, None)
        if done.outcome != Outcome.VALUE:
            actor.final, actor.cause = True, done.detail
            self._node.out.append(actions.RecordActorDied(actor.id, actor.attempt, True, done.detail))
            self._forget(actor, worker)
            self._node.out.append(actions.Kill(worker.id))
            return
        self._node.ledger.vacate(worker)
        self._node.ledger.occupy(worker, str(creation.head.options.get("demand_held", "-")))
        self._node.out.append(actions.RecordActorStarted(actor.id, actor.attempt, worker.id))

    def start_answered(self, event: events.ActorStartAnswered) -> None:
        actor = self.hosted.get(event.actor)
        if actor is None:
            return
        if event.outcome not in (Reply.OK, Reply.MORE):
            self._node.out.append(actions.Kill(actor.worker))
            return
        for caller, last in event.callers.items():
            actor.caller(caller).last = last
        for item in event.calls:
            self._line_up(actor, item)
        if event.outcome == Reply.MORE:
            self._node.out.append(actions.RecordActorStarted(actor.id, actor.attempt, actor.worker))
        else:
            actor.alive = True
        self._pump(actor)

    def worker_gone(self, worker: Worker, started: tuple[str, int] | None, detail: str) -> None:
        actor = self.hosted.get(worker.actor)
        if actor is None:
            return
        from redray.worker.state import split_started

        cause = actor.cause or f"The actor died unexpectedly: its worker process has died. {detail}"
        self._node.attempts.pop(actor.id, None)
        worker.sent.pop(actor.id, None)
        self._node.out.append(actions.RecordActorDied(actor.id, actor.attempt, actor.final, cause))
        began, unstarted = split_started(worker, started) if actor.ordered else (list(worker.sent.values()), [])
        for attempt in began:
            self._node.finish_without_value(attempt, Outcome.CRASHED, cause)
        self._forget(actor, worker, unstarted, cause)

    def _forget(self, actor: HostedActor, worker: Worker, unstarted: list[Attempt] | None = None, cause: str = "") -> None:
        """Hand back what never started, last first: Redis puts each in front of the line, so the callers' order comes out right."""
        del self.hosted[actor.id]
        worker.actor = actor.id
        for attempt in reversed((unstarted or []) + actor.drain()):
            self._node.finish_without_value(attempt, Outcome.HANDED_BACK, cause)

    def exiting(self, event: events.ActorExiting) -> None:
        worker = self._node.workers.get(event.worker)
        actor = self.hosted.get(worker.actor) if worker is not None else None
        if actor is not None:
            actor.final, actor.cause = True, event.reason

    def kill_requested(self, event: events.KillRequested) -> None:
        actor = self.hosted.get(event.actor)
        if actor is not None:
            actor.cause = event.cause
            self._node.out.append(actions.Kill(actor.worker))
        elif (creation := self._node.drop_creation(event.actor)) is not None:
            self._node.out.append(actions.RecordActorDied(event.actor, creation.attempt, True, event.cause))

    def retire_requested(self, event: events.RetireRequested) -> None:
        actor = self.hosted.get(event.actor)
        if actor is not None:
            actor.retiring = True
            self._retire_if_done(actor)

    def _retire_if_done(self, actor: HostedActor) -> None:
        worker = self._node.workers[actor.worker]
        if actor.retiring and not worker.sent and actor.is_quiet() and not worker.leaving:
            actor.final, actor.cause = True, "The actor is gone: all its handles went out of scope."
            self._node.let_go(worker, actor.cause)

    # ---- calls -------------------------------------------------------------------------------------------------------------------
    def submit_local(self, caller: str, packed: bytes, head: specs.TaskHead) -> str:
        """A call from a process of this node: the short way if the actor lives here, else Redis finds it."""
        actor = self.hosted.get(head.actor)
        if actor is None or not actor.alive or actor.final:
            return "-"
        attempt = Attempt(packed, head, 1, {})
        self._node.attempts[head.task] = attempt
        actor.caller(caller).line_up_local(attempt)
        self._look_up_arguments(attempt)
        self._pump(actor)
        attempt.told_running = bool(attempt.worker)
        return "R" if attempt.worker else "C"

    def call_received(self, event: events.CallReceived) -> None:
        head = specs.unpack_head(event.spec)
        actor = self.hosted.get(head.actor)
        item = (event.attempt, event.spec, {}, [])
        if actor is None:
            self._node.finish_without_value(Attempt(event.spec, head, event.attempt, {}), Outcome.HANDED_BACK, "The actor is gone.")
            return
        self._line_up(actor, item)
        self._pump(actor)

    def call_done(self, worker: Worker) -> None:
        actor = self.hosted.get(worker.actor)
        if actor is not None and actor.retiring:
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
            self._node.out.append(actions.Learn(sorted(missing)))

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

    def _is_ready(self, attempt: Attempt) -> bool:
        return attempt.task not in self._missing

    def _pump(self, actor: HostedActor) -> None:
        worker = self._node.workers.get(actor.worker)
        if worker is None or not (actor.alive or not actor.final):
            return
        for attempt in actor.sendable(self._is_ready):
            if attempt.task in self._node.attempts:
                self._node.send(worker, attempt)
