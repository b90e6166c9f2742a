"""The worker processes of a node: how many there are, when one is started, when one may go. Pure."""

from __future__ import annotations

from collections.abc import Callable

from redray.messages import Exit
from redray.worker import actions
from redray.worker.workers import Attempt, Worker

RESTART_MS = 100  # after a worker that died before it was ready
IDLE_MS = 1_000  # a worker beyond the CPU count may be idle for so long


class WorkerPool:
    """`most` bounds the processes for tasks; `steady` of them stay when idle."""

    def __init__(
        self, new_id: Callable[[], str], most: int, steady: int, act: Callable[[actions.Action], object]
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.most = most
        self._steady = steady
        self._new_id = new_id
        self._act = act
        self._start_after_ms = 0

    def size(self) -> int:
        """Workers for tasks. An actor's process is its user's explicit wish, and bounded by what it holds."""
        return sum(not worker.actor for worker in self.workers.values())

    def starting(self) -> int:
        return sum(not worker.ready for worker in self.workers.values())

    def is_full(self) -> bool:
        return self.size() >= self.most and not self.starting()

    def start_for(self, attempt: Attempt, now: int) -> bool:
        """One more worker, or, at the limit, an idle one that cannot serve the task makes room. False: not now."""
        if now < self._start_after_ms:
            return False
        if self.size() < self.most:
            self.start()
            return True
        if not any(worker.leaving for worker in self.workers.values()):
            other = next((worker for worker in self._idle() if not worker.may_serve(attempt)), None)
            if other is not None:
                self.let_go(other, "work of another kind needs its place")
        return False

    def start(self) -> None:
        id = self._new_id()
        self.workers[id] = Worker(id)
        self._act(actions.StartWorker(id))

    def let_go(self, worker: Worker, reason: str) -> None:
        worker.leaving = True
        self._act(actions.Send(worker.id, Exit(reason)))

    def kill(self, worker: Worker) -> None:
        worker.leaving = True
        self._act(actions.Kill(worker.id))

    def gone(self, id: str, now: int) -> Worker | None:
        worker = self.workers.pop(id, None)
        if worker is not None and not worker.ready:
            self._start_after_ms = now + RESTART_MS
        return worker

    def shrink(self, now: int) -> None:
        """Let go of those beyond the steady number, the longest idle first."""
        staying = sum(not worker.actor and not worker.leaving for worker in self.workers.values())
        idle = sorted(self._idle(), key=lambda worker: worker.last_idle_ms)
        for worker in idle[: max(0, staying - self._steady)]:
            if now - worker.last_idle_ms > IDLE_MS:
                self.let_go(worker, "idle")

    def _idle(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.ready and not w.holds and not w.actor and not w.leaving]
