"""Errors that nobody saw: a task failed, and its last ref here went without a `get`, `await` or a task that took it."""

from __future__ import annotations

import os
from collections import deque

import msgspec

from redray.store import serialization

SUPPRESS = ("REDRAY_IGNORE_UNHANDLED_ERRORS", "RAY_IGNORE_UNHANDLED_ERRORS")
_MOST_UNHEARD = 10_000
_TASKS_OWN = frozenset(["WorkerCrashedError", "OutOfMemoryError"])  # of the errors that the system makes


class UnhandledErrors:
    """Which refs of this process are somebody's business already, and the errors to report. Appending and discarding
    are atomic, so it needs no lock."""

    def __init__(self) -> None:
        self._handled: dict[bytes, None] = {}
        self._due: deque[bytes] = deque()

    def handle(self, object_id: bytes) -> None:
        """Its error was raised here; or the ref went into a task or a value, whose reader will meet the error."""
        self._handled[object_id[:]] = None  # plain bytes: an ObjectRef in here would keep its value alive

    def dropped(self, object_id: bytes, packed: object, is_pending: bool) -> None:
        """The last ref here is gone. `packed`: what had arrived; `is_pending`: of a task that may still fail."""
        if is_pending:  # what is known of it is needed until its news comes; of success there is none, so: not for ever
            if len(self._handled) > _MOST_UNHEARD:
                self._handled.pop(next(iter(self._handled)), None)
            return
        handled = object_id in self._handled
        self._handled.pop(object_id, None)
        if not handled and type(packed) is bytes and serialization.is_error(packed):
            self._due.append(packed)

    def is_due(self) -> bool:
        return bool(self._due)

    def report(self) -> None:
        """Log what is due, unless $REDRAY_IGNORE_UNHANDLED_ERRORS (or Ray's spelling of it) is 1."""
        while self._due:
            packed = self._due.popleft()
            if _is_a_tasks(packed) and not any(os.environ.get(name) == "1" for name in SUPPRESS):
                import logging

                logging.getLogger("redray").error(
                    "Unhandled error (suppress with %s=1): %s", SUPPRESS[0], _text(packed)
                )


def _is_a_tasks(packed: bytes) -> bool:
    """Not of a dead actor, a cancelled task or a lost value: those are the consequence of something known."""
    if packed[:1] != serialization.SYSTEM_ERROR:
        return True
    name = msgspec.msgpack.decode(memoryview(packed)[1:], type=list[object])[0]
    return name in _TASKS_OWN


def _text(packed: bytes) -> str:
    try:
        return str(serialization.load(packed)[1])
    except Exception as problem:  # unpickling and __str__ run user code, and this is only a log line
        return f"an error that cannot be shown here ({type(problem).__name__})"
