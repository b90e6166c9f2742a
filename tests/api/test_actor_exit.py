"""How actors leave: spec lines 53, 54, 70, 78 and 79, and the exit hooks of section 3."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from tests.helpers import PATIENCE, Journal, Signal, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Hooked:
    """Notes what runs at its end."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        atexit.register(journal.add, "atexit")

    def __ray_shutdown__(self) -> None:
        self.journal.add("__ray_shutdown__")

    def __del__(self) -> None:
        if "journal" in vars(self):
            self.journal.add("__del__")

    def pid(self) -> int:
        return os.getpid()

    def leave(self) -> None:
        ray.actor.exit_actor()


def by_terminate(actor: Any) -> None:
    actor.__ray_terminate__.remote()


def by_exit(actor: Any) -> None:
    actor.leave.remote()


def by_last_handle(actor: Any) -> None:
    """The caller drops its own."""


@pytest.mark.parametrize("end", [by_terminate, by_exit, by_last_handle])
@pytest.mark.parametrize("threads", [1, 2])
def test_053_hooks_run_at_an_orderly_end(end: Callable[[Any], None], threads: int, journal: Journal) -> None:
    actor = Hooked.options(max_concurrency=threads).remote(journal)
    pid = ray.get(actor.pid.remote())
    end(actor)
    del actor
    gc.collect()
    wait_until(lambda: not is_alive(pid), what="the process to end")
    assert journal.lines() == ["__ray_shutdown__", "__del__", "atexit"]


def test_053_a_hook_that_raises_does_not_keep_the_actor(journal: Journal) -> None:
    @ray.remote
    class Broken:
        def __ray_shutdown__(self) -> None:
            journal.add("hook")
            raise ValueError("at the end")

        def pid(self) -> int:
            return os.getpid()

    actor = Broken.remote()
    pid = ray.get(actor.pid.remote())
    actor.__ray_terminate__.remote()
    wait_until(lambda: not is_alive(pid), what="the process to end")
    assert journal.lines() == ["hook"]


@pytest.mark.differs_from_ray("Ray's half a minute cannot be made shorter from inside")
def test_053_a_hook_that_never_returns_is_cut_off() -> None:
    @ray.remote
    class Endless:
        def hurry(self) -> int:
            from redray.worker import shutdown

            shutdown.GRACE_S = 1  # instead of 30 s
            return os.getpid()

        def __ray_shutdown__(self) -> None:
            while True:
                time.sleep(1)

    actor = Endless.remote()
    pid = ray.get(actor.hurry.remote())
    actor.__ray_terminate__.remote()
    wait_until(lambda: not is_alive(pid), what="the process to be cut off")


def test_053_terminate_finishes_what_is_in_line_before_it(journal: Journal, signal: Signal) -> None:
    @ray.remote
    class Busy:
        def work(self, number: int) -> int:
            signal.wait()
            return number

    actor = Busy.remote()
    before = [actor.work.remote(number) for number in range(3)]
    end = actor.__ray_terminate__.remote()
    after = actor.work.remote(3)
    signal.set()
    assert ray.get(before) == [0, 1, 2]
    for ref in (end, after):
        with pytest.raises(ActorDiedError):
            ray.get(ref, timeout=PATIENCE)


# --- exit_actor --------------------------------------------------------------------------------------------------


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Leaver:
    def leave(self) -> str:
        try:
            ray.actor.exit_actor()
        except BaseException:
            return "swallowed"

    def deep(self) -> None:
        def inner() -> None:
            ray.actor.exit_actor()

        inner()

    def wait(self, signal: Signal) -> str:
        signal.wait()
        return "waited"

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("method", ["leave", "deep"])
def test_078_exit_actor_cannot_be_swallowed(method: str, threads: int) -> None:
    actor = Leaver.options(max_concurrency=threads).remote()
    pid = ray.get(actor.pid.remote())
    with pytest.raises(RayActorError, match="exit_actor"):
        ray.get(getattr(actor, method).remote(), timeout=PATIENCE)
    wait_until(lambda: not is_alive(pid), what="the process to end")
    with pytest.raises(ActorDiedError):  # 53: not restarted, although it has restarts
        ray.get(actor.pid.remote(), timeout=PATIENCE)


def test_078_other_calls_of_a_threaded_actor_end_first(signal: Signal, journal: Journal) -> None:
    @ray.remote(max_concurrency=2)
    class Threaded:
        def wait(self) -> str:
            journal.add("waits")
            signal.wait()
            return "waited"

        def leave(self) -> None:
            journal.add("leaves")
            ray.actor.exit_actor()

    actor = Threaded.remote()
    other = actor.wait.remote()
    wait_until(journal.lines, what="the other call to begin")
    leaving = actor.leave.remote()
    wait_until(lambda: "leaves" in journal.lines(), what="the exit to be asked for")
    late = actor.wait.remote()
    signal.set()
    assert ray.get(other, timeout=PATIENCE) == "waited"
    for ref in (leaving, late):
        with pytest.raises(RayActorError):
            ray.get(ref, timeout=PATIENCE)
    assert journal.lines() == ["waits", "leaves"]


