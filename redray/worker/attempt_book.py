"""The attempts a node answers for, and how they ended, until that is reported. Pure."""

from __future__ import annotations

from redray.gcs.schema import Outcome
from redray.gcs.tasks import Finish
from redray.messages import Done
from redray.spec import ACTOR_CALL
from redray.worker.recent import Recent
from redray.worker.workers import Attempt


class AttemptBook:
    """An attempt is open until `finish_*` or `forget`; what finished waits here for the next report to Redis."""

    def __init__(self, recent: Recent) -> None:
        self.open: dict[str, Attempt] = {}
        self.cancelled: set[str] = set()  # of the open ones
        self._recent = recent
        self._finishes: list[tuple[Finish, list[bytes]]] = []

    def has_finishes(self) -> bool:
        return bool(self._finishes)

    def take_finishes(self, most: int) -> list[tuple[Finish, list[bytes]]]:
        taken, self._finishes = self._finishes[:most], self._finishes[most:]
        return taken

    def finish_done(self, attempt: Attempt, done: Done) -> None:
        if attempt.task in self.cancelled and _is_dropped(attempt, done):
            self._end(
                attempt,
                Finish(attempt.task, attempt.attempt, Outcome.CANCELLED, [], attempt.worker, done.keeps),
                [],
            )
            return
        values = []
        returns = []
        for index, returned in enumerate(done.returns):
            if returned.inline is not None:
                values.append(returned.inline)
                if done.outcome == Outcome.VALUE:
                    self._recent.add(f"{attempt.task}{index:08x}", returned.inline)
            returns.append((returned.inline is not None, returned.size, returned.contains))
        outcome = (
            Outcome.CANCELLED if attempt.task in self.cancelled and done.outcome != Outcome.VALUE else done.outcome
        )
        finish = Finish(attempt.task, attempt.attempt, outcome, returns, attempt.worker, done.keeps, done.detail)
        self._end(attempt, finish, values)

    def finish_without_value(self, attempt: Attempt, outcome: str, detail: str) -> None:
        if attempt.task in self.cancelled:
            outcome, detail = Outcome.CANCELLED, f"Task {attempt.task} ({attempt.head.name}) was cancelled."
        self._end(attempt, Finish(attempt.task, attempt.attempt, outcome, [], detail=detail), [])

    def forget(self, attempt: Attempt) -> None:
        self.open.pop(attempt.task, None)
        self.cancelled.discard(attempt.task)

    def _end(self, attempt: Attempt, finish: Finish, values: list[bytes]) -> None:
        self.forget(attempt)
        self._finishes.append((finish, values))


def _is_dropped(attempt: Attempt, done: Done) -> bool:
    """Whatever a cancelled call of an actor returns, its caller sees the cancellation, as in Ray, but what it raises is
    seen. Large values stay: they are in shared memory, in the name of the call."""
    is_inline = done.outcome == Outcome.VALUE and all(returned.inline is not None for returned in done.returns)
    return attempt.head.kind == ACTOR_CALL and attempt.head.num_returns >= 0 and is_inline
