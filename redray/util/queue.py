"""A first-in-first-out queue that tasks, actors and drivers share. It lives in an actor of its own."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

from redray import api


class Empty(queue.Empty):
    """Nothing was in the queue, or not enough, or not in time."""


class Full(queue.Full):
    """There was no room in the queue, or not in time."""


class Queue:
    """Used like `queue.Queue`, by whoever has this object: pass it to tasks and actors as an argument.

    Args:
        maxsize: how many items fit; 0 or less: any number.
        actor_options: of the actor that holds the items, such as `{"name": "jobs", "lifetime": "detached"}`.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: Any = api.remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        return int(self._ask("qsize"))

    qsize = size

    def empty(self) -> bool:
        return self.size() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item.

        Args:
            block: wait for room; False raises at once if there is none.
            timeout: seconds to wait; None waits without end.

        Raises:
            Full: there is no room, or none in time.
            ValueError: the timeout is negative.
        """
        if block:
            self._ask("put", item, _checked(timeout))
        else:
            self._ask("put_nowait", item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; arguments as of `put`. Raises Empty if there is none, or none in time."""
        return self._ask("get", _checked(timeout)) if block else self._ask("get_nowait")

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines."""
        if block:
            await self._await("put", item, _checked(timeout))
        else:
            await self._await("put_nowait", item)

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """`get` for coroutines."""
        return await (self._await("get", _checked(timeout)) if block else self._await("get_nowait"))

    def put_nowait(self, item: Any) -> None:
        """Add an item, or raise Full."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items, or raise Full and add none."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        self._ask("put_nowait_batch", list(items))

    def get_nowait(self) -> Any:
        """Take the oldest item, or raise Empty."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take exactly `num_items`, or raise Empty and take none."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        items: list[Any] = self._ask("get_nowait_batch", num_items)
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor, and lose what is in it.

        Args:
            force: kill it at once; False: let it finish calls, and kill it after `grace_period_s` seconds.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            _, running = api.wait([actor.__ray_terminate__.remote()], timeout=grace_period_s)
            force = bool(running)
        if force:
            api.kill(actor, no_restart=True)

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return api.get(getattr(self.actor, method).remote(*args))
        except (Empty, Full) as error:  # an ordinary answer: no need for the traceback of an actor
            raise _plain(error) from None

    async def _await(self, method: str, *args: Any) -> Any:
        try:
            return await getattr(self.actor, method).remote(*args)
        except (Empty, Full) as error:
            raise _plain(error) from None


def _plain(error: Empty | Full) -> Empty | Full:
    text = str(getattr(error, "cause", error))
    return Empty(text) if isinstance(error, Empty) else Full(text)


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


class _QueueActor:
    """Async, so that any number of callers can wait in it at once."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    async def put(self, item: Any, timeout: float | None) -> None:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full(f"The queue still held {self.maxsize} items after {timeout} s.") from None

    async def get(self, timeout: float | None) -> Any:
        try:
            return await asyncio.wait_for(self.queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty(f"The queue was still empty after {timeout} s.") from None

    def put_nowait(self, item: Any) -> None:
        self.put_nowait_batch([item])

    def put_nowait_batch(self, items: list[Any]) -> None:
        if 0 < self.maxsize < self.qsize() + len(items):
            raise Full(f"The queue holds {self.qsize()} of {self.maxsize} items: {len(items)} more do not fit.")
        for item in items:
            self.queue.put_nowait(item)

    def get_nowait(self) -> Any:
        return self.get_nowait_batch(1)[0]

    def get_nowait_batch(self, count: int) -> list[Any]:
        if count > self.qsize():
            raise Empty(f"The queue holds {self.qsize()} items, not {count}.")
        return [self.queue.get_nowait() for _ in range(count)]
