"""The node runs out of memory: which worker has to go, and when its task may try again. Pure.

Killed is the worker that takes most, first among those whose task may run again. It does not use up `max_retries`: the
task waits (1 s, then 2 s, up to a minute) and goes back to the cluster, as often as it takes. One worker at a time: its
memory is free only when it is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from redray.gcs.schema import Outcome
from redray.spec import TASK
from redray.worker import events
from redray.worker.workers import Attempt, Worker

if TYPE_CHECKING:
    from redray.worker.state import NodeState

FIRST_DELAY_MS, MOST_DELAY_MS = 1_000, 60_000
TASKS_REMEMBERED = 1_000


class Shortage:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._doomed: dict[str, str] = {}  # worker -> why
        self._kills: OrderedDict[str, int] = OrderedDict()  # of each task, lately
        self.waiting: list[tuple[int, Attempt]] = []  # when they may go on

    def found(self, event: events.MemoryShort) -> None:
        """Kill one worker, unless one that was killed has not gone yet."""
        if self._doomed:
            return
        busy = [worker for worker in self._node.workers.values() if worker.sent or worker.actor]
        victims = [worker for worker in busy if event.resident.get(worker.id)]
        if victims:
            victim = max(victims, key=lambda worker: (_may_run_again(worker), event.resident[worker.id]))
            self._doomed[victim.id] = f"its node ran out of memory: {event.text}"
            self._node.pool.kill(victim)

    def reason(self, worker: Worker) -> str:
        """Why it was killed here; "" if it was not. To be asked once, when it has gone."""
        return self._doomed.pop(worker.id, "")

    def lost(self, attempt: Attempt, reason: str, now: int) -> None:
        """The attempt of a task ended with its worker."""
        if attempt.head.max_retries == 0 or attempt.task in self._node.book.cancelled:
            text = f"Task {attempt.task} ({attempt.head.name}) was killed because {reason}."
            self._node.book.finish_without_value(attempt, Outcome.OUT_OF_MEMORY, text)
            return
        kills = self._kills.pop(attempt.task, 0)
        self._kills[attempt.task] = kills + 1
        if len(self._kills) > TASKS_REMEMBERED:
            self._kills.popitem(last=False)
        attempt.worker = ""
        self.waiting.append((now + min(MOST_DELAY_MS, FIRST_DELAY_MS << min(kills, 10)), attempt))

    def tick(self, now: int) -> None:
        """Hand back those that have waited long enough; nobody waits on a node that leaves."""
        waiting, self.waiting = self.waiting, []
        for due, attempt in waiting:
            if self._node.attempts.get(attempt.task) is not attempt:
                continue  # cancelled meanwhile
            if due <= now or self._node.draining or self._node.withdrawals.has_ended(attempt.head.job):
                self._node.book.finish_without_value(attempt, Outcome.OUT_OF_MEMORY, "")
            else:
                self.waiting.append((due, attempt))


def _may_run_again(worker: Worker) -> bool:
    first = next(iter(worker.sent.values()), None)
    return first is not None and first.head.kind == TASK and first.head.max_retries != 0
