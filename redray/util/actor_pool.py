"""A pool of actors that work off a list of values, each taking the next value when it is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from redray import api

if TYPE_CHECKING:
    from redray.actor import ActorHandle
    from redray.refs import ObjectRef

Submit = Callable[[Any, Any], Any]


class ActorPool:
    """Spread calls over `actors`, one at a time on each.

    A call is given as `fn(actor, value)`, which submits a method and returns its ref:

        pool = ActorPool([a, b])
        list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))  # [2, 4, 6]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle: list[ActorHandle] = list(actors)
        self._actor_of: dict[ObjectRef[Any], ActorHandle] = {}  # of running calls, in the order of submission
        self._waiting: deque[tuple[Submit, Any]] = deque()

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """The results for `values`, in their order. Calls start at once; results of earlier calls are forgotten."""
        return self._map(fn, values, self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As `map`, in the order in which results become ready."""
        return self._map(fn, values, self.get_next_unordered)

    def _map(self, fn: Submit, values: Iterable[Any], take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():  # the actors finish these calls before the new ones, but nobody gets to see the results
            self._release(next(iter(self._actor_of)))
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield take()

        return results()

    def submit(self, fn: Submit, value: Any) -> None:
        """Call `fn(actor, value)` on a free actor, or as soon as one is free."""
        if self._idle:
            actor = self._idle.pop()
            self._actor_of[fn(actor, value)] = actor
        else:
            self._waiting.append((fn, value))

    def has_next(self) -> bool:
        """Whether there are results to get."""
        return bool(self._actor_of)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the earliest call whose result was not taken.

        Args:
            timeout: seconds to wait for it.
            ignore_if_timedout: on a timeout give up the result, and use its actor for other calls.

        Raises:
            StopIteration: there are no more results.
            TimeoutError: it is not ready in time.
        """
        self._check_has_next()
        ref = next(iter(self._actor_of))
        ready, _ = api.wait([ref], timeout=timeout)
        if not ready:
            self._time_out(ref, ignore_if_timedout)
        self._release(ref)
        return api.get(ref)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result that is ready first; otherwise as `get_next`. On a timeout the earliest call is given up."""
        self._check_has_next()
        ready, pending = api.wait(list(self._actor_of), timeout=timeout)
        if not ready:
            self._time_out(pending[0], ignore_if_timedout)
        self._release(ready[0])
        return api.get(ready[0])

    def has_free(self) -> bool:
        """Whether an actor is free and no call waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Take a free actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor. Raises ValueError if the pool has it already."""
        if actor in self._idle or actor in self._actor_of.values():
            raise ValueError("Actor already belongs to current ActorPool")
        self._return(actor)

    def _check_has_next(self) -> None:
        if not self.has_next():
            raise StopIteration("No more results to get")

    def _time_out(self, ref: ObjectRef[Any], ignore: bool) -> NoReturn:
        text = "Timed out waiting for result"
        if ignore:
            self._release(ref)
            text += f". The task {ref} has been ignored."
        raise TimeoutError(text)

    def _release(self, ref: ObjectRef[Any]) -> None:
        self._return(self._actor_of.pop(ref))

    def _return(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())
