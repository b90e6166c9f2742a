"""How calls of actors share it: spec lines 52, 66, 67, 77, 79, 80 and 102, and the options of section 3."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorUnavailableError, PendingCallsLimitExceeded, RayActorError
from tests.helpers import PATIENCE, Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def when(signal: Signal, value: Any = None) -> Any:
    signal.wait()
    return value


# --- order -------------------------------------------------------------------------------------------------------


@ray.remote
class Echo:
    def echo(self, value: Any) -> Any:
        return value

    def wait(self, signal: Signal) -> int:
        signal.wait()
        return 1


def test_066_a_sync_actor_may_give_up_its_order(signal: Signal) -> None:
    actor = Echo.options(allow_out_of_order_execution=True).remote()
    late = actor.echo.remote(when.remote(signal, "late"))
    assert ray.get(actor.echo.remote("early"), timeout=PATIENCE) == "early"
    signal.set()
    assert ray.get(late) == "late"


def test_066_without_order_it_still_runs_one_call_at_a_time(journal: Journal) -> None:
    @ray.remote(allow_out_of_order_execution=True)
    class Alone:
        def __init__(self) -> None:
            self.busy = threading.Lock()

        def work(self) -> bool:
            alone = self.busy.acquire(blocking=False)
            time.sleep(0.001)
            if alone:
                self.busy.release()
            return alone

    actor = Alone.remote()
    assert ray.get([actor.work.remote() for _ in range(20)]) == [True] * 20


@pytest.mark.parametrize("order", [True, None])
def test_066_a_concurrent_actor_may_say_that_it_has_no_order(order: bool | None) -> None:
    actor = Echo.options(max_concurrency=2, allow_out_of_order_execution=order).remote()
    assert ray.get(actor.echo.remote(1)) == 1


def test_102_concurrent_callers_each_keep_their_order(journal: Journal) -> None:
    @ray.remote
    class Log:
        def __init__(self) -> None:
            self.lines: list[tuple[str, int]] = []

        def add(self, who: str, number: int) -> None:
            self.lines.append((who, number))

        def read(self) -> list[tuple[str, int]]:
            return self.lines

    @ray.remote(num_cpus=0.5)
    def call(log: Any, who: str) -> None:
        ray.get([log.add.remote(who, number) for number in range(50)])

    log = Log.remote()
    ray.get([call.remote(log, who) for who in "abcd"])
    lines = ray.get(log.read.remote())
    assert {who: [number for other, number in lines if other == who] for who in "abcd"} == {
        who: list(range(50)) for who in "abcd"
    }


# --- concurrency groups ------------------------------------------------------------------------------------------


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Grouped:
    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.lock = threading.Lock()

    def _work(self, group: str) -> int:
        with self.lock:
            self.inside[group] = self.inside.get(group, 0) + 1
            self.most[group] = max(self.most.get(group, 0), self.inside[group])
        time.sleep(0.02)
        with self.lock:
            self.inside[group] -= 1
        return self.most[group]

    @ray.method(concurrency_group="io")
    def io(self) -> int:
        return self._work("io")

    @ray.method(concurrency_group="compute")
    def compute(self) -> int:
        return self._work("compute")

    def plain(self) -> int:
        return self._work("default")


def test_067_each_group_of_a_threaded_actor_has_its_own_limit() -> None:
    actor = Grouped.remote()
    calls = [method.remote() for _ in range(8) for method in (actor.io, actor.compute, actor.plain)]
    most = ray.get(calls)
    assert (max(most[0::3]), max(most[1::3]), max(most[2::3])) == (2, 1, 1)


def test_067_max_concurrency_is_the_limit_of_the_default_group() -> None:
    actor = Grouped.options(max_concurrency=3).remote()
    calls = [method.remote() for _ in range(12) for method in (actor.compute, actor.plain)]
    most = ray.get(calls)
    assert (max(most[0::2]), max(most[1::2])) == (1, 3)


def test_067_each_group_of_an_async_actor_has_its_own_limit() -> None:
    @ray.remote(concurrency_groups={"io": 2})
    class Async:
        def __init__(self) -> None:
            self.inside = {"io": 0, "default": 0}
            self.most = dict(self.inside)

        async def _work(self, group: str) -> int:
            self.inside[group] += 1
            self.most[group] = max(self.most[group], self.inside[group])
            await asyncio.sleep(0.02)
            self.inside[group] -= 1
            return self.most[group]

        @ray.method(concurrency_group="io")
        async def io(self) -> int:
            return await self._work("io")

        async def plain(self) -> int:
            return await self._work("default")

    actor = Async.remote()
    most = ray.get([method.remote() for _ in range(20) for method in (actor.io, actor.plain)])
    assert max(most[0::2]) == 2
    assert max(most[1::2]) > 2  # 1000 by default
    chosen = ray.get([actor.plain.options(concurrency_group="io").remote() for _ in range(6)])
    assert len(chosen) == 6


@pytest.mark.differs_from_ray("in Ray, a group that does not exist kills the actor")
def test_067_a_group_that_does_not_exist_is_an_error() -> None:
    with pytest.raises((ValueError, AssertionError)):

        @ray.remote(concurrency_groups={"io": 1})
        class Wrong:
            @ray.method(concurrency_group="oi")
            def method(self) -> None:
                pass

        ray.get(Wrong.remote().method.remote())

    actor = Grouped.remote()
    with pytest.raises(Exception, match="oi"):
        ray.get(actor.plain.options(concurrency_group="oi").remote())
    assert ray.get(actor.plain.remote()) == 1


# --- pending calls -----------------------------------------------------------------------------------------------


def test_080_calls_whose_refs_are_dropped_count_until_they_end(signal: Signal) -> None:
    actor = Echo.options(max_pending_calls=1).remote()
    actor.wait.remote(signal)
    with pytest.raises(PendingCallsLimitExceeded):
        actor.echo.remote(1)
    signal.set()

    def accepted() -> bool:
        try:
            return bool(ray.get(actor.echo.remote(True)))
        except PendingCallsLimitExceeded:
            return False

    wait_until(accepted, what="the dropped call to end")


def test_080_another_process_counts_its_own(signal: Signal) -> None:
    @ray.remote
    def call(actor: Any) -> str:
        return str(ray.get(actor.echo.remote("not refused")))

    actor = Echo.options(max_pending_calls=1, max_concurrency=2).remote()
    pending = actor.wait.remote(signal)
    assert ray.get(call.remote(actor)) == "not refused"
    signal.set()
    assert ray.get(pending) == 1


def test_080_failed_calls_are_no_longer_pending() -> None:
    @ray.remote(max_pending_calls=1)
    class Failing:
        def fail(self) -> None:
            raise ValueError("on purpose")

    actor = Failing.remote()
    for _ in range(3):
        with pytest.raises(ValueError, match="on purpose"):
            ray.get(actor.fail.remote())


# --- while it starts again ---------------------------------------------------------------------------------------


@ray.remote(max_restarts=1)
class Slow:
    """Its second start waits for the signal."""

    def __init__(self, starts: Journal, signal: Signal) -> None:
        if starts.add("start") > 1:
            signal.wait()

    def pid(self) -> int:
        return os.getpid()

    def was_reconstructed(self) -> bool:
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def test_079_a_call_while_the_actor_starts_again_says_so(journal: Journal, signal: Signal) -> None:
    actor = Slow.remote(journal, signal)
    assert not ray.get(actor.was_reconstructed.remote())
    os.kill(ray.get(actor.pid.remote()), 9)
    wait_until(lambda: len(journal.lines()) == 2, what="the actor to start again")
    with pytest.raises(ActorUnavailableError) as caught:
        ray.get(actor.pid.remote(), timeout=PATIENCE)
    assert isinstance(caught.value, RayActorError)
    signal.set()

    def answer() -> bool:
        try:
            return bool(ray.get(actor.was_reconstructed.remote()))
        except ActorUnavailableError:
            return False

    wait_until(answer, what="the actor to be there again")


def test_052_a_call_while_the_actor_starts_again_costs_a_retry(journal: Journal, signal: Signal) -> None:
    actor = Slow.options(max_task_retries=1).remote(journal, signal)
    pid = ray.get(actor.pid.remote())
    os.kill(pid, 9)
    wait_until(lambda: len(journal.lines()) == 2, what="the actor to start again")
    waiting = actor.pid.remote()
    signal.set()
    assert ray.get(waiting, timeout=PATIENCE) != pid


# --- methods and handles -----------------------------------------------------------------------------------------


def test_077_every_actor_understands_these() -> None:
    actor = Echo.remote()
    assert ray.get(actor.__ray_ready__.remote()) is True
    assert ray.get(
        actor.__ray_call__.remote(lambda self, *args, **more: (type(self).__name__, args, more), 1, a=2)
    ) == (
        "Echo",
        (1,),
        {"a": 2},
    )
    with pytest.raises(RayActorError):
        ray.get(actor.__ray_terminate__.remote(), timeout=PATIENCE)
    with pytest.raises(RayActorError):
        ray.get(actor.echo.remote(1), timeout=PATIENCE)


def test_077_the_names_that_programs_import() -> None:
    actor = Echo.remote()
    assert isinstance(actor, ray.actor.ActorHandle)
    assert isinstance(Echo, ray.actor.ActorClass)
    assert isinstance(actor.echo, ray.actor.ActorMethod)
    assert actor._actor_id == actor._ray_actor_id
    assert ray.get_runtime_context().get_actor_id() is None
    ray.actor.ActorHandle["Echo"], ray.actor.ActorProxy["Echo"], ray.actor.ActorClass["Echo"]
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().current_actor  # noqa: B018


def test_077_method_options_are_known_and_checked() -> None:
    @ray.remote
    class Methods:
        @ray.method
        def bare(self) -> int:
            return 1

        @ray.method(num_returns=2, enable_task_events=False)
        def two(self) -> tuple[int, int]:
            return 1, 2

        @ray.method(num_returns=0)
        def none(self) -> None:
            pass

    actor = Methods.remote()
    assert ray.get(actor.bare.remote()) == 1
    assert ray.get(actor.two.remote()) == [1, 2]
    assert ray.get(actor.two.options(num_returns=1).remote()) == (1, 2)
    assert ray.get(actor.two._remote(num_returns=1)) == (1, 2)
    assert actor.none.remote() is None
    with pytest.raises(AssertionError):
        ray.method(unknown=1)
