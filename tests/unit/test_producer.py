"""A generator inside a worker: what is sent of it, when it has to wait, and what becomes of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from redray.gcs.schema import Outcome
from redray.gcs.streams import GONE
from redray.generators import DynamicObjectRefGenerator
from redray.messages import StreamNews, Yielded
from redray.spec import STREAMING, unpack_head
from redray.store import serialization
from redray.worker.attempt import Who
from redray.worker.producer import WINDOW_BYTES, WINDOW_ITEMS, Producer
from redray.worker.returns import Returns
from tests.unit.fake_host import INLINE, FakeHost, result, run
from tests.unit.test_executor_tasks import execute


def head_of(**fields: Any) -> Any:
    return unpack_head(run("f", num_returns=STREAMING, **fields).spec)


def producer(host: FakeHost, attempt: int = 1, limit: int = 0) -> Producer:
    return Producer(host, head_of(options={"backpressure": limit}), attempt)


def sent(host: FakeHost) -> list[tuple[int, Any]]:
    """(number, value) of each item; () for a question."""
    found: list[tuple[int, Any]] = []
    for message in host.sent:
        if isinstance(message, Yielded):
            values = [item.inline for item in message.items]
            found += (
                [(message.first, serialization.load(value)[1]) for value in values if value] if values else [(0, ())]
            )
    return found


def news(producer: Producer, published: int, taken: int = 0, missing: int = 0) -> None:
    producer.hear(StreamNews(producer.task, published, taken, missing))


# ---- the producer ----------------------------------------------------------------------------------------------------
def test_items_are_numbered_and_sent_at_once() -> None:
    host = FakeHost()
    one = producer(host)
    for value in "ab":
        one.add(value)
        assert sent(host)[-1][1] == value
    assert sent(host) == [(1, "a"), (2, "b")]
    assert one.may_go_on()


def test_back_pressure_counts_what_was_taken() -> None:
    one = producer(FakeHost(), limit=2)
    one.add(1)
    assert one.may_go_on()
    one.add(2)
    assert one.must_wait() and one.is_ahead()
    news(one, 2)
    assert one.must_wait(), "published is not taken"
    news(one, 0, taken=1, missing=-1)
    assert one.may_go_on()


@pytest.mark.parametrize("size", [1, INLINE // 2])
def test_it_is_a_window_ahead_of_redis_at_most(size: int) -> None:
    one = producer(FakeHost())
    count = 0
    while one.may_go_on():
        one.add(b"x" * size)
        count += 1
    assert count == min(WINDOW_ITEMS, -(-WINDOW_BYTES // size)) or size > 1
    assert count * size < WINDOW_BYTES + INLINE and count <= WINDOW_ITEMS
    assert not one.is_ahead(), "it is Redis that it waits for"
    news(one, 1)
    assert one.may_go_on()


def test_nobody_reads_what_comes_after_the_reader_is_gone() -> None:
    host = FakeHost()
    one = producer(host, limit=1)
    one.add(1)
    news(one, 1, taken=GONE)
    for value in range(3):
        assert one.may_go_on()
        one.add(value)
    assert sent(host) == [(1, 1)]


def test_a_later_attempt_asks_and_passes_over_what_is_there() -> None:
    host = FakeHost()
    one = producer(host, attempt=2)
    one.open()
    assert sent(host) == [(0, ())] and one.must_wait()
    news(one, 0, taken=1, missing=-1)
    assert one.must_wait(), "that was of the reader only"
    news(one, 2, taken=1)
    for value in "abc":
        assert one.may_go_on()
        one.add(value)
    assert sent(host)[1:] == [(3, "c")]


@pytest.mark.parametrize("taken", [0, GONE])
def test_a_later_attempt_brings_all_again_when_one_is_missing(taken: int) -> None:
    host = FakeHost()
    one = producer(host, attempt=2)
    one.open()
    news(one, 2, taken=taken, missing=1)
    for value in "abc":
        one.add(value)
    assert sent(host)[1:] == [(1, "a"), (2, "b")] + [(3, "c")] * (taken != GONE)


# ---- the executor ----------------------------------------------------------------------------------------------------
def count(n: int, fails_at: int | None = None) -> Iterator[int]:
    for number in range(n):
        if number == fails_at:
            raise ValueError(f"no {number}")
        yield number


def test_a_stream_ends_in_none() -> None:
    host = FakeHost()
    (done,) = execute({"f": lambda: count(3)}, run("f", num_returns=STREAMING), host=host)
    assert sent(host) == [(1, 0), (2, 1), (3, 2)]
    assert (done.outcome, len(done.returns), result(done)) == (Outcome.VALUE, 1, None)


def test_an_error_follows_the_end() -> None:
    host = FakeHost()
    (done,) = execute({"f": lambda: count(3, 1)}, run("f", num_returns=STREAMING), host=host)
    assert sent(host) == [(1, 0)]
    assert done.outcome == Outcome.ERROR
    assert result(done) is None
    assert isinstance(result(done, 1).cause, ValueError)


def test_static_returns_are_the_first_items() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    (done,) = execute({"f": endless}, run("f", num_returns=2))
    assert [result(done, index) for index in (0, 1)] == [0, 1]
    assert closed == [True]


def test_static_returns_that_failed_are_errors() -> None:
    (done,) = execute({"f": lambda: count(3, 1)}, run("f", num_returns=3))
    assert done.outcome == Outcome.ERROR
    assert result(done, 0) == 0
    assert all(isinstance(result(done, index).cause, ValueError) for index in (1, 2))


def test_one_return_of_a_generator_that_yields_nothing() -> None:
    (done,) = execute({"f": lambda: count(0)}, run("f", num_returns=1))
    assert "Task returned 0 objects" in str(result(done).cause)


def test_dynamic_returns_are_refs() -> None:
    host = FakeHost()
    (done,) = execute({"f": lambda: count(3, 2)}, run("f", options={"dynamic": True}), host=host)
    found = result(done)
    assert isinstance(found, DynamicObjectRefGenerator)
    values = [host.values[ref.hex()] for ref in found]
    assert values[:2] == [(False, 0), (False, 1)]
    assert values[2][0] and isinstance(values[2][1].cause, ValueError)


def test_async_generators_are_waited_for_without_a_thread() -> None:
    host = FakeHost()
    head = head_of(options={"backpressure": 1})
    started: list[Producer] = []
    host.begin_producing = started.append  # type: ignore[method-assign]

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def read() -> None:
        running = asyncio.ensure_future(Returns(host).iterate_async(head, 1, items(), Who("f")))
        for taken in range(3):
            while len(sent(host)) <= taken:
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(sent(host)) == taken + 1
            news(started[0], taken + 1, taken + 1)
        assert await running is None

    asyncio.run(read())
