"""What becomes of the generator that a task's body returned: a stream of items, some fixed returns, or a ref of refs.

A generator's body runs only now, so all of this happens where user code may be interrupted and may fail.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any

from redray.generators import DynamicObjectRefGenerator
from redray.spec import STREAMING, TaskHead
from redray.store import serialization
from redray.worker.attempt import Failed, Who
from redray.worker.host import Host
from redray.worker.producer import Producer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_GENERATORS = (GeneratorType, AsyncGeneratorType)


def needs_iteration(head: TaskHead, value: Any) -> bool:
    """Whether the value is made by running the generator that the body returned."""
    return head.num_returns == STREAMING or type(value) in _GENERATORS or "dynamic" in head.options


class Returns:
    """Runs generators for one worker."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def iterate(
        self, head: TaskHead, attempt: int, value: Any, who: Who, calm: AbstractContextManager[Any] | None = None
    ) -> Any:
        """Run a generator to its end; what is to be returned in its place. Raises what the body raises, except where
        the items before it are returns of their own. In the main thread `calm` keeps interrupts away, so that an item
        on its way is sent whole or not at all."""
        items = iter(_checked(head, value))
        if head.num_returns != STREAMING:
            return self._collect(head, _until_error(items), who)
        with self._producing(head, attempt) as producer:
            if producer.must_wait():
                self._host.wait_for_producer(producer)
            for item in items:
                with calm or nullcontext():
                    producer.add(item)
                del item  # while the reader takes its time, only the store keeps it
                if producer.must_wait():
                    self._host.wait_for_producer(producer)
        return None

    async def iterate_async(self, head: TaskHead, attempt: int, value: Any, who: Who) -> Any:
        """The same on an event loop, for generators of both kinds."""
        import asyncio

        _checked(head, value)
        items = value if isinstance(value, AsyncGeneratorType) else _as_async(value)
        if head.num_returns != STREAMING:
            return self._collect(head, iter(await _gathered(head, items)), who)
        news, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._producing(head, attempt) as producer:
            producer.wake = lambda: loop.call_soon_threadsafe(news.set)
            await _wait(producer, news)
            async for item in items:
                producer.add(item)
                del item
                await _wait(producer, news)
        return None

    @contextmanager
    def _producing(self, head: TaskHead, attempt: int) -> Iterator[Producer]:
        producer = Producer(self._host, head, attempt)
        self._host.begin_producing(producer)
        try:
            yield producer
        finally:
            self._host.end_producing(producer)

    def _collect(self, head: TaskHead, items: Iterator[Any], who: Who) -> Any:
        if "dynamic" in head.options:
            return DynamicObjectRefGenerator([self._put(item, who) for item in items])
        count = head.num_returns
        found: list[Any] = []
        while len(found) < count:
            try:
                item = next(items)
            except StopIteration:
                item = Failed(ValueError(f"Task returned {len(found)} objects, but num_returns={count}."))
            found += [item] * (count - len(found) if isinstance(item, Failed) else 1)
        if count == 0:
            sys.stderr.write(f"{head.name}() has num_returns=0, so what it yields is dropped.\n")
        return found if count > 1 else found[0] if found else None

    def _put(self, item: Any, who: Who) -> Any:
        if isinstance(item, Failed):
            return self._host.put_packed(serialization.pack_error(who.wrap(item.error)))
        return self._host.put(item)


def _checked(head: TaskHead, value: Any) -> Any:
    if type(value) not in _GENERATORS:
        how = "dynamic" if "dynamic" in head.options else "streaming"
        raise ValueError(f'{head.name}() has num_returns="{how}" but returned no generator: {type(value).__name__}.')
    return value


def _until_error(items: Iterator[Any]) -> Iterator[Any]:
    """The items, and what the body raised as the last of them."""
    try:
        yield from items
    except Exception as error:  # of the user's: the items before it are returns of their own
        yield Failed(error)


async def _gathered(head: TaskHead, items: AsyncIterator[Any]) -> list[Any]:
    found: list[Any] = []
    try:
        async for item in items:
            found.append(item)
            if len(found) == head.num_returns and "dynamic" not in head.options:
                break
    except Exception as error:  # of the user's: the items before it are returns of their own
        found.append(Failed(error))
    return found


async def _as_async(items: Iterator[Any]) -> AsyncIterator[Any]:
    """A sync generator blocks its actor's loop while it makes an item, and lets others run between two."""
    import asyncio

    for item in items:
        yield item
        await asyncio.sleep(0)


async def _wait(producer: Producer, news: Any) -> None:
    while producer.must_wait():
        news.clear()
        if producer.must_wait():  # else what came before the line above would be waited for
            await news.wait()
