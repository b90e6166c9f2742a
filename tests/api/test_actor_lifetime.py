"""How actors end, restart and are found by name: spec lines 50 to 55, 70, 71, 74, 75, 77 to 79."""

from __future__ import annotations

import gc
import os
import signal as os_signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorAlreadyExistsError, ActorDiedError, RayActorError, RayTaskError
from tests.helpers import Journal, Signal, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Worker:
    """An actor that notes its starts and can die in every way."""

    def __init__(self, journal: Journal | None = None, text: str = "started") -> None:
        self.calls = 0
        if journal is not None:
            journal.add(text)

    def pid(self) -> int:
        return os.getpid()

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def note(self, journal: Journal, text: str) -> str:
        journal.add(text)
        return text

    def crash(self) -> None:
        os.kill(os.getpid(), os_signal.SIGKILL)

    def crash_once(self, journal: Journal) -> str:
        if journal.add("crash_once") == 1:
            os.kill(os.getpid(), os_signal.SIGKILL)
        return "survived"

    def wait(self, signal: Signal) -> str:
        signal.wait()
        return "waited"

    def leave(self) -> None:
        try:
            ray.actor.exit_actor()
        except Exception:
            raise RuntimeError("exit_actor was swallowed") from None


def wait_for_restart(actor: Any, old_pid: int) -> int:
    """The new process id, once the restarted actor answers."""

    def new_pid() -> int:
        try:
            pid = int(ray.get(actor.pid.remote()))
        except RayActorError:
            return 0
        return pid if pid != old_pid else 0

    return wait_until(new_pid, what="the actor to restart")


def is_named(name: str) -> bool:
    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


# --- restarts ----------------------------------------------------------------------------------------------------


def test_050_without_max_restarts_a_crash_is_the_end() -> None:
    actor = Worker.remote()
    pid = ray.get(actor.pid.remote())
    for call in (actor.crash, actor.pid, actor.count):
        with pytest.raises(RayActorError) as caught:
            ray.get(call.remote())
    assert isinstance(caught.value, ActorDiedError)
    assert not caught.value.actor_init_failed
    wait_until(lambda: not is_alive(pid), what="the process to end")


def test_050_a_restart_runs_the_constructor_again_and_loses_the_state(journal: Journal) -> None:
    actor = Worker.options(max_restarts=1).remote(journal, "with the same arguments")
    assert ray.get([actor.count.remote(), actor.count.remote()]) == [1, 2]
    pid = ray.get(actor.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote())
    wait_for_restart(actor, pid)
    assert ray.get(actor.count.remote()) == 1
    assert journal.lines() == ["with the same arguments"] * 2


def test_050_max_restarts_is_a_bound(journal: Journal) -> None:
    actor = Worker.options(max_restarts=2).remote(journal)
    for _ in range(2):
        pid = ray.get(actor.pid.remote())
        actor.crash.remote()
        wait_for_restart(actor, pid)
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote())
    with pytest.raises(ActorDiedError):
        ray.get(actor.pid.remote())
    assert len(journal.lines()) == 3


def test_050_max_restarts_minus_one_is_without_bound(journal: Journal) -> None:
    actor = Worker.options(max_restarts=-1).remote(journal)
    for _ in range(4):
        pid = ray.get(actor.pid.remote())
        actor.crash.remote()
        wait_for_restart(actor, pid)
    assert len(journal.lines()) == 5


def test_051_calls_in_flight_at_a_crash_fail_even_if_a_restart_follows(signal: Signal) -> None:
    actor = Worker.options(max_restarts=1).remote()
    pid = ray.get(actor.pid.remote())
    started = actor.wait.remote(signal)
    os.kill(pid, os_signal.SIGKILL)
    with pytest.raises(RayActorError):
        ray.get(started)
    wait_for_restart(actor, pid)


@pytest.mark.parametrize("threads", [1, 2])
def test_051_calls_in_line_at_a_crash_fail_with_it(threads: int, signal: Signal, journal: Journal) -> None:
    actor = Worker.options(max_restarts=1, max_concurrency=threads).remote()
    pid = ray.get(actor.pid.remote())
    running = [actor.wait.remote(signal) for _ in range(threads)]
    in_line = [actor.note.remote(journal, "in line") for _ in range(20)]
    os.kill(pid, os_signal.SIGKILL)
    for call in running + in_line:
        with pytest.raises(RayActorError):
            ray.get(call)
    wait_for_restart(actor, pid)
    assert journal.lines() == []


