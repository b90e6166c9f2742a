"""Generator methods of actors, sync, threaded and async; back-pressure: spec lines 65, 91 and 92."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorDiedError, RayActorError, TaskCancelledError
from tests.api.test_generators import drain
from tests.helpers import Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Counter:
    """Sync: one call at a time, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def count(self, n: int, fails_at: int | None = None, name: str = "") -> Iterator[int]:
        for number in range(n):
            if number == fails_at:
                raise KeyError(number)
            self.calls.append(name)
            yield number

    def note(self, name: str) -> list[str]:
        self.calls.append(name)
        return self.calls

    def crash(self, journal: Journal) -> Iterator[int]:
        import os

        yield 0
        wait_until(journal.lines, what="the reader to have the first item")
        os._exit(1)


@ray.remote
class AsyncCounter:
    async def count(self, n: int, fails_at: int | None = None) -> AsyncIterator[int]:
        for number in range(n):
            if number == fails_at:
                raise KeyError(number)
            await asyncio.sleep(0)
            yield number

    async def when_told(self, signal: Signal) -> AsyncIterator[int]:
        yield 0
        while not signal.is_set():
            await asyncio.sleep(0.01)
        yield 1

    def sync(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def ping(self) -> str:
        return "pong"


KINDS = {
    "sync": Counter,
    "threaded": Counter.options(max_concurrency=3),
    "async": AsyncCounter,
}


@pytest.mark.parametrize("flavour", KINDS)
def test_091_methods_stream_too(flavour: str) -> None:
    actor = KINDS[flavour].remote()
    generator = actor.count.remote(3)
    assert isinstance(generator, ray.ObjectRefGenerator)
    assert drain(generator) == [0, 1, 2]
    assert drain(actor.count.remote(3, 2)) == [0, 1, KeyError]
    assert drain(actor.count.remote(3, 0)) == [KeyError]
    assert drain(actor.count.remote(0)) == []


def test_a_sync_generator_of_an_async_actor() -> None:
    assert drain(AsyncCounter.remote().sync.remote(3)) == [0, 1, 2]


def test_065_a_generator_keeps_its_place_among_the_calls() -> None:
    actor = Counter.remote()
    actor.note.remote("before")
    generator = actor.count.remote(2, name="stream")
    after = actor.note.remote("after")
    assert ray.get(after) == ["before", "stream", "stream", "after"]
    assert drain(generator) == [0, 1]


@pytest.mark.parametrize("flavour", ["threaded", "async"])
def test_generators_of_one_actor_run_side_by_side(flavour: str, tmp_path: Any) -> None:
    @ray.remote(max_concurrency=4)
    class Threaded:
        def when_told(self, signal: Signal) -> Iterator[int]:
            yield 0
            signal.wait()
            yield 1

        def ping(self) -> str:
            return "pong"

    actor = Threaded.remote() if flavour == "threaded" else AsyncCounter.remote()
    signals = [Signal(tmp_path / str(number)) for number in range(2)]
    generators = [actor.when_told.remote(signal) for signal in signals]
    assert [ray.get(next(generator)) for generator in generators] == [0, 0]
    assert ray.get(actor.ping.remote()) == "pong"
    signals[1].set()
    assert drain(generators[1]) == [1]
    signals[0].set()
    assert drain(generators[0]) == [1]


def test_cancel_ends_an_async_generator(signal: Signal) -> None:
    actor = AsyncCounter.remote()
    generator = actor.when_told.remote(signal)
    assert ray.get(next(generator)) == 0
    ray.cancel(generator)
    assert drain(generator) == [TaskCancelledError]
    assert ray.get(actor.ping.remote()) == "pong"


def test_a_dead_actor_is_the_last_ref(journal: Journal) -> None:
    actor = Counter.remote()
    generator = actor.crash.remote(journal)
    assert ray.get(next(generator)) == 0
    journal.add("read")
    (ref,) = list(generator)
    with pytest.raises(RayActorError):
        ray.get(ref)
    assert drain(actor.count.remote(2)) == [ActorDiedError]


def test_static_and_dynamic_returns_of_methods() -> None:
    for actor in (Counter.remote(), AsyncCounter.remote()):
        assert ray.get(actor.count.options(num_returns=2).remote(5)) == [0, 1]
        refs = ray.get(actor.count.options(num_returns="dynamic").remote(3, 2))
        assert drain(refs) == [0, 1, KeyError]


def test_an_actor_reads_generators_with_async_for() -> None:
    @ray.remote
    class Reader:
        async def total(self, other: Any, n: int) -> int:
            found = 0
            async for ref in other.count.remote(n):
                found += await ref
            return found

    assert ray.get(Reader.remote().total.remote(Counter.remote(), 10)) == 45


# ---- back-pressure ---------------------------------------------------------------------------------------------------
def test_092_zero_is_refused_and_none_is_off() -> None:
    def items() -> Iterator[int]:
        yield from range(3)

    with pytest.raises(ValueError, match="_generator_backpressure_num_objects"):
        ray.remote(_generator_backpressure_num_objects=0)(items)
    with pytest.raises(ValueError, match="_generator_backpressure_num_objects"):
        ray.remote(items).options(_generator_backpressure_num_objects=0)
    for off in (None, -1):
        assert drain(ray.remote(_generator_backpressure_num_objects=off)(items).remote()) == [0, 1, 2]


def made(journal: Journal, n: int) -> Iterator[int]:
    for number in range(n):
        journal.add(number)
        yield number


@ray.remote
class Maker:
    def made(self, journal: Journal, n: int) -> Iterator[int]:
        yield from made(journal, n)

    def ping(self) -> str:
        return "pong"


@ray.remote
class AsyncMaker:
    async def made(self, journal: Journal, n: int) -> AsyncIterator[int]:
        for number in range(n):
            journal.add(number)
            yield number

    async def ping(self) -> str:
        return "pong"


def start_making(flavour: str, limit: int, journal: Journal, n: int) -> Any:
    if flavour == "task":
        return ray.remote(made).options(_generator_backpressure_num_objects=limit).remote(journal, n)
    classes = {"sync": Maker, "threaded": Maker.options(max_concurrency=2), "async": AsyncMaker}
    actor = classes[flavour].remote()
    return actor.made.options(_generator_backpressure_num_objects=limit).remote(journal, n)


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("flavour", ["task", "sync", "threaded", "async"])
def test_092_the_producer_is_at_most_so_many_items_ahead(flavour: str, limit: int, journal: Journal) -> None:
    generator = start_making(flavour, limit, journal, 8)
    for taken in range(8):
        expected = min(8, taken + limit)
        wait_until(lambda: len(journal.lines()) >= expected, what=f"{expected} items")  # noqa: B023
        time.sleep(0.02)  # for one too many
        assert len(journal.lines()) == expected
        assert ray.get(next(generator)) == taken
    assert drain(generator) == []


@pytest.mark.parametrize("flavour", ["task", "async"])
def test_092_a_producer_does_not_wait_for_a_reader_that_is_gone(flavour: str, journal: Journal) -> None:
    generator = start_making(flavour, 1, journal, 5)
    ray.get(next(generator))
    del generator
    wait_until(lambda: len(journal.lines()) == 5, what="the producer to go on to its end")


def test_092_a_waiting_producer_lends_its_cpus() -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def items() -> Iterator[int]:
        yield from range(3)

    @ray.remote
    def double(number: int) -> int:
        return 2 * number

    generators = [items.remote(), items.remote()]  # which have every CPU
    first = [next(generator) for generator in generators]
    assert ray.get([double.remote(ref) for ref in first]) == [0, 0]
    for generator in generators:
        assert [ray.get(double.remote(ref)) for ref in generator] == [2, 4]


def test_092_a_waiting_producer_can_be_cancelled(journal: Journal) -> None:
    generator = start_making("task", 1, journal, 5)
    ray.get(next(generator))
    wait_until(lambda: len(journal.lines()) == 2, what="the second item")
    ray.cancel(generator)
    assert drain(generator) == [1, TaskCancelledError]


def test_092_many_streams_of_an_async_actor_wait_at_once(tmp_path: Any) -> None:
    """More than an event loop has threads."""
    actor = AsyncMaker.remote()
    journal = Journal(tmp_path / "journal")
    method = actor.made.options(_generator_backpressure_num_objects=1)
    generators = [method.remote(journal, 3) for _ in range(60)]
    assert ray.get(actor.ping.remote()) == "pong"
    assert [drain(generator) for generator in reversed(generators)] == [[0, 1, 2]] * 60


def test_092_reading_from_another_thread(journal: Journal) -> None:
    generator = start_making("task", 2, journal, 20)
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(drain(generator)))
    reader.start()
    reader.join(30)
    assert found == list(range(20))
