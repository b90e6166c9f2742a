"""Work that is taken back from where it is: cancelled, of a job that has ended, or sent ahead and late. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from redray.gcs.schema import Outcome
from redray.messages import Cancel
from redray.spec import ACTOR_CALL, TASK
from redray.worker import actions, events
from redray.worker.workers import Attempt, Worker, split_started

if TYPE_CHECKING:
    from redray.worker.state import NodeState

JOBS_REMEMBERED = 500
SLOW_MS = 20  # what was sent behind a run that takes longer is taken back


class Withdrawals:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._ended_jobs: OrderedDict[str, None] = OrderedDict()  # lately: work of theirs may still be on its way here

    # ---- what nobody wants any more ----------------------------------------------------------------------------------
    def has_ended(self, job: str) -> bool:
        return job in self._ended_jobs

    def cancel(self, event: events.CancelRequested) -> None:
        node = self._node
        attempt = node.attempts.get(event.task)
        if attempt is None:
            return
        node.book.cancelled.add(event.task)
        if not attempt.worker:
            node.backlog.drop(lambda waiting: waiting is attempt)
            node.book.finish_without_value(attempt, Outcome.CANCELLED, "")
            node.actors.call_cancelled(attempt)
        elif attempt.head.kind == ACTOR_CALL:
            node.out.append(actions.Send(attempt.worker, Cancel(attempt.task)))
        elif event.force and attempt.head.kind == TASK:
            # It may have ended already: the worker must be kept from starting another, which would die in its place.
            attempt.condemned = True
            self._revoke(node.workers[attempt.worker])
        else:
            self.interrupt_next(node.workers[attempt.worker])

    def interrupt_next(self, worker: Worker) -> None:
        """A worker looks in one place for the attempt to interrupt: the first in its line must stand there."""
        cancelled = self._node.book.cancelled
        attempt = next((attempt for attempt in worker.sent.values() if attempt.task in cancelled), None)
        if attempt is not None:
            self._node.out.append(actions.Interrupt(worker.id, attempt.task, attempt.attempt))

    def job_ended(self, event: events.JobEnded) -> None:
        node = self._node
        self._ended_jobs[event.job] = None
        if len(self._ended_jobs) > JOBS_REMEMBERED:
            self._ended_jobs.popitem(last=False)
        for attempt in node.backlog.drop(lambda waiting: waiting.head.job == event.job):
            node.book.cancelled.add(attempt.task)
            node.book.finish_without_value(attempt, Outcome.CANCELLED, "")
        for worker in list(node.workers.values()):
            if worker.job == event.job:
                node.book.cancelled.update(worker.sent)
                node.pool.kill(worker)

    # ---- what was sent ahead -----------------------------------------------------------------------------------------
    def revoke_if_slow(self, worker: Worker, first: Attempt | None, now: int) -> None:
        """A run that turned out long must not hold up the short ones that were sent behind it."""
        if len(worker.sent) > 1 and not worker.actor and first is not None and is_slow(first, now):
            self._revoke(worker)

    def _revoke(self, worker: Worker) -> None:
        if worker.revoking != worker.serial:
            worker.revoking = worker.serial
            self._node.out.append(actions.Revoke(worker.id, worker.serial))

    def revoked(self, event: events.Revoked) -> None:
        worker = self._node.workers.get(event.worker)
        if worker is None or event.serial != worker.revoking:  # more is being revoked: its answer says all
            return
        worker.revoking = 0
        _, unstarted = split_started(worker, event.started)
        self._node.give_back(worker, [attempt.serial for attempt in unstarted if attempt.serial <= event.serial])
        if any(attempt.condemned and attempt.serial == event.started for attempt in worker.sent.values()):
            self._node.pool.kill(worker)


def is_slow(first: Attempt, now: int) -> bool:
    return now - first.started_ms > SLOW_MS