def test_052_max_task_retries_repeats_the_call_on_the_restarted_actor(journal: Journal) -> None:
    actor = Worker.options(max_restarts=1, max_task_retries=1).remote()
    assert ray.get(actor.crash_once.remote(journal)) == "survived"
    assert len(journal.lines()) == 2


@pytest.mark.differs_from_ray("Ray 2.60 sometimes swaps calls that were on their way to the dead process")
def test_052_retried_calls_keep_their_order(journal: Journal, tmp_path: Path) -> None:
    crashes = Journal(tmp_path / "crashes")
    actor = Worker.options(max_restarts=1, max_task_retries=2).remote()
    calls = [actor.note.remote(journal, "1"), actor.crash_once.remote(crashes)]
    calls += [actor.note.remote(journal, str(number)) for number in range(2, 8)]
    assert ray.get(calls)[1] == "survived"
    seen = list(dict.fromkeys(journal.lines()))  # a retried call may have run before the crash as well
    assert seen == [str(number) for number in range(1, 8)]


def test_052_task_retries_are_bounded(journal: Journal) -> None:
    actor = Worker.options(max_restarts=5, max_task_retries=1).remote(journal)
    with pytest.raises(RayActorError):
        ray.get(actor.crash.remote())
    # The first process, the one that met the retried call, and at most one that came after that.
    assert 2 <= len(journal.lines()) <= 3


def test_052_application_errors_of_actor_calls_are_not_retried(journal: Journal) -> None:
    @ray.remote(max_restarts=1, max_task_retries=3)
    class Failing:
        def fail(self) -> None:
            journal.add("attempt")
            raise ValueError("of the application")

        @ray.method(retry_exceptions=[KeyError])
        def fail_twice(self) -> str:
            if journal.add("retried") < 4:
                raise KeyError("again")
            return "third time"

    actor = Failing.remote()
    with pytest.raises(ValueError, match="of the application"):
        ray.get(actor.fail.remote())
    assert journal.lines() == ["attempt"]
    assert ray.get(actor.fail_twice.remote()) == "third time"


# --- intended ends -----------------------------------------------------------------------------------------------


def end_by_kill(actor: Any) -> None:
    ray.kill(actor)


def end_by_terminate(actor: Any) -> None:
    actor.__ray_terminate__.remote()


def end_by_exit(actor: Any) -> None:
    actor.leave.remote()


@pytest.mark.parametrize("end", [end_by_kill, end_by_terminate, end_by_exit])
def test_053_an_intended_end_is_never_restarted(end: Callable[[Any], None], journal: Journal) -> None:
    actor = Worker.options(max_restarts=-1, max_task_retries=-1).remote(journal)
    pid = ray.get(actor.pid.remote())
    end(actor)
    wait_until(lambda: not is_alive(pid), what="the process to end")
    with pytest.raises(RayActorError):
        ray.get(actor.pid.remote())
    assert journal.lines() == ["started"]


def test_054_kill_can_allow_a_restart(journal: Journal) -> None:
    actor = Worker.options(max_restarts=1).remote(journal)
    pid = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    wait_for_restart(actor, pid)
    assert len(journal.lines()) == 2
    ray.kill(actor)
    with pytest.raises(RayActorError):
        ray.get(actor.pid.remote())


def test_054_kill_frees_the_name_and_runs_no_exit_hooks(journal: Journal) -> None:
    @ray.remote
    class Hooked:
        def __init__(self) -> None:
            import atexit

            atexit.register(journal.add, "atexit ran")

        def __ray_shutdown__(self) -> None:
            journal.add("__ray_shutdown__ ran")

        def pid(self) -> int:
            return os.getpid()

    actor = Hooked.options(name="hooked").remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    wait_until(lambda: not is_alive(pid), what="the killed process to end")
    wait_until(lambda: not is_named("hooked"), what="the name to be free")
    assert journal.lines() == []
    again = Hooked.options(name="hooked").remote()
    assert ray.get(again.pid.remote()) != pid


def test_054_kill_interrupts_a_running_call_and_fails_queued_ones(signal: Signal) -> None:
    actor = Worker.remote()
    calls = [actor.wait.remote(signal), actor.pid.remote()]
    ray.kill(actor)
    for ref in calls:
        with pytest.raises(RayActorError):
            ray.get(ref)


