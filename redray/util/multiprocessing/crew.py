"""The actors of a pool, and the thread that hands each of them its next chunk when it is free."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from redray import api
from redray.exceptions import RayActorError, RayError
from redray.refs import ObjectRef

_KEPT_FUNCTIONS = 16  # per actor: those of the last calls of map


class Failure:
    """Stands in a chunk's results for a call that raised `error`: the other calls of the chunk keep their results."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Chunk:
    """Calls that one actor makes one after the other.

    Args:
        function: the function; or a list with a ref to it, for functions that many chunks share.
        calls: arguments of each call.
        deliver: takes the list of results, which may hold `Failure`, or one `Failure` for all. Called once, in the
            pool's thread.
    """

    __slots__ = ("calls", "deliver", "function")

    def __init__(
        self,
        function: Any,
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
        deliver: Callable[[list[Any] | Failure], None],
    ) -> None:
        self.function, self.calls, self.deliver = function, calls, deliver


class Process:
    """The actor. Not decorated: the crew chooses its options."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: Iterable[Any]) -> None:
        self._functions: OrderedDict[ObjectRef[Any], Callable[..., Any]] = OrderedDict()
        self._initialized: dict[str, Any] = {}
        if initializer is not None:
            scope = getattr(initializer, "__globals__", {})
            before = dict(scope)
            initializer(*initargs)
            self._initialized = {
                name: value for name, value in scope.items() if name not in before or before[name] is not value
            }

    def ping(self) -> None:
        """Answers when the initializer is through."""

    def run(self, function: Any, calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        function = self._ready(function)
        results: list[Any] = []
        for args, kwargs in calls:
            try:
                results.append(function(*args, **kwargs))
            except Exception as error:
                results.append(Failure(error))
        return results

    def _ready(self, function: Any) -> Callable[..., Any]:
        """The function, able to see what the initializer made global.

        A function of the main program arrives by value, with global variables of its own.
        """
        if isinstance(function, list):
            ref = function[0]
            if ref not in self._functions:
                self._functions[ref] = self._see_globals(api.get(ref))
                while len(self._functions) > _KEPT_FUNCTIONS:
                    self._functions.popitem(last=False)
            return self._functions[ref]
        return self._see_globals(function)

    def _see_globals(self, function: Any) -> Callable[..., Any]:
        inner = function
        while hasattr(inner, "func") and hasattr(inner, "args"):  # functools.partial
            inner = inner.func
        if self._initialized and getattr(inner, "__module__", None) == "__main__":
            getattr(inner, "__globals__", {}).update(self._initialized)
        if hasattr(function, "remote"):
            return lambda *args, **kwargs: api.get(function.remote(*args, **kwargs))
        done: Callable[..., Any] = function
        return done


class _Member:
    """One actor, the calls it may still take (-1: any number), and the chunk it works on."""

    def __init__(self, actor: Any, chunks_left: int) -> None:
        self.actor, self.chunks_left = actor, chunks_left
        self.chunk: Chunk | None = None


class Crew:
    """`size` actors. Chunks wait in one line, so that a slow one delays nobody who could go elsewhere.

    Args:
        max_chunks: after so many an actor is replaced by a fresh one; None: never.
        options: of the actors.
    """

    def __init__(
        self,
        size: int,
        initializer: Callable[..., Any] | None,
        initargs: Iterable[Any],
        max_chunks: int | None,
        options: dict[str, Any],
    ) -> None:
        self._class = api.remote(Process).options(**{"num_cpus": 0, "scheduling_strategy": "SPREAD", **options})
        self._arguments = (initializer, tuple(initargs))
        self._max_chunks = max_chunks if max_chunks is not None else -1
        self._lock = threading.Lock()
        self._waiting: deque[Chunk] = deque()
        self._events: queue.SimpleQueue[tuple[_Member, Any] | None] = queue.SimpleQueue()
        self._closing = self._stopped = False
        self._members = [self._hire() for _ in range(size)]
        self._idle = list(self._members)
        try:
            api.get([member.actor.ping.remote() for member in self._members])
        except BaseException:
            self._kill()
            raise
        self._thread = threading.Thread(target=self._work, name="redray-pool", daemon=True)
        self._thread.start()

    # ---- what the pool asks ------------------------------------------------------------------------------------------
    def submit(self, chunk: Chunk) -> None:
        with self._lock:
            if self._stopped:
                raise ValueError("Pool not running")
            if self._idle:
                self._give(self._idle.pop(), chunk)
            else:
                self._waiting.append(chunk)

    def close(self) -> None:
        """Take no more work; the actors go when they are through."""
        self._closing = True
        self._events.put(None)

    def terminate(self) -> None:
        """Kill the actors. What they had not finished fails with RayActorError."""
        with self._lock:
            if self._stopped:
                return
            self._closing = self._stopped = True
            left = [*self._waiting, *(member.chunk for member in self._members if member.chunk is not None)]
            self._waiting.clear()
            self._kill()
        self._events.put(None)
        for chunk in left:
            chunk.deliver(Failure(RayActorError(error_msg="The pool was terminated before it had done this.")))

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    # ---- the thread --------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        while not (self._closing and self._is_through()):
            event = self._events.get()
            if event is not None:
                self._finished(*event)
        with self._lock:
            self._stopped = True
            self._kill()  # nothing is left to kill after terminate()

    def _is_through(self) -> bool:
        with self._lock:
            return self._stopped or (not self._waiting and len(self._idle) == len(self._members))

    def _finished(self, member: _Member, future: Any) -> None:
        error = future.exception()
        with self._lock:
            chunk, member.chunk = member.chunk, None
            if self._stopped or chunk is None:
                return  # terminate() has told whoever waits
            if (isinstance(error, RayActorError) or member.chunks_left == 0) and api.is_initialized():
                member = self._replace(member)
            if self._waiting:
                self._give(member, self._waiting.popleft())
            else:
                self._idle.append(member)
        chunk.deliver(future.result() if error is None else Failure(error))

    # ---- the actors --------------------------------------------------------------------------------------------------
    def _hire(self) -> _Member:
        return _Member(self._class.remote(*self._arguments), self._max_chunks)

    def _replace(self, member: _Member) -> _Member:
        """Its actor ends with its last handle."""
        fresh = self._hire()
        self._members[self._members.index(member)] = fresh
        return fresh

    def _give(self, member: _Member, chunk: Chunk) -> None:
        member.chunk = chunk
        member.chunks_left -= 1
        try:
            _check_session()
            future = member.actor.run.remote(chunk.function, chunk.calls).future()
        except Exception as error:  # arguments that cannot be pickled, or the cluster is gone: the result says so
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda future: self._events.put((member, future)))

    def _kill(self) -> None:
        members, self._members, self._idle = self._members, [], []
        with contextlib.suppress(RayError, RuntimeError, ConnectionError):  # the session is over, and they with it
            for member in members:
                _check_session()
                api.kill(member.actor)


def _check_session() -> None:
    """A call after `shutdown` would begin a cluster of its own."""
    if not api.is_initialized():
        raise RuntimeError("redray was shut down.")


def grouped(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Lists of `size` items, the last one with what is left."""
    source = iter(items)
    while group := list(itertools.islice(source, size)):
        yield group