@pytest.mark.differs_from_ray("Ray 2.60 lets the other calls end first, although it says otherwise")
def test_078_an_async_actor_exits_at_once() -> None:
    @ray.remote
    class Async:
        async def sleep(self) -> None:
            await asyncio.sleep(2 * PATIENCE)

        async def leave(self) -> None:
            await asyncio.sleep(0)
            ray.actor.exit_actor()

    actor = Async.remote()
    others = [actor.sleep.remote() for _ in range(3)]
    leaving = actor.leave.remote()
    for ref in (leaving, *others):
        with pytest.raises(RayActorError):
            ray.get(ref, timeout=PATIENCE)


def test_078_an_actor_may_leave_in_its_constructor() -> None:
    @ray.remote
    class Reluctant:
        def __init__(self) -> None:
            ray.actor.exit_actor()

        def method(self) -> None:
            pass

    with pytest.raises(RayActorError):
        ray.get(Reluctant.remote().method.remote(), timeout=PATIENCE)


def test_078_a_thread_of_the_actor_may_end_it() -> None:
    @ray.remote
    class Threads:
        def ask(self) -> str:
            found: list[str] = []

            def leave() -> None:
                try:
                    ray.actor.exit_actor()
                except BaseException as error:
                    found.append(type(error).__name__)
                    raise

            thread = threading.Thread(target=leave)
            thread.start()
            thread.join()
            return found[0]

    actor = Threads.remote()
    assert ray.get(actor.ask.remote(), timeout=PATIENCE) == "SystemExit"
    with pytest.raises(ActorDiedError):
        ray.get(actor.__ray_ready__.remote(), timeout=PATIENCE)


# --- the reason in the error -------------------------------------------------------------------------------------


@ray.remote
class Maker:
    def make(self) -> Any:
        self.made = Leaver.options(max_restarts=0, max_task_retries=0).remote()
        ray.get(self.made.pid.remote())
        return self.made

    def crash(self) -> None:
        os.kill(os.getpid(), 9)


def test_070_an_actor_dies_with_the_process_of_its_creator_and_079_says_so() -> None:
    maker = Maker.remote()
    made = ray.get(maker.make.remote())
    pid = ray.get(made.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(maker.crash.remote())
    wait_until(lambda: not is_alive(pid), what="what it made to end")
    with pytest.raises(ActorDiedError, match="its owner has died"):
        ray.get(made.pid.remote(), timeout=PATIENCE)


def test_070_an_actor_of_a_task_outlives_the_task_while_somebody_holds_it() -> None:
    @ray.remote
    def make() -> Any:
        return Leaver.remote()

    made = ray.get(make.remote())
    assert ray.get(made.pid.remote())


def test_072_a_detached_actor_still_restarts(journal: Journal) -> None:
    actor = Leaver.options(name="detached", lifetime="detached").remote()
    pid = ray.get(actor.pid.remote())
    os.kill(pid, 9)
    del actor
    gc.collect()
    wait_until(lambda: ray.get(ray.get_actor("detached").pid.remote()) != pid, what="it to be restarted")
    found = ray.get_actor("detached")
    assert ray.get(found.pid.remote())
    ray.kill(found)


@pytest.mark.differs_from_ray("Ray's text speaks of a closed socket")
def test_079_the_errors_of_a_restart_and_of_an_exit_say_so() -> None:
    actor = Leaver.options(max_restarts=1, max_task_retries=0, name="named").remote()
    with pytest.raises(ActorUnavailableError, match="unavailable.*its worker process has died") as caught:
        ray.get(actor.__ray_call__.remote(lambda _: os._exit(1)), timeout=PATIENCE)
    assert "named" in str(caught.value) and caught.value.actor_id == actor._actor_id.hex()
    wait_until(lambda: answers(actor), what="the actor to be there again")
    for call in (actor.leave, actor.pid):
        with pytest.raises(ActorDiedError, match=r"The actor is dead because it called exit_actor\(\)"):
            ray.get(call.remote(), timeout=PATIENCE)


def answers(actor: Any) -> bool:
    try:
        return bool(ray.get(actor.pid.remote()))
    except ActorUnavailableError:
        return False


def test_079_the_error_of_a_crash_is_in_the_words_of_the_spec() -> None:
    maker = Maker.remote()
    with pytest.raises(ActorDiedError, match="The actor is dead because its worker process has died"):
        ray.get(maker.crash.remote())
    killed = Maker.remote()
    ray.get(killed.__ray_ready__.remote())
    ray.kill(killed)
    with pytest.raises(ActorDiedError, match=r"it was killed by `ray\.kill`"):
        ray.get(killed.make.remote())