def test_054_killing_twice_is_harmless() -> None:
    actor = Worker.remote()
    ray.kill(actor)
    ray.kill(actor)
    with pytest.raises(RayActorError):
        ray.get(actor.pid.remote())


@pytest.mark.parametrize("stranger", [1, "name", None, Worker])
def test_055_kill_of_something_else_is_a_value_error(stranger: object) -> None:
    with pytest.raises(ValueError, match="(?i)actor"):
        ray.kill(stranger)


@pytest.mark.parametrize("stranger", [1, "name", None, Worker])
def test_055_cancel_of_something_else_is_a_type_error(stranger: object) -> None:
    with pytest.raises(TypeError, match="(?i)object ?ref"):
        ray.cancel(stranger)


# --- out of scope ------------------------------------------------------------------------------------------------


def test_070_an_actor_ends_when_its_last_handle_is_dropped() -> None:
    actor = Worker.remote()
    pid = ray.get(actor.pid.remote())
    copy = actor
    del actor
    assert ray.get(copy.pid.remote()) == pid
    del copy
    gc.collect()
    wait_until(lambda: not is_alive(pid), what="the process of the forgotten actor to end")


def test_070_queued_work_is_finished_first(signal: Signal, journal: Journal) -> None:
    actor = Worker.remote()
    pid = ray.get(actor.pid.remote())
    waiting = actor.wait.remote(signal)
    noted = [actor.note.remote(journal, str(number)) for number in range(5)]
    del actor
    gc.collect()
    signal.set()
    assert ray.get(waiting) == "waited"
    assert ray.get(noted) == ["0", "1", "2", "3", "4"]
    wait_until(lambda: not is_alive(pid), what="the process to end after its work")
    assert len(journal.lines()) == 5


def test_070_a_handle_held_by_another_process_keeps_the_actor() -> None:
    @ray.remote
    class Keeper:
        def keep(self, handles: list[Any]) -> None:
            self.handles = handles

        def ask(self) -> int:
            return int(ray.get(self.handles[0].count.remote()))

        def drop(self) -> None:
            self.handles = []
            gc.collect()

    keeper, actor = Keeper.remote(), Worker.remote()
    pid = ray.get(actor.pid.remote())
    ray.get(keeper.keep.remote([actor]))
    del actor
    gc.collect()
    assert ray.get([keeper.ask.remote(), keeper.ask.remote()]) == [1, 2]
    ray.get(keeper.drop.remote())
    wait_until(lambda: not is_alive(pid), what="the process to end after the last holder let go")


def test_070_a_handle_inside_a_stored_object_keeps_the_actor() -> None:
    actor = Worker.remote()
    pid = ray.get(actor.pid.remote())
    stored = ray.put({"handle": actor})
    del actor
    gc.collect()
    again = ray.get(stored)["handle"]
    assert ray.get(again.pid.remote()) == pid
    del again, stored
    gc.collect()
    wait_until(lambda: not is_alive(pid), what="the process to end with the object that held its handle")


def test_071_a_name_does_not_keep_an_actor_alive() -> None:
    actor = Worker.options(name="fleeting").remote()
    pid = ray.get(actor.pid.remote())
    assert ray.get(ray.get_actor("fleeting").pid.remote()) == pid
    del actor
    gc.collect()
    wait_until(lambda: not is_alive(pid), what="the named actor to end")
    wait_until(lambda: not is_named("fleeting"), what="the name to be free")


@pytest.mark.differs_from_ray("a handle from get_actor does not hold the actor in Ray")
def test_071_a_looked_up_handle_counts_like_any_other() -> None:
    actor = Worker.options(name="looked-up").remote()
    pid = ray.get(actor.pid.remote())
    other = ray.get_actor("looked-up")
    assert other == actor
    del actor
    gc.collect()
    assert ray.get(other.pid.remote()) == pid


# --- names -------------------------------------------------------------------------------------------------------


def test_074_a_named_actor_is_found_from_tasks() -> None:
    @ray.remote
    def count() -> int:
        return int(ray.get(ray.get_actor("shared").count.remote()))

    actor = Worker.options(name="shared").remote()
    assert sorted(ray.get([count.remote() for _ in range(3)])) == [1, 2, 3]
    assert ray.get(actor.count.remote()) == 4


