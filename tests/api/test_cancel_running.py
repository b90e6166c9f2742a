"""Cancelling what runs: spec lines 57, 58 and 60."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError
from tests.helpers import PATIENCE, Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote(max_retries=0)
def work(journal: Journal, name: str, signal: Signal) -> str:
    journal.add(f"{name} began")
    try:
        signal.wait()
    except KeyboardInterrupt:
        journal.add(f"{name} was interrupted")
        raise
    journal.add(f"{name} ended")
    return name


@ray.remote
class Actor:
    def work(self, journal: Journal, name: str, signal: Signal) -> str:
        journal.add(f"{name} began")
        wait_until(lambda: signal.is_set() or ray.get_runtime_context().is_canceled())
        journal.add(f"{name} was told" if ray.get_runtime_context().is_canceled() else f"{name} ended")
        return name

    def ping(self) -> str:
        return "alive"


@ray.remote(max_retries=0, num_cpus=0)
def parent(journal: Journal, name: str, signal: Signal, actor: Any = None) -> Any:
    child = f"child of {name}"
    submit = actor.work if actor is not None else work.options(num_cpus=1)
    return ray.get(submit.remote(journal, child, signal))


@ray.remote(max_retries=0, num_cpus=0)
def grandparent(journal: Journal, signal: Signal) -> Any:
    return ray.get(parent.remote(journal, "parent", signal))


def wait_for(journal: Journal, *lines: str) -> None:
    wait_until(lambda: set(lines) <= set(journal.lines()), what=f"{lines} in the journal")


# --- 57: the task itself -----------------------------------------------------------------------------------------


def test_057_a_running_task_gets_a_keyboard_interrupt(journal: Journal, signal: Signal) -> None:
    ref = work.remote(journal, "task", signal)
    wait_for(journal, "task began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    assert journal.lines() == ["task began", "task was interrupted"]


def test_057_a_task_that_computes_is_interrupted_too(journal: Journal) -> None:
    @ray.remote
    def spin() -> None:
        journal.add("spins")
        while True:
            pass

    ref = spin.remote()
    wait_for(journal, "spins")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)


def test_057_force_kills_the_process(journal: Journal, signal: Signal) -> None:
    @ray.remote(max_retries=3)
    def stubborn() -> None:
        journal.add("began")
        while not signal.is_set():
            try:
                time.sleep(0.01)
            except KeyboardInterrupt:
                journal.add("swallowed")

    ref = stubborn.remote()
    wait_for(journal, "began")
    ray.cancel(ref, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=PATIENCE)
    assert journal.lines() == ["began"]  # 59: no retry, although it has some


def test_057_the_worker_goes_on_with_other_tasks(journal: Journal, signal: Signal) -> None:
    ref = work.remote(journal, "task", signal)
    wait_for(journal, "task began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    signal.set()
    assert ray.get([work.remote(journal, str(number), signal) for number in range(5)]) == list("01234")


# --- 58: what it submitted ---------------------------------------------------------------------------------------


def test_058_children_are_cancelled_with_their_parent(journal: Journal, signal: Signal) -> None:
    ref = parent.remote(journal, "task", signal)
    wait_for(journal, "child of task began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    wait_for(journal, "child of task was interrupted")


def test_058_grandchildren_too(journal: Journal, signal: Signal) -> None:
    ref = grandparent.remote(journal, signal)
    wait_for(journal, "child of parent began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    wait_for(journal, "child of parent was interrupted")


def test_058_children_that_wait_never_run(journal: Journal, signal: Signal) -> None:
    @ray.remote(num_cpus=0)
    def spawn() -> None:
        blocker = work.remote(journal, "blocker", signal)
        for number in range(250):  # more than one call of the script takes
            work.remote(journal, str(number), blocker)
        journal.add("spawned")
        ray.get(blocker)

    ref = spawn.remote()
    wait_for(journal, "spawned", "blocker began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    wait_for(journal, "blocker was interrupted")
    signal.set()
    assert ray.get(work.remote(journal, "later", signal)) == "later"
    began = [line for line in journal.lines() if line.endswith("began")]
    assert began == ["blocker began", "later began"]


def test_058_not_recursive_leaves_the_children_alone(journal: Journal, signal: Signal) -> None:
    ref = parent.remote(journal, "task", signal)
    wait_for(journal, "child of task began")
    ray.cancel(ref, recursive=False)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    signal.set()
    wait_for(journal, "child of task ended")


def test_058_force_kills_the_children_too(journal: Journal, signal: Signal) -> None:
    ref = parent.remote(journal, "task", signal)
    wait_for(journal, "child of task began")
    ray.cancel(ref, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=PATIENCE)
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="the child to be gone")
    assert journal.lines() == ["child of task began"]


@pytest.mark.parametrize("force", [False, True])
def test_058_calls_of_actors_are_cancelled_and_their_actor_lives_on(
    force: bool, journal: Journal, signal: Signal
) -> None:
    actor = Actor.remote()
    ref = parent.remote(journal, "task", signal, actor)
    wait_for(journal, "child of task began")
    ray.cancel(ref, force=force)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        ray.get(ref, timeout=PATIENCE)
    wait_for(journal, "child of task was told")
    assert ray.get(actor.ping.remote()) == "alive"


def test_058_an_actors_call_takes_its_children_along(journal: Journal, signal: Signal) -> None:
    @ray.remote
    class Nested:
        async def spawn(self) -> Any:
            return await work.remote(journal, "child", signal)

    nested = Nested.remote()
    ref = nested.spawn.remote()
    wait_for(journal, "child began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    wait_for(journal, "child was interrupted")


def test_058_what_is_submitted_to_clean_up_is_not_cancelled(journal: Journal, signal: Signal) -> None:
    @ray.remote
    def tidy() -> str:
        return "tidied"

    @ray.remote(num_cpus=0)
    def careful() -> None:
        journal.add("began")
        try:
            signal.wait()
        finally:
            journal.add(ray.get(tidy.remote()))

    ref = careful.remote()
    wait_for(journal, "began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    assert journal.lines() == ["began", "tidied"]


# --- 60: calls of actors -----------------------------------------------------------------------------------------


def test_060_force_is_a_value_error_and_changes_nothing(journal: Journal, signal: Signal) -> None:
    actor = Actor.remote()
    running = actor.work.remote(journal, "call", signal)
    queued = actor.ping.remote()
    wait_for(journal, "call began")
    for ref in (running, queued):
        with pytest.raises(ValueError, match="force=True is not supported for actor tasks"):
            ray.cancel(ref, force=True)
    signal.set()
    assert ray.get([running, queued]) == ["call", "alive"]
    ray.cancel(running, force=True)  # it has ended: nothing to refuse


@pytest.mark.parametrize("threads", [1, 2])
def test_060_a_running_call_of_a_sync_actor_only_gets_a_flag(threads: int, journal: Journal, signal: Signal) -> None:
    actor = Actor.options(max_concurrency=threads).remote()
    ref = actor.work.remote(journal, "call", signal)
    wait_for(journal, "call began")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    assert journal.lines() == ["call began", "call was told"]
    assert ray.get(actor.ping.remote()) == "alive"


@pytest.mark.differs_from_ray("Ray 2.60 holds up the calls behind it for half a minute, and fails them")
def test_060_a_call_that_waits_for_its_actor_never_runs(journal: Journal, signal: Signal) -> None:
    @ray.remote
    class Late:
        def __init__(self) -> None:
            signal.wait()

        def note(self, text: str) -> str:
            journal.add(text)
            return text

    actor = Late.remote()
    first, cancelled, last = (actor.note.remote(text) for text in ("first", "cancelled", "last"))
    ray.cancel(cancelled)
    with pytest.raises(TaskCancelledError):
        ray.get(cancelled, timeout=PATIENCE)
    signal.set()
    assert ray.get([first, last]) == ["first", "last"]
    assert journal.lines() == ["first", "last"]


def test_060_a_call_that_waits_for_its_argument_never_runs(journal: Journal, signal: Signal) -> None:
    actor = Actor.remote()
    cancelled = actor.work.remote(journal, work.remote(journal, "argument", signal), signal)
    behind = actor.ping.remote()
    ray.cancel(cancelled)
    with pytest.raises(TaskCancelledError):
        ray.get(cancelled, timeout=PATIENCE)
    assert ray.get(behind, timeout=PATIENCE) == "alive"
    signal.set()


def test_060_what_a_cancelled_call_raises_is_seen(journal: Journal) -> None:
    @ray.remote
    class Raising:
        def work(self) -> None:
            journal.add("began")
            wait_until(lambda: ray.get_runtime_context().is_canceled())
            raise ValueError("because of the cancellation")

    ref = Raising.remote().work.remote()
    wait_for(journal, "began")
    ray.cancel(ref)
    with pytest.raises(ValueError, match="because of the cancellation"):
        ray.get(ref, timeout=PATIENCE)


def test_060_the_flag_is_the_cancelled_calls_own(journal: Journal, signal: Signal) -> None:
    actor = Actor.remote()
    first = actor.work.remote(journal, "first", signal)
    wait_for(journal, "first began")
    ray.cancel(first)
    second = actor.work.remote(journal, "second", signal)
    wait_for(journal, "second began")
    signal.set()
    assert ray.get(second) == "second"
    assert journal.lines()[-1] == "second ended"


@ray.remote
class Async:
    async def sleep(self, journal: Journal) -> str:
        journal.add("sleeps")
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            journal.add("cancelled")
            raise
        return "slept"

    async def swallow(self, journal: Journal) -> str:
        journal.add("sleeps")
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "swallowed"
        return "slept"

    async def look(self) -> bool:
        return bool(ray.get_runtime_context().is_canceled())

    def look_synchronously(self) -> bool:
        return bool(ray.get_runtime_context().is_canceled())


@pytest.mark.parametrize("method", ["sleep", "swallow"])
def test_060_a_call_of_an_async_actor_is_cancelled_by_asyncio(method: str, journal: Journal) -> None:
    actor = Async.remote()
    ref = getattr(actor, method).remote(journal)
    wait_for(journal, "sleeps")
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    if method == "sleep":
        assert journal.lines() == ["sleeps", "cancelled"]


@pytest.mark.parametrize("method", ["look", "look_synchronously"])
def test_060_an_async_actor_cannot_ask_whether_it_is_cancelled(method: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        ray.get(getattr(Async.remote(), method).remote())
    assert isinstance(caught.value, RayTaskError)


def test_060_a_driver_cannot_ask_whether_it_is_cancelled() -> None:
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().is_canceled()
