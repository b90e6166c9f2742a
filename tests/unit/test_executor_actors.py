"""Actors in a worker, without processes: sync, threaded, async. How they end is in test_executor_process."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from redray.exceptions import RayTaskError
from redray.gcs.schema import Outcome
from redray.messages import Cancel, Done, Exit, Run
from redray.spec import ACTOR_CALL, ACTOR_CREATION, unpack_head
from redray.worker.executor import Executor
from tests.unit.fake_host import FakeHost, current, mark, payload, result, run

ACTOR = "ac" * 12


class Worker:
    """An executor that serves in a thread of the test, with the fake host it talks to."""

    def __init__(self, cls: type, *args: Any, **options: Any) -> None:
        self.host = FakeHost({"class": cls})
        self.mark = mark()
        self.executor = Executor(self.host, self.mark)
        self.executor._mend = lambda: None  # type: ignore[method-assign]  # signals belong to the main thread
        self.thread = threading.Thread(target=self.executor.serve, daemon=True)
        self.thread.start()
        work = run(
            "class", payload(*args), kind=ACTOR_CREATION, name=cls.__name__, actor=ACTOR, options=options, num_returns=0
        )
        self.creation = self.give(work)

    def give(self, work: Run) -> str:
        self.host.give(work)
        return unpack_head(work.spec).task

    def call(self, method: str, *args: Any, **options: Any) -> str:
        return self.give(run(method, payload(*args), kind=ACTOR_CALL, actor=ACTOR, options=options))

    def done(self, task: str) -> Done:
        return self.host.done(task)

    def result(self, task: str) -> Any:
        return result(self.host.done(task))

    def stop(self) -> None:
        self.host.give(Exit("the test is over"))
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(autouse=True)
def _interrupt_handler_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, more: int = 1) -> int:
        self.value += more
        return self.value

    def fail(self) -> None:
        raise KeyError("missing")

    def where(self) -> str:
        return threading.current_thread().name

    def look(self) -> Any:
        context = current.get()
        assert context is not None
        return context.task, context.actor, context.actor_name, context.assigned_resources(), context.gpus

    def __repr__(self) -> str:
        return f"Counter({self.value})"


# ---- sync ------------------------------------------------------------------------------------------------------------
def test_a_sync_actor_keeps_its_state_and_the_order_of_its_calls() -> None:
    worker = Worker(Counter, 10)
    calls = [worker.call("add") for _ in range(5)]
    assert [worker.result(call) for call in calls] == [11, 12, 13, 14, 15]
    creation = worker.done(worker.creation)
    assert (creation.outcome, creation.returns) == (Outcome.VALUE, [])
    worker.stop()


def test_023_an_actors_error_names_method_actor_and_repr() -> None:
    worker = Worker(Counter, 3)
    error = worker.result(worker.call("fail"))
    assert isinstance(error, RayTaskError)
    assert isinstance(error.cause, KeyError)
    assert (error.function_name, error.actor_id, error.actor_repr) == ("Counter.fail", ACTOR, "Counter(3)")
    assert worker.result(worker.call("add")) == 4  # the actor lives on
    worker.stop()


def test_a_repr_that_raises_does_not_hide_the_error() -> None:
    class Mute(Counter):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    worker = Worker(Mute)
    assert isinstance(worker.result(worker.call("fail")).cause, KeyError)
    worker.stop()


def test_069_an_init_that_fails_is_reported_with_its_text() -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("cannot start")

    worker = Worker(Broken)
    done = worker.done(worker.creation)
    assert done.outcome == Outcome.ERROR
    assert "cannot start" in str(result(done))
    assert result(done).function_name == "Broken.__init__"
    worker.stop()


def test_a_method_that_does_not_exist_is_an_attribute_error() -> None:
    worker = Worker(Counter)
    assert isinstance(worker.result(worker.call("nothing")).cause, AttributeError)
    worker.stop()


def test_ready_and_call_need_no_method_of_the_class() -> None:
    worker = Worker(Counter, 5)
    assert worker.result(worker.call("__ray_ready__")) is True
    assert worker.result(worker.call("__ray_call__", _add_to, 7)) == 12
    worker.stop()


def _add_to(counter: Counter, more: int) -> int:
    return counter.add(more)


def test_064_an_actor_holds_what_its_creation_said() -> None:
    worker = Worker(Counter, name="named", demand_held="GPU:1")
    call = worker.call("look")
    assert worker.result(call) == (call, ACTOR, "named", {"GPU": 1.0}, [])
    worker.stop()


def test_060_a_cancelled_sync_call_only_gets_a_flag() -> None:
    seen = []

    class Patient:
        def wait(self) -> None:
            began.set()
            assert released.wait(20)
            context = current.get()
            assert context is not None
            seen.append(context.cancelled)

    began, released = threading.Event(), threading.Event()
    worker = Worker(Patient)
    call = worker.call("wait")
    assert began.wait(20)
    worker.mark.cancel(call, 1)
    worker.executor._on_interrupt()
    released.set()
    assert worker.done(call).outcome == Outcome.CANCELLED
    assert seen == [True]
    worker.stop()


def test_results_of_short_calls_are_sent_together() -> None:
    host = FakeHost({"class": Counter})
    calls = [run("add", kind=ACTOR_CALL, actor=ACTOR) for _ in range(100)]
    host.give(run("class", kind=ACTOR_CREATION, actor=ACTOR, num_returns=0), *calls, Exit("the test is over"))
    Executor(host, mark()).serve()
    assert len(host.dones()) == 101
    assert len(host.batches) < 90


# ---- threaded --------------------------------------------------------------------------------------------------------
class Meeting:
    """Calls that end only when the expected number of them has come together."""

    def __init__(self, expected: int) -> None:
        self.barrier = threading.Barrier(expected)

    def meet(self) -> int:
        self.barrier.wait(20)
        return self.barrier.parties

    def fail(self) -> None:
        raise KeyError("missing")

    def cancelled(self) -> bool:
        context = current.get()
        assert context is not None
        return context.cancelled


def test_a_threaded_actor_runs_calls_at_once() -> None:
    worker = Worker(Meeting, 3, max_concurrency=3)
    calls = [worker.call("meet") for _ in range(3)]
    assert [worker.result(call) for call in calls] == [3, 3, 3]
    assert isinstance(worker.result(worker.call("fail")).cause, KeyError)


def test_067_concurrency_groups_have_their_own_limits() -> None:
    worker = Worker(Meeting, 2, concurrency_groups={"io": 1})
    calls = [worker.call("meet", concurrency_group="io"), worker.call("meet")]  # two groups of one can meet
    assert [worker.result(call) for call in calls] == [2, 2]
    error = worker.result(worker.call("meet", concurrency_group="missing"))
    assert "no concurrency group 'missing'" in str(error)


def test_a_threaded_call_cancelled_in_the_queue_does_not_run() -> None:
    worker = Worker(Meeting, 2, concurrency_groups={"other": 1})
    first, second = worker.call("meet"), worker.call("fail")
    worker.host.give(Cancel(second))
    opener = worker.call("meet", concurrency_group="other")
    assert worker.done(second).outcome == Outcome.CANCELLED
    assert (worker.result(first), worker.result(opener)) == (2, 2)


# ---- async -----------------------------------------------------------------------------------------------------------
class Signal:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()  # 68: __init__ and all methods share one loop
        self.event = asyncio.Event()
        self.at_once = self.most = 0

    async def wait(self) -> str:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.event.wait()
        finally:
            self.at_once -= 1
        return "woken"

    async def send(self) -> int:
        self.event.set()
        return self.most

    def sync(self) -> bool:
        return asyncio.get_running_loop() is self.loop

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("missing")

    async def look(self) -> tuple[str, str]:
        before = current.get()
        await asyncio.sleep(0)
        after = current.get()
        assert before is not None and after is not None
        return before.task, after.task


def test_async_calls_overlap() -> None:
    worker = Worker(Signal, is_async=True)
    waiting = [worker.call("wait") for _ in range(10)]
    assert worker.result(worker.call("send")) == 10
    assert [worker.result(call) for call in waiting] == ["woken"] * 10
    assert worker.done(worker.creation).outcome == Outcome.VALUE


def test_067_async_calls_are_limited_by_max_concurrency() -> None:
    worker = Worker(Signal, is_async=True, max_concurrency=2, concurrency_groups={"control": 1})
    waiting = [worker.call("wait") for _ in range(5)]
    assert worker.result(worker.call("send", concurrency_group="control")) == 2
    assert [worker.result(call) for call in waiting] == ["woken"] * 5


def test_068_sync_methods_run_on_the_loop() -> None:
    worker = Worker(Signal, is_async=True)
    assert worker.result(worker.call("sync")) is True


def test_async_errors_and_contexts_belong_to_their_call() -> None:
    worker = Worker(Signal, is_async=True)
    looks = [worker.call("look") for _ in range(3)]
    assert [tuple(worker.result(call)) for call in looks] == [(call, call) for call in looks]
    error = worker.result(worker.call("fail"))
    assert isinstance(error.cause, KeyError)
    assert error.function_name == "Signal.fail"


def test_060_a_cancelled_async_call_is_cancelled_while_it_waits() -> None:
    worker = Worker(Signal, is_async=True, max_concurrency=1, concurrency_groups={"control": 1})
    running, queued = worker.call("wait"), worker.call("wait")
    for call in (queued, running):
        worker.host.give(Cancel(call))
        assert worker.done(call).outcome == Outcome.CANCELLED
    assert worker.result(worker.call("sync")) is True


def test_an_async_init_that_fails_ends_every_call() -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("cannot start")

        async def method(self) -> None:
            pass

    worker = Worker(Broken, is_async=True)
    done = worker.done(worker.creation)
    assert done.outcome == Outcome.ERROR
    assert "cannot start" in str(result(done))
    assert "its __init__ failed" in str(worker.result(worker.call("method")))


def test_async_arguments_that_must_be_fetched_do_not_stop_other_calls() -> None:
    class Echo:
        async def echo(self, value: str) -> str:
            return value

    arrived = threading.Event()
    worker = Worker(Echo, is_async=True)
    load = worker.host.load_values

    def slow(ids: list[str], inline: dict[str, bytes]) -> list[tuple[bool, Any]]:
        assert arrived.wait(20)
        return load(ids, inline)

    worker.host.load_values = slow  # type: ignore[method-assign]
    worker.host.values["aa"] = (False, "fetched")
    body = payload(None, slots=[(0, 0)])
    late = worker.give(run("echo", body, kind=ACTOR_CALL, actor=ACTOR, waits_for=["aa"]))
    assert worker.result(worker.call("__ray_ready__")) is True
    arrived.set()
    assert worker.result(late) == "fetched"
