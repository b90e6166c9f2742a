"""What a node remembers of the attempts that ended, until it writes them into the cluster's history."""

from __future__ import annotations

import time
from collections import deque

from redray import spec as specs
from redray.gcs.history import WRITE_S, TaskEvent
from redray.gcs.schema import LIMITS
from redray.worker.workers import Attempt


class History:
    """Noting one costs a microsecond: everything else is done by `take`, once per batch."""

    def __init__(self, node: str, host: str) -> None:
        self._node, self._host = node, host
        self._ended: deque[tuple[Attempt, str, str, int, str, int, int]] = deque(maxlen=LIMITS["HISTORY_BATCH"])
        self._due = 0.0

    def note(self, attempt: Attempt, outcome: str, worker: str, pid: int, class_name: str, run_us: int) -> None:
        if not self._ended:
            self._due = time.monotonic() + WRITE_S
        self._ended.append((attempt, outcome, worker, pid, class_name, run_us, time.time_ns() // 1000))

    def due(self) -> float | None:
        """When to write, in seconds of the monotonic clock; None: there is nothing."""
        return self._due if self._ended else None

    def take(self) -> list[TaskEvent]:
        events = [
            TaskEvent(
                attempt.head.task,
                attempt.attempt,
                _full_name(attempt.head, class_name),
                attempt.head.kind,
                attempt.head.job,
                attempt.head.actor,
                attempt.head.parent,
                outcome,
                self._node,
                self._host,
                worker,
                pid,
                end_us - run_us,
                end_us,
            )
            for attempt, outcome, worker, pid, class_name, run_us, end_us in self._ended
        ]
        self._ended.clear()
        return events


def _full_name(head: specs.TaskHead, class_name: str) -> str:
    if head.kind == specs.ACTOR_CREATION:
        return f"{head.name}.__init__"
    return f"{class_name}.{head.name}" if head.kind == specs.ACTOR_CALL and "." not in head.name else head.name
