"""Generator tasks, as their reader sees them: spec lines 17, 28, 34, 43 and 91 to 93."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError
from tests.api.conftest import IS_RAY
from tests.helpers import Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

CLUSTER_OPTIONS = {"object_store_memory": 120_000_000}
LARGE = 1_000_000


@ray.remote
def count(n: int, fails_at: int | None = None) -> Iterator[int]:
    for number in range(n):
        if number == fails_at:
            raise ValueError(f"no {number}")
        yield number


@ray.remote
def count_when_told(signals: list[Signal]) -> Iterator[int]:
    for number, signal in enumerate(signals):
        signal.wait()
        yield number


def drain(generator: Any) -> list[Any]:
    """The value of each ref, or the class of what it raised."""
    found = []
    for ref in generator:
        try:
            found.append(ray.get(ref))
        except Exception as error:
            found.append(type(error.cause) if isinstance(error, RayTaskError) else type(error))
    return found


@pytest.fixture
def nothing_is_left(address: str) -> Callable[[], None]:
    """A function that waits until no work, value or key of any work is left in Redis."""

    def wait() -> None:
        if IS_RAY:
            return
        from redray.gcs.audit import audit
        from redray.gcs.client import Connection
        from redray.gcs.keys import Keys

        def clean() -> bool:
            gc.collect()
            findings[:] = audit(connection, Keys(), at_rest=True)
            return not findings

        findings: list[str] = []
        with contextlib.closing(Connection.open(address)) as connection:
            try:
                wait_until(clean, 10, "Redis to hold nothing of any work")
            except AssertionError:
                raise AssertionError("\n".join(findings)) from None

    return wait


# ---- what comes ------------------------------------------------------------------------------------------------------
def test_017_a_generator_function_streams_by_default() -> None:
    generator = count.remote(3)
    assert isinstance(generator, ray.ObjectRefGenerator)
    refs = list(generator)
    assert all(type(ref) is ray.ObjectRef for ref in refs)
    assert ray.get(refs) == [0, 1, 2]
    assert isinstance(count.options(num_returns="streaming").remote(1), ray.ObjectRefGenerator)
    assert isinstance(count.options(num_returns=None).remote(1), ray.ObjectRefGenerator)


def test_017_streaming_is_for_generators_only() -> None:
    @ray.remote
    def plain() -> int:
        return 1

    with pytest.raises(ValueError, match="generator"):
        plain.options(num_returns="streaming").remote()


def test_091_an_empty_generator_ends_at_once() -> None:
    assert drain(count.remote(0)) == []


@pytest.mark.parametrize("fails_at", [0, 2])
def test_091_an_error_is_one_more_ref_and_then_the_end(fails_at: int) -> None:
    generator = count.remote(5, fails_at)
    refs = list(generator)
    assert ray.get(refs[:-1]) == list(range(fails_at))
    with pytest.raises(ValueError, match=f"no {fails_at}") as caught:
        ray.get(refs[-1])
    assert isinstance(caught.value, RayTaskError)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(generator)


def test_091_what_cannot_be_pickled_is_an_error_in_its_place() -> None:
    @ray.remote
    def locks() -> Iterator[Any]:
        import threading

        yield 1
        yield threading.Lock()
        yield 3

    assert drain(locks.remote()) == [1, TypeError]


def test_091_the_producer_runs_ahead_to_its_end(signal: Signal) -> None:
    @ray.remote
    def run() -> Iterator[int]:
        yield from range(1000)
        signal.set()

    generator = run.remote()
    signal.wait()
    assert drain(generator) == list(range(1000))


def test_091_items_come_while_the_generator_still_runs(tmp_path: Any) -> None:
    signals = [Signal(tmp_path / str(number)) for number in range(3)]
    generator = count_when_told.remote(signals)
    for number, signal in enumerate(signals):
        assert not generator.next_ready()
        signal.set()
        assert ray.get(next(generator)) == number
    with pytest.raises(StopIteration):
        next(generator)


def test_091_a_failed_argument_is_the_only_ref() -> None:
    failed = count.options(num_returns=1).remote(1, 0)
    assert drain(count.remote(failed)) == [ValueError]


def test_large_and_middle_sized_items() -> None:
    @ray.remote
    def sizes(*lengths: int) -> Iterator[bytes]:
        for length in lengths:
            yield bytes([length % 251]) * length

    lengths = (1, 5_000, 90_000, LARGE, 3 * LARGE)
    found = [ray.get(ref) for ref in sizes.remote(*lengths)]
    assert found == [bytes([length % 251]) * length for length in lengths]


def test_items_may_contain_refs_and_be_arguments() -> None:
    @ray.remote
    def pairs() -> Iterator[list[Any]]:
        for number in range(3):
            yield [ray.put(number), number]

    @ray.remote
    def both(pair: list[Any]) -> int:
        return int(ray.get(pair[0])) + int(pair[1])

    assert ray.get([both.remote(ref) for ref in pairs.remote()]) == [0, 2, 4]


def test_generators_of_generators() -> None:
    @ray.remote
    def doubled(n: int) -> Iterator[int]:
        for ref in count.remote(n):
            yield 2 * ray.get(ref)

    generators = [doubled.remote(4), doubled.remote(4)]  # which have every CPU, and lend it while they wait
    assert [drain(generator) for generator in generators] == [[0, 2, 4, 6]] * 2


def test_many_items_that_nobody_reads_meanwhile() -> None:
    """More than an inbox holds: the reader asks for what it has missed."""
    generator = count.remote(12_000)
    ray.get(generator.completed())
    assert ray.get(list(generator)) == list(range(12_000))


@pytest.mark.differs_from_ray("there is no Redis to lose")
def test_items_come_once_whatever_connection_breaks(address: str) -> None:
    from redray.gcs.client import Connection

    @ray.remote
    def slowly() -> Iterator[int]:
        for number in range(300):
            time.sleep(0.001)
            yield number

    found = []
    with contextlib.closing(Connection.open(address)) as connection:
        for ref in slowly.remote():
            found.append(ray.get(ref))
            if len(found) % 30 == 0:
                connection.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert found == list(range(300))


# ---- completed, next_ready, is_finished ------------------------------------------------------------------------------
def test_completed_is_none_even_after_an_error_of_the_body() -> None:
    fine, failing = count.remote(2), count.remote(2, 1)
    assert ray.get([fine.completed(), failing.completed()]) == [None, None]
    assert fine.completed() == fine.completed()
    assert drain(fine) == [0, 1]
    assert drain(failing) == [0, ValueError]


def test_completed_waits_for_the_end(signal: Signal) -> None:
    generator = count_when_told.remote([signal])
    assert ray.wait([generator.completed()], timeout=0.2) == ([], [generator.completed()])
    signal.set()
    assert ray.get(generator.completed()) is None


def test_is_finished_and_next_ready(signal: Signal) -> None:
    generator = count_when_told.remote([signal])
    assert (generator.next_ready(), generator.is_finished()) == (False, False)
    signal.set()
    wait_until(generator.next_ready if IS_RAY else lambda: ray.wait([generator], timeout=0)[0], what="the item")
    assert generator.next_ready() and not generator.is_finished()
    next(generator)
    ray.get(generator.completed())
    wait_until(generator.is_finished, what="the generator to know that it is finished")
    assert not generator.next_ready()


def test_next_with_a_timeout_gives_a_nil_ref(signal: Signal) -> None:
    generator = count_when_told.remote([signal])
    assert generator._next_sync(timeout_s=0).is_nil()
    signal.set()
    assert ray.get(generator._next_sync(timeout_s=30)) == 0


# ---- get, wait, await ------------------------------------------------------------------------------------------------
def test_028_get_of_a_generator_is_the_generator() -> None:
    generator = count.remote(1)
    assert ray.get(generator) is generator
    with pytest.raises(TypeError):
        ray.get([generator])


def test_034_wait_tells_when_the_next_item_is_ready(tmp_path: Any) -> None:
    signals = [Signal(tmp_path / str(number)) for number in range(2)]
    generator = count_when_told.remote(signals)
    for signal in signals:
        assert ray.wait([generator], timeout=0.1) == ([], [generator])
        signal.set()
        assert ray.wait([generator], timeout=30) == ([generator], [])
        next(generator)


def test_034_wait_for_the_end_and_after_it() -> None:
    generator = count.remote(0)
    assert ray.wait([generator], timeout=30) == ([generator], [])
    assert list(generator) == []
    assert ray.wait([generator], timeout=0) == ([generator], [])


def test_034_wait_takes_refs_and_generators_together(signal: Signal) -> None:
    late, early = count_when_told.remote([signal]), count.remote(1)
    ref = ray.put(1)
    assert ray.wait([late, early, ref], num_returns=2, timeout=30) == ([early, ref], [late])
    assert ray.wait([late, early, ref], num_returns=1, timeout=30) == ([early], [late, ref])
    assert ray.wait([late, ref], num_returns=2, timeout=0.1) == ([ref], [late])
    with pytest.raises(ValueError, match="unique"):
        ray.wait([early, early], num_returns=2)
    signal.set()


def test_async_for() -> None:
    async def read() -> list[Any]:
        found: list[Any] = []
        generator = count.remote(4, 3)
        async for ref in generator:
            try:
                found.append(await ref)
            except ValueError:
                found.append(ValueError)
        with pytest.raises(StopAsyncIteration):
            await generator.__anext__()
        return found

    assert asyncio.run(read()) == [0, 1, 2, ValueError]


def test_async_for_lets_other_coroutines_run(tmp_path: Any) -> None:
    signals = [Signal(tmp_path / str(number)) for number in range(3)]

    async def read(generator: Any) -> AsyncIterator[int]:
        async for ref in generator:
            yield await ref

    async def both() -> list[int]:
        found = []
        items = read(count_when_told.remote(signals))
        for signal in signals:
            coming = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0.02)
            assert not coming.done()
            signal.set()
            found.append(await asyncio.wait_for(coming, 30))
        return found

    assert asyncio.run(both()) == [0, 1, 2]


# ---- 93: what it does not do -----------------------------------------------------------------------------------------
def test_093_it_cannot_be_pickled_or_passed() -> None:
    @ray.remote
    def take(value: Any) -> None:
        pass

    generator = count.remote(1)
    for refuses in (
        lambda: pickle.dumps(generator),
        lambda: ray.cloudpickle.dumps(generator),
        lambda: ray.put(generator),
        lambda: take.remote(generator),
        lambda: take.remote([generator]),
    ):
        with pytest.raises(TypeError):
            refuses()
    assert drain(generator) == [0]


def test_093_it_has_no_send_throw_or_close() -> None:
    generator = count.remote(1)
    for name, arguments in (("send", (1,)), ("throw", (ValueError(),)), ("close", ())):
        with pytest.raises(NotImplementedError, match=f"`gen.{name}` is not supported."):
            getattr(generator, name)(*arguments)

    async def call(name: str, *arguments: Any) -> None:
        await getattr(generator, name)(*arguments)

    for name, arguments in (("asend", (1,)), ("athrow", (ValueError(),)), ("aclose", ())):
        with pytest.raises(NotImplementedError, match=f"`gen.{name}` is not supported."):
            asyncio.run(call(name, *arguments))
    assert iter(generator) is generator and generator.__aiter__() is generator


# ---- 43: the end of a generator --------------------------------------------------------------------------------------
@pytest.mark.parametrize("read", [0, 2])
@pytest.mark.parametrize("size", [1, LARGE])
def test_043_unread_items_go_with_the_generator(
    read: int, size: int, nothing_is_left: Callable[[], None], signal: Signal
) -> None:
    @ray.remote
    def blobs() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * size
        signal.wait()
        yield b"late" * size

    generator = blobs.remote()
    for _ in range(read):
        ray.get(next(generator))
    del generator
    signal.set()
    nothing_is_left()


def test_043_items_that_were_read_stay(nothing_is_left: Callable[[], None]) -> None:
    generator = count.remote(100)
    refs = [next(generator) for _ in range(2)]
    ray.get(generator.completed())
    del generator
    gc.collect()
    time.sleep(0.2)  # for what must not happen
    assert ray.get(refs) == [0, 1]
    del refs
    nothing_is_left()


def test_043_many_unread_items_go_without_having_been_heard_of(nothing_is_left: Callable[[], None]) -> None:
    @ray.remote
    def flood(signal: Signal) -> Iterator[int]:
        yield from range(3000)
        signal.set()

    generator = flood.remote(Signal("/dev/null"))
    next(generator)
    del generator
    nothing_is_left()


def test_a_cancelled_generator_ends_with_a_ref_that_says_so(tmp_path: Any, nothing_is_left: Callable[[], None]) -> None:
    signals = [Signal(tmp_path / str(number)) for number in range(2)]
    signals[0].set()
    generator = count_when_told.remote(signals)
    assert ray.get(next(generator)) == 0
    ray.cancel(generator)
    (ref,) = list(generator)
    with pytest.raises(TaskCancelledError):
        ray.get(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(generator.completed())
    del ref, generator
    nothing_is_left()


def test_a_crash_is_one_more_ref(journal: Journal) -> None:
    @ray.remote(max_retries=0)
    def crash() -> Iterator[int]:
        import os

        yield 1
        wait_until(lambda: journal.lines(), what="the reader to have the first item")
        os._exit(3)

    generator = crash.remote()
    assert ray.get(next(generator)) == 1
    journal.add("read")
    assert drain(generator) == [WorkerCrashedError]
    with pytest.raises(WorkerCrashedError):
        ray.get(generator.completed())
