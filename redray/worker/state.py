"""The local scheduler: events in, actions out. No I/O, no clock.

The rules:
1.  A task is started here at once only if nothing waits in the cluster's queues (`contended`), its arguments are known,
    this node is one of the best places for it, and a worker can take it now; everything else goes through Redis. Beside
    other nodes it takes up at most half of the CPUs in this way.
2.  A worker runs one task at a time and is sent more ahead only when their function is known to be short.
3.  Resources belong to workers, not to tasks: a worker holds a demand while it has tasks of that demand.
4.  A blocked worker's CPUs go to whatever is deepest; it retakes them when it wakes.
5.  At the end of a turn (`settle`) everything that ended is reported in one call, which also asks for work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redray import spec as specs
from redray.gcs.schema import LIMITS, Outcome
from redray.messages import Run, TakeBack
from redray.spec import ACTOR_CALL, ACTOR_CREATION, TASK
from redray.where import NODE_ID, admits
from redray.worker import actions, events
from redray.worker.actor_table import ActorTable
from redray.worker.attempt_book import AttemptBook
from redray.worker.backlog import Backlog
from redray.worker.bundles import Bundles
from redray.worker.invariants import check
from redray.worker.placing import Placing
from redray.worker.pool import WorkerPool
from redray.worker.recent import Recent
from redray.worker.shortage import Shortage
from redray.worker.streams import Streams
from redray.worker.wedge import Wedge
from redray.worker.withdrawals import Withdrawals
from redray.worker.workers import Attempt, Ledger, Worker, needs_gpu, split_started

SLICE = LIMITS["SLICE"]
STUCK_MS = 200  # claimed work that cannot be placed for so long goes back to the cluster
TELL_RUNNING_MS = 50  # a claimed task that runs longer is written down as running


class NodeState:
    def __init__(
        self,
        resources: dict[str, float],
        new_worker_id: Callable[[], str],
        most_workers: int,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.ledger = Ledger(resources)
        self.labels = labels or {}
        self.alone = True  # no other node is known
        self.gpu_names: dict[int, str] = {}  # where this machine has others for them than their numbers here
        steady = max(1, int(resources.get("CPU", 1)))
        self.pool = WorkerPool(new_worker_id, most_workers, steady, lambda action: self.out.append(action))
        self.workers = self.pool.workers
        self.backlog = Backlog()
        self.withdrawals = Withdrawals(self)
        self.shortage = Shortage(self)
        self.recent = Recent()
        self.book = AttemptBook(self.recent)
        self.attempts = self.book.open
        self.placing = Placing(self)
        self.actors = ActorTable(self)
        self.streams = Streams(self)
        self.bundles = Bundles(self)
        self.wedge = Wedge(self, most_workers)
        self.here: set[str] = set()  # objects sealed in this node's shared memory
        self.contended = False
        self.leftover: list[str] = []  # demands of ready work in the cluster's queues, when they were last asked
        self.draining = False
        self.is_fenced = False
        self._want_claim = True  # there may be work, or more room than the cluster knows of
        self._want_ahead = False  # the cluster knows what is free and has more: for busy workers only
        self._asking = False
        self._asked_offer = ""  # what the question under way offers
        self._known_offer = ""  # what the cluster had nothing for, and will ring for: it need not hear it again
        self.now = 0
        self.out: list[actions.Action] = []
        self._handlers: dict[type, Callable[[Any], Any]] = {
            events.Submitted: self._submitted,
            events.WorkReceived: self._work_received,
            events.TaskDone: self._task_done,
            events.ItemsYielded: self.streams.yielded,
            events.ItemsPublished: self.streams.published,
            events.ItemsTaken: self.streams.taken,
            events.WorkerReady: self._worker_ready,
            events.WorkerGone: self._worker_gone,
            events.WorkerBlocked: self._worker_blocked,
            events.WorkerUnblocked: self._worker_unblocked,
            events.HandedBackTasks: self._handed_back,
            events.Revoked: self.withdrawals.revoked,
            events.WaitsFound: lambda event: self.wedge.found(event.waits),
            events.CancelRequested: self.withdrawals.cancel,
            events.JobEnded: self.withdrawals.job_ended,
            events.Rung: self._rung,
            events.MemoryShort: self.shortage.found,
            events.Tick: self._tick,
            events.ActorExiting: self.actors.exiting,
            events.ActorStartAnswered: self.actors.start_answered,
            events.CallReceived: self.actors.call_received,
            events.ObjectNews: self.actors.object_news,
            events.KillRequested: self.actors.kill_requested,
            events.RetireRequested: self.actors.retire_requested,
            events.BundlesWanted: self.bundles.reserve,
            events.BundlesCommitted: lambda event: self.bundles.commit(event.group),
            events.BundlesReleased: self.bundles.release,
        }

    def handle(self, event: events.Event, now: int) -> Any:
        """Take one event in; `now` is in ms of a monotonic clock. Returns the claims of a Submitted, else None."""
        self.now = now
        return self._handlers[type(event)](event)

    def take_actions(self) -> list[actions.Action]:
        out, self.out = self.out, []
        return out

    def settle(self, report: bool = True) -> None:
        """End of a turn: give out the backlog and, with `report`, say what ended and ask for work."""
        self.placing.schedule()
        self.actors.learn()
        self.bundles.settle()
        if report:
            self.streams.report()
        has_finishes = self.book.has_finishes() and not self.streams.has_items()  # which must not be overtaken
        wants_more = (self._want_claim or self._want_ahead) and not self._asking
        if not report or not (has_finishes or wants_more):
            return
        limit, rooms = (0, {}) if self._asking or self.backlog or self.draining else self.placing.capacity()
        offer = self.ledger.offer()
        if limit and not rooms and offer == self._known_offer:
            limit, self._want_claim = 0, False
        elif has_finishes:
            # What ended left room. If it is not offered now, it must be later: the cluster knows of a smaller offer
            # only.
            self._want_claim = True
        if has_finishes:
            self.out.append(actions.RecordFinishes(self.book.take_finishes(SLICE), offer, rooms, limit))
        elif not self._want_claim and not rooms:
            return  # the cluster knows what is free here: it would have given, or will ring
        elif limit:
            self.out.append(actions.Claim(offer, rooms, limit))
        if limit:
            self._asking, self._asked_offer = True, offer
            self._want_claim = self._want_ahead = False

    def drain(self) -> None:
        """Take nothing new, hand back what has not started; what runs may end."""
        self.draining = True
        for attempt in self.backlog.drop(lambda waiting: True):
            self.book.finish_without_value(attempt, Outcome.HANDED_BACK, "")

    def validate(self) -> None:
        """Raises AssertionError if the books do not balance. For tests, after each event."""
        check(self)

    def has_more_to_settle(self) -> bool:
        return self.book.has_finishes() or self.streams.has_items()

    def has_sent_ahead(self) -> bool:
        """Whether a worker has more than the one task it runs: then a slow one must be noticed soon."""
        return any(len(worker.sent) > 1 and not worker.actor for worker in self.workers.values())

    def is_at_rest(self) -> bool:
        return not self.attempts and not self.has_more_to_settle()

    # ---- work comes in -----------------------------------------------------------------------------------------------
    def _submitted(self, event: events.Submitted) -> str:
        claims = []
        for packed in event.specs:
            head = specs.unpack_head(packed)
            if head.parent:
                self.withdrawals.submitted(head)
            if head.kind == ACTOR_CALL:
                claims.append(self.actors.submit_local(event.worker, packed, head))
            else:
                claims.append(self._try_start(packed, head))
        if "-" in claims:
            self.ask_for_work()
        return "".join(claims)

    def _try_start(self, packed: bytes, head: specs.TaskHead) -> str:
        if (
            self.contended
            or self.draining
            or self.is_fenced
            or self.backlog
            or head.kind != TASK
            or not admits(head.where, self.labels)
        ):
            return "-"
        if self.withdrawals.has_ended(head.job):
            return "-"
        values = self.known_values(head)
        if values is None:
            return "-"
        attempt = Attempt(packed, head, 1, values)
        leaves_it = self._leaves_it_to_others(head)
        worker = self.placing.worker_for(attempt, may_occupy=not leaves_it)
        if worker is None:
            if leaves_it:
                return "-"
            self.contended = True
            if self.ledger.fits(head.demand) and not self.pool.starting():
                self.pool.start_for(attempt, self.now)  # it forks while the task makes its way through Redis
            return "-"
        self.attempts[head.task] = attempt
        running = not worker.sent
        self.send(worker, attempt)
        attempt.told_running = running
        return "R" if running else "C"

    def _leaves_it_to_others(self, head: specs.TaskHead) -> bool:
        """Once half of the CPUs are in use somebody else may be the better place, and Redis knows who waits. But a task
        whose large arguments are here, or which wants this very node, is at its best place."""
        if self.alone or not self.ledger.is_half_used() or "CPU:" not in head.demand or head.where.startswith(NODE_ID):
            return False
        return self.here.isdisjoint(head.waits_for)

    def known_values(self, head: specs.TaskHead) -> dict[str, bytes] | None:
        """The inline values of a task's arguments, if this node knows every one of them or has it in shared memory."""
        values = {}
        for object in head.waits_for:
            value = self.recent.get(object)
            if value is not None:
                values[object] = value
            elif object not in self.here:
                return None
        return values

    def _work_received(self, event: events.WorkReceived) -> None:
        self._asking = False
        # Unless something was heard meanwhile: the ring may have come for this very offer, ahead of this answer.
        is_known = not (event.items or event.leftover or self._want_claim)
        self._known_offer = self._asked_offer if is_known else ""
        self.leftover = event.leftover
        # What this node can never run must not keep it from starting new work at once: it may wait for days.
        self.contended = any(self.ledger.could_ever_fit(demand) for demand in event.leftover)
        for number, packed, values, _located in event.items:
            attempt = Attempt(packed, specs.unpack_head(packed), number, values)
            self.attempts[attempt.task] = attempt
            if self.withdrawals.has_ended(attempt.head.job):
                self.book.cancelled.add(attempt.task)
            self.return_to_backlog(attempt)
        self._want_ahead = self.contended
        if self.contended and len(event.items) >= SLICE:
            self._want_claim = True  # it gave as many as one answer holds, and has more

    def return_to_backlog(self, attempt: Attempt) -> None:
        """It waits here for a worker, unless nobody wants it any more, or not here."""
        if attempt.task in self.book.cancelled:
            self.book.finish_without_value(attempt, Outcome.CANCELLED, "")
            return
        if self.draining:
            self.book.finish_without_value(attempt, Outcome.HANDED_BACK, "")
            return
        attempt.worker = ""
        attempt.started_ms = self.now
        self.backlog.add(attempt)

    def _rung(self, _event: events.Rung) -> None:
        self.ask_for_work()

    def ask_for_work(self) -> None:
        """At the end of the turn: there may be work, or more room than the cluster was told of."""
        self._want_claim = True
        self._known_offer = ""

    # ---- placing -----------------------------------------------------------------------------------------------------
    def fence(self, is_fenced: bool) -> None:
        """While the node's lease is not fresh nothing new starts here: somebody may be starting it elsewhere by now."""
        if self.is_fenced and not is_fenced:
            self.is_fenced = False
            self.actors.pump_all()
        self.is_fenced = is_fenced

    def send(self, worker: Worker, attempt: Attempt) -> None:
        head = attempt.head
        if head.kind != ACTOR_CALL:
            # An actor belongs to the job that created it, whoever calls.
            worker.job, worker.environment = head.job, attempt.environment
            worker.on_gpus = needs_gpu(head.demand)
        worker.queue = attempt.queue
        worker.sent[attempt.task] = attempt
        attempt.worker = worker.id
        attempt.started_ms = self.now
        worker.serial += 1
        attempt.serial = worker.serial
        gpus = [self.gpu_names.get(number, number) for number, _ in worker.gpus]
        run = Run(attempt.spec, attempt.attempt, attempt.values, None, gpus, worker.serial)
        self.out.append(
            actions.Dispatch(
                worker.id, run, head.function, worker.job, worker.environment, head.name, head.kind == ACTOR_CALL
            )
        )

    # ---- work goes out -----------------------------------------------------------------------------------------------
    def _task_done(self, event: events.TaskDone) -> None:
        worker, done = self.workers.get(event.worker), event.done
        if worker is None or done.task not in worker.sent:
            return
        attempt = worker.sent.pop(done.task)
        if attempt.head.kind == ACTOR_CREATION:
            self.actors.created(attempt, worker, done)
            return
        if attempt.follow:
            self.withdrawals.cancel_children(attempt, done.submitted)
        self.book.finish_done(attempt, done)
        if attempt.head.kind == ACTOR_CALL:
            self.actors.call_done(worker, attempt, done.run_us)
            return
        self.placing.run_times.record(attempt.head.function, done.run_us)
        self.ledger.unblock(worker)  # it cannot wait any more for something inside a task that has ended
        if self.book.cancelled:
            self.withdrawals.interrupt_next(worker)
        if (following := next(iter(worker.sent.values()), None)) is not None:
            following.started_ms = self.now
        if not worker.sent:
            self._next_or_idle(worker)

    def _next_or_idle(self, worker: Worker) -> None:
        """Keep the demand while the backlog has more of it: giving it back and retaking it would be the same."""
        if not worker.leaving and not needs_gpu(worker.holds):
            attempt = self.backlog.take_of(worker.queue, TASK)
            if attempt is not None:
                self.send(worker, attempt)
                return
        self.ledger.vacate(worker)
        self._want_claim = True
        worker.last_idle_ms = self.now

    # ---- workers -----------------------------------------------------------------------------------------------------
    def _worker_ready(self, event: events.WorkerReady) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            worker.ready = True
            worker.last_idle_ms = self.now
            self._want_claim = True

    def _worker_gone(self, event: events.WorkerGone) -> None:
        worker = self.pool.gone(event.worker, self.now)
        if worker is None:
            return
        self.ledger.vacate(worker)
        self.ask_for_work()
        shortage = self.shortage.reason(worker)
        if worker.actor:
            self.actors.worker_gone(worker, event.started, event.detail, shortage)
            return
        started, unstarted = split_started(worker, event.started)
        for attempt in started:
            self.withdrawals.cancel_children(attempt)
            if shortage:
                self.shortage.lost(attempt, shortage, self.now)
                continue
            why = worker.doom or event.detail
            text = f"Task {attempt.task} ({attempt.head.name}) failed: its worker process died. {why}"
            self.book.finish_without_value(attempt, Outcome.REMOVED if worker.doom else Outcome.CRASHED, text)
        for attempt in unstarted:
            if worker.doom:
                self.book.finish_without_value(attempt, Outcome.REMOVED, worker.doom)
            else:
                self.return_to_backlog(attempt)

    def _worker_blocked(self, event: events.WorkerBlocked) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self.give_back(worker, event.returned)
            self.ledger.block(worker)
            worker.waits_for = frozenset(object[:24] for object in event.waits_for)
            self.wedge.moved()
            self._want_claim = True
            if len(worker.sent) > 1 and not worker.actor:
                # Sent before this node knew: behind a task that may wait for exactly these.
                self.out.append(actions.Send(worker.id, TakeBack(worker.serial)))

    def _worker_unblocked(self, event: events.WorkerUnblocked) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self.ledger.unblock(worker)
            self.wedge.moved()

    def _handed_back(self, event: events.HandedBackTasks) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self.give_back(worker, event.serials)

    def give_back(self, worker: Worker, serials: list[int]) -> None:
        wanted = set(serials)
        back = [attempt for attempt in worker.sent.values() if attempt.serial in wanted] if wanted else []
        for attempt in back:
            del worker.sent[attempt.task]
            self.return_to_backlog(attempt)
        if back and not worker.sent and not worker.actor:
            self._next_or_idle(worker)

    # ---- ends --------------------------------------------------------------------------------------------------------
    def drop_creation(self, actor: str) -> Attempt | None:
        """An actor's creation that was claimed and has not been sent."""
        dropped = self.backlog.drop(lambda waiting: waiting.task == actor)
        for attempt in dropped:
            self.book.forget(attempt)
        return dropped[0] if dropped else None

    def _tick(self, _event: events.Tick) -> None:
        late = []
        for worker in self.workers.values():
            first = next(iter(worker.sent.values()), None)
            self.withdrawals.revoke_if_slow(worker, first, self.now)
            if first is not None and not first.told_running and self.now - first.started_ms > TELL_RUNNING_MS:
                first.told_running = True
                late.append(first.task)
        if late:
            self.out.append(actions.RecordRunning(late))
        for attempt in self.backlog.drop(self._is_stuck):
            self.book.finish_without_value(attempt, Outcome.HANDED_BACK, "")
        self.shortage.tick(self.now)
        self.wedge.tick(self.now)
        self.pool.shrink(self.now)

    def _is_stuck(self, attempt: Attempt) -> bool:
        """Something took the resources it was claimed for: it may run elsewhere, and must not keep others from here."""
        if self.now - attempt.started_ms <= STUCK_MS:
            return False
        return self.pool.is_full() or not self.ledger.fits(attempt.head.demand)
