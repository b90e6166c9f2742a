"""Work that is taken back from where it is: cancelled, of a job that has ended, or sent ahead and late. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from redray.gcs.schema import Outcome
from redray.messages import Cancel
from redray.spec import ACTOR_CALL, TASK, TaskHead
from redray.worker import actions, events
from redray.worker.children import Children
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
        if "recursive" in event.how:
            attempt.follow = event.how
            self.cancel_children(attempt)
        if not attempt.worker:
            node.backlog.drop(lambda waiting: waiting is attempt)
            node.book.finish_without_value(attempt, Outcome.CANCELLED, "")
            node.actors.call_cancelled(attempt)
        elif attempt.head.kind == ACTOR_CALL:
            self._cancel_call(attempt)
        elif "force" in event.how and attempt.head.kind == TASK:
            # It may have ended already: the worker must be kept from starting another, which would die in its place.
            attempt.condemned = True
            self._revoke(node.workers[attempt.worker])
        else:
            self.interrupt_next(node.workers[attempt.worker])

    def _cancel_call(self, call: Attempt) -> None:
        """The main thread of a sync actor runs the method, and reads no frames meanwhile: a signal sets its flag."""
        actor = self._node.actors.hosted.get(call.head.actor)
        if actor is not None and actor.serial:
            self.interrupt_next(self._node.workers[call.worker])
        else:
            self._node.out.append(actions.Send(call.worker, Cancel(call.task)))

    # ---- what a cancelled task has submitted -------------------------------------------------------------------------
    def submitted(self, head: TaskHead) -> None:
        """A task that runs here submitted another."""
        parent = self._node.attempts.get(head.parent)
        if parent is not None and parent.worker:
            if parent.children is None:
                parent.children = Children(parent.worker)
            parent.children.add(head.task)

    def cancel_children(self, parent: Attempt, last: int | None = None) -> None:
        """Those that this node has heard of since it was asked; with `last`, up to that number of its worker."""
        if parent.follow and parent.children is not None:
            children = parent.children.take(last)
            if children:
                self._node.out.append(actions.CancelTasks(children, parent.follow, parent.task))

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
                # An actor's callers may be of other jobs: for them it dies.
                node.book.cancelled.update(id for id, sent in worker.sent.items() if sent.head.job == event.job)
                node.pool.kill(worker)
        node.actors.job_ended(event.job)

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
