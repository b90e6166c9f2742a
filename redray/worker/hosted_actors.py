"""The actors that live on a node: whose call may go to the actor's worker next. Pure.

A caller's calls start in the order it made them, and one whose argument is not ready holds back its own caller only. A
call that comes through Redis comes in that order; one that takes the short way (its caller is on this node) says its
number, and waits while earlier ones are still on their way through Redis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from redray.worker.workers import Attempt


class Caller:
    """`last` is the number of the last call that was lined up; `early` are calls that overtook earlier ones."""

    __slots__ = ("early", "last", "line")

    def __init__(self, last: int) -> None:
        self.last = last
        self.line: deque[Attempt] = deque()
        self.early: dict[int, Attempt] = {}

    def _admit(self, attempt: Attempt) -> None:
        self.line.append(attempt)
        self.last = max(self.last, attempt.head.sequence)
        while self.early and (following := self.early.pop(self.last + 1, None)) is not None:
            self.line.append(following)
            self.last += 1

    def line_up(self, attempt: Attempt) -> None:
        """A call from Redis: it is in order by itself."""
        self._admit(attempt)

    def line_up_local(self, attempt: Attempt) -> None:
        if attempt.head.sequence <= self.last + 1:
            self._admit(attempt)
        else:
            self.early[attempt.head.sequence] = attempt


class HostedActor:
    """An actor and the worker that is its body."""

    __slots__ = (
        "alive",
        "attempt",
        "callers",
        "cause",
        "creation",
        "final",
        "id",
        "ordered",
        "restart",
        "retiring",
        "serial",
        "worker",
    )

    def __init__(self, creation: Attempt, worker: str) -> None:
        self.id = creation.task
        self.creation = creation
        self.attempt = creation.attempt
        self.worker = worker
        self.alive = False  # Redis knows that it lives here, and has handed over what waited for it
        self.retiring = False
        # 1: its end is wanted, 2: its constructor raised, 3: it has no environment; then it is not restarted.
        self.final = 0
        self.cause = ""
        options = creation.head.options
        self.serial = (  # one call at a time, in the main thread of its process
            not options.get("is_async")
            and int(options.get("max_concurrency") or 1) == 1
            and not options.get("concurrency_groups")
        )
        self.ordered = self.serial and not options.get(
            "out_of_order"
        )  # a caller's calls start in the order it made them
        self.callers: dict[str, Caller] = {}

    def caller(self, worker: str) -> Caller:
        caller = self.callers.get(worker)
        if caller is None:
            caller = self.callers[worker] = Caller(0)
        return caller

    def come_alive(self) -> None:
        """What waited in Redis has been handed over. A call that came here by itself meanwhile was made later, or came
        too late for an earlier life of the actor: only the numbers tell."""
        self.alive = True
        for caller in self.callers.values():
            caller.line = deque(sorted(caller.line, key=lambda attempt: attempt.head.sequence))

    def method(self, attempt: Attempt) -> str:
        """What run times of this call are kept under."""
        return self.creation.head.function + attempt.head.function

    def sendable(self, may_go: Callable[[Attempt], bool]) -> Iterator[Attempt]:
        """Take from the callers' lines, in turn, the calls that may start now:
        who has called often must not starve others."""
        if not self.serial:
            for caller in self.callers.values():
                ready = [attempt for attempt in caller.line if may_go(attempt)]
                caller.line = deque(attempt for attempt in caller.line if attempt not in ready)
                yield from ready
            return
        waiting = [id for id, caller in self.callers.items() if caller.line]
        while waiting:
            waiting = [id for id in waiting if self._next(id, may_go) is not None]
            for id in waiting:
                attempt = self._next(id, may_go)
                if attempt is not None:
                    self.callers[id] = self.callers.pop(id)  # it had its turn
                    self.callers[id].line.remove(attempt)
                    yield attempt

    def _next(self, id: str, may_go: Callable[[Attempt], bool]) -> Attempt | None:
        """The call of this caller that may start now."""
        line = self.callers[id].line
        candidates: Iterable[Attempt] = islice(line, 1) if self.ordered else line
        return next((attempt for attempt in candidates if may_go(attempt)), None)

    def drain(self) -> list[Attempt]:
        """All calls that were never sent, in order."""
        calls: list[Attempt] = []
        for caller in self.callers.values():
            calls.extend(caller.line)
            calls.extend(attempt for _, attempt in sorted(caller.early.items()))
        self.callers.clear()
        return calls

    def take_early(self, job: str) -> list[Attempt]:
        """Calls of a job that wait for earlier ones of their caller."""
        taken = []
        for caller in self.callers.values():
            taken += [attempt for attempt in caller.early.values() if attempt.head.job == job]
            caller.early = {number: attempt for number, attempt in caller.early.items() if attempt.head.job != job}
        return taken

    def is_quiet(self) -> bool:
        return not any(caller.line or caller.early for caller in self.callers.values())
