"""Tasks that a node has claimed and not yet sent to a worker, the most urgent first. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator

from redray.worker.workers import Attempt


class Backlog:
    """Ordered by priority, then depth of nesting (a blocked parent waits for it), then arrival."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int, Attempt]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Attempt]:
        return (entry[3] for entry in self._entries)

    def add(self, attempt: Attempt) -> None:
        self._arrivals += 1
        insort(self._entries, (-attempt.head.priority, -attempt.head.depth, self._arrivals, attempt))

    def drop(self, matches: Callable[[Attempt], bool]) -> list[Attempt]:
        """Take out what matches, and return it."""
        dropped = [attempt for attempt in self if matches(attempt)]
        if dropped:
            self._entries = [entry for entry in self._entries if not matches(entry[3])]
        return dropped

    def place(self, try_to: Callable[[Attempt], bool]) -> None:
        """Offer each in turn, and take out those for which `try_to` is true. Where one of a queue found no place, the
        rest of that queue would find none either."""
        refused: set[str] = set()
        waiting = []
        for entry in self._entries:
            attempt = entry[3]
            if attempt.queue in refused or not try_to(attempt):
                refused.add(attempt.queue)
                waiting.append(entry)
        self._entries = waiting

    def take_of(self, queue: str, kind: int) -> Attempt | None:
        """The first of a queue, if nothing of another queue stands before it, which could use the resources too."""
        if self._entries and self._entries[0][3].queue == queue and self._entries[0][3].head.kind == kind:
            return self._entries.pop(0)[3]
        return None
