"""What a pool's calls give: results that are not there yet, with the interface of `multiprocessing.pool`."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import TimeoutError
from typing import Any

from redray.util.multiprocessing.crew import Failure


class AsyncResult:
    """The results of `chunks` chunks of calls, in order; of a single call if `single`.

    `callback` gets the result, or `error_callback` the first error, in a thread of the pool.
    """

    def __init__(
        self,
        chunks: int,
        single: bool = False,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> None:
        self._parts: list[list[Any] | Failure | None] = [None] * chunks
        self._missing = chunks
        self._single = single
        self._callback, self._error_callback = callback, error_callback
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        if not chunks:
            self._finish()

    def wait(self, timeout: float | None = None) -> None:
        """Until it is there, or `timeout` seconds are over."""
        self._done.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result. Raises what the call raised, the first of several; multiprocessing.TimeoutError if it is not
        there in `timeout` seconds."""
        if not self._done.wait(timeout):
            raise TimeoutError(f"the result is not there after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value

    def ready(self) -> bool:
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether no call raised. Raises ValueError while it is not known."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def deliver(self, index: int, results: list[Any] | Failure) -> None:
        with self._lock:
            if self._parts[index] is not None:
                return
            self._parts[index] = results
            self._missing -= 1
            if self._missing:
                return
        self._finish()

    def _finish(self) -> None:
        results: list[Any] = []
        for part in self._parts:
            results += [part] if isinstance(part, Failure) else part or []
        self._parts = []
        self._error = next((result.error for result in results if isinstance(result, Failure)), None)
        if self._error is None:
            self._value = results[0] if self._single else results
        try:
            if self._error is None and self._callback is not None:
                self._callback(self._value)
            elif self._error is not None and self._error_callback is not None:
                self._error_callback(self._error)
        except Exception:  # nobody waits for it, and the pool must go on
            logging.getLogger("redray").exception("A callback of a Pool raised.")
        self._done.set()


class _Place:
    """Where the results of a chunk go. Compared by identity: two that wait look the same."""

    __slots__ = ("results",)

    def __init__(self) -> None:
        self.results: Any = None


class ResultIterator(Iterator[Any]):
    """Results of calls that are submitted as they are consumed, so the arguments may come from an endless iterator.

    Args:
        submit: submits the next chunk, to be delivered to its argument, and says whether there was one; what it raises
            is raised when its turn comes, and ends the results.
        ahead: how many chunks are under way before their results are asked for.
        ordered: whether results come in the order of the arguments.
    """

    def __init__(self, submit: Callable[[Callable[[Any], None]], bool], ahead: int, ordered: bool) -> None:
        self._submit, self._ordered = submit, ordered
        self._changed = threading.Condition()
        self._places: deque[_Place] = deque()  # of chunks, in the order of submission
        self._taken: deque[Any] = deque()  # results of the chunk that was taken last
        self._more = True
        for _ in range(ahead):
            self._go_on()

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result; multiprocessing.TimeoutError if it is not there in `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._taken:
            part = self._take(deadline)
            self._taken.extend([part] if isinstance(part, Failure) else part)
            self._go_on()
        result = self._taken.popleft()
        if isinstance(result, Failure):
            raise result.error
        return result

    def _take(self, deadline: float | None) -> Any:
        with self._changed:
            while True:
                if not self._places:
                    raise StopIteration
                candidates = [self._places[0]] if self._ordered else self._places
                found = next((place for place in candidates if place.results is not None), None)
                if found is not None:
                    self._places.remove(found)
                    return found.results
                patience = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._changed.wait(patience) and patience is not None:
                    raise TimeoutError("the next result is not there yet")

    def _go_on(self) -> None:
        if not self._more:
            return
        place = _Place()

        def deliver(results: Any) -> None:
            with self._changed:
                place.results = results
                self._changed.notify_all()

        with self._changed:
            self._places.append(place)
        try:
            self._more = self._submit(deliver)
        except Exception as error:
            self._more = False
            deliver(Failure(error))
            return
        if not self._more:
            with self._changed:
                self._places.remove(place)
