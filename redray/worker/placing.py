"""Which worker gets a task: an idle one, a new one, or a busy one that will soon be done. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redray.gcs.schema import LIMITS
from redray.resources import fits, take
from redray.spec import ACTOR_CREATION, TASK
from redray.worker.policy import RunTimes
from redray.worker.withdrawals import is_slow
from redray.worker.workers import Attempt, Worker, needs_gpu

if TYPE_CHECKING:
    from redray.worker.state import NodeState

MOST_WORK = LIMITS["SLICE"]  # tasks that one answer of the cluster brings


class Placing:
    def __init__(self, node: NodeState) -> None:
        self.run_times = RunTimes()
        self._node = node

    def schedule(self) -> None:
        if not self._node.is_fenced:
            self._node.backlog.place(self._place)
            self._start_missing()

    def _place(self, attempt: Attempt) -> bool:
        worker = self.worker_for(attempt, is_plenty=True)
        if worker is None:
            return False
        if attempt.head.kind == ACTOR_CREATION:
            self._node.actors.begin(attempt, worker)
        else:
            self._node.send(worker, attempt)
        return True

    def worker_for(self, attempt: Attempt, is_plenty: bool = False, may_occupy: bool = True) -> Worker | None:
        """An idle worker if the resources are free (and `may_occupy`), else one that may have this run ahead."""
        head = attempt.head
        best = None
        is_free = may_occupy and self._node.ledger.fits(head.demand)
        ahead = 1 if head.kind != TASK or needs_gpu(head.demand) else self.run_times.ahead(head.function, is_plenty)
        for worker in self._node.workers.values():
            if not worker.ready or worker.leaving or worker.actor or not worker.may_serve(attempt):
                continue
            if not worker.holds:
                if is_free:
                    self._node.ledger.occupy(worker, head.demand)
                    return worker
            elif worker.queue == attempt.queue and len(worker.sent) < ahead and self._takes_ahead(worker):
                if best is None or len(worker.sent) < len(best.sent):
                    best = worker
        return best

    def _takes_ahead(self, worker: Worker) -> bool:
        """Whether what is sent to this busy worker will be started soon."""
        first = next(iter(worker.sent.values()), None)
        return not worker.blocked and not worker.revoking and first is not None and not is_slow(first, self._node.now)

    def _start_missing(self) -> None:
        """A worker for each task that has its resources and no process;
        those on their way count as if they were here."""
        free = dict(self._node.ledger.free)
        missing = -self._node.pool.starting()
        refused: set[str] = set()
        for attempt in self._node.backlog:
            if attempt.queue in refused:
                continue
            if not fits(attempt.head.demand, free) or not self._node.ledger.fits(attempt.head.demand):
                refused.add(attempt.queue)
                continue
            take(attempt.head.demand, free)
            missing += 1
            if missing > 0 and not self._node.pool.start_for(attempt, self._node.now):
                return

    def capacity(self) -> tuple[int, dict[str, int]]:
        rooms: dict[str, int] = {}
        unused = self._node.pool.most - self._node.pool.size()
        for worker in self._node.workers.values():
            if worker.holds and not worker.actor and self._takes_ahead(worker):
                function = next(reversed(worker.sent.values())).head.function
                room = self.run_times.ahead(function, is_plenty=bool(self._node.leftover)) - len(worker.sent)
                if room > 0 and not needs_gpu(worker.holds) and not worker.environment:
                    rooms[worker.queue] = rooms.get(worker.queue, 0) + room
            elif not worker.holds and not worker.actor and not worker.leaving:
                unused += 1
        return min(MOST_WORK, max(0, unused) + sum(rooms.values())), rooms