def test_074_a_duplicate_name_fails_at_creation() -> None:
    actor = Worker.options(name="taken").remote()
    ray.get(actor.pid.remote())
    with pytest.raises(ActorAlreadyExistsError, match="taken") as caught:
        Worker.options(name="taken").remote()
    assert isinstance(caught.value, ValueError)
    other_namespace = Worker.options(name="taken", namespace="elsewhere").remote()
    assert ray.get(other_namespace.pid.remote()) != ray.get(actor.pid.remote())
    assert ray.get_actor("taken", namespace="elsewhere") == other_namespace


def test_074_a_missing_name_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        ray.get_actor("nobody")
    with pytest.raises(ValueError):
        ray.get_actor("")
    with pytest.raises(ValueError, match="nobody"):
        ray.get_actor("nobody", namespace="elsewhere")


def test_074_names_are_checked_at_creation() -> None:
    with pytest.raises(ValueError):
        Worker.options(name="").remote()
    with pytest.raises(TypeError):
        Worker.options(name=7).remote()
    with pytest.raises(TypeError):
        Worker.options(name=b"bytes").remote()


def test_075_get_if_exists_gets_the_actor_that_is_there() -> None:
    first = Worker.options(name="single", get_if_exists=True).remote()
    again = Worker.options(name="single", get_if_exists=True).remote()
    assert again == first
    assert ray.get(first.count.remote()) == 1 and ray.get(again.count.remote()) == 2


def test_075_get_if_exists_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Worker.options(get_if_exists=True).remote()


def test_075_losers_of_the_race_get_the_winners_handle(journal: Journal) -> None:
    @ray.remote(num_cpus=0.5)
    def race() -> tuple[int, Any]:
        actor = Worker.options(name="contended", get_if_exists=True).remote(journal)
        return ray.get(actor.pid.remote()), actor

    results = ray.get([race.remote() for _ in range(4)])
    assert len({pid for pid, _ in results}) == 1
    assert journal.lines() == ["started"]


# --- exit and the reasons in errors ------------------------------------------------------------------------------


def test_078_exit_actor_ends_it_and_fails_the_queue(signal: Signal) -> None:
    actor = Worker.remote()
    blocked = actor.wait.remote(signal)
    leaving, queued = actor.leave.remote(), actor.pid.remote()
    signal.set()
    assert ray.get(blocked) == "waited"
    for ref in (leaving, queued):
        with pytest.raises(RayActorError):
            ray.get(ref)


def test_078_exit_actor_ends_an_async_actor_at_once() -> None:
    @ray.remote
    class Async:
        async def leave(self) -> None:
            ray.actor.exit_actor()

        async def pid(self) -> int:
            return os.getpid()

    actor = Async.remote()
    pid = ray.get(actor.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(actor.leave.remote())
    wait_until(lambda: not is_alive(pid), what="the process to end")


def test_078_exit_actor_outside_an_actor_is_a_type_error() -> None:
    @ray.remote
    def leave() -> None:
        ray.actor.exit_actor()

    with pytest.raises(TypeError):
        ray.actor.exit_actor()
    with pytest.raises(TypeError) as caught:
        ray.get(leave.remote())
    assert isinstance(caught.value, RayTaskError)


def test_079_the_error_says_that_ray_kill_did_it() -> None:
    actor = Worker.remote()
    ray.get(actor.pid.remote())
    ray.kill(actor)
    with pytest.raises(RayActorError, match=r"killed by .?ray\.kill"):
        ray.get(actor.pid.remote())


def test_079_the_error_says_that_the_process_died() -> None:
    actor = Worker.remote()
    with pytest.raises(RayActorError, match="worker process has died"):
        ray.get(actor.crash.remote())
    with pytest.raises(RayActorError, match="worker process has died"):
        ray.get(actor.pid.remote())


def test_079_the_error_names_class_and_id() -> None:
    actor = Worker.remote()
    actor_id = ray.get(actor.__ray_call__.remote(lambda self: ray.get_runtime_context().get_actor_id()))
    with pytest.raises(RayActorError) as caught:
        ray.get(actor.crash.remote())
    assert caught.value.actor_id == actor_id
    assert "Worker" in str(caught.value) and actor_id in str(caught.value)
