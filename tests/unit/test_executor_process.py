"""Workers as processes: how they print, how they die, what their node learns of it."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redray.exceptions import ActorDiedError
from redray.exit import ActorExitRequested
from redray.gcs.schema import Outcome
from redray.messages import Run
from redray.spec import ACTOR_CALL, ACTOR_CREATION, unpack_head
from tests.helpers import wait_until
from tests.unit.fake_host import EXIT, current, payload, result, run
from tests.unit.worker_process import Node, Worker, is_running, node

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


# ---- what the workers run --------------------------------------------------------------------------------------------
def say(*words: str) -> None:
    print(*words)
    print(*words, file=sys.stderr)


def partly() -> None:
    print("no end of line", end="")


def sleep_long() -> str:
    print("sleeping")
    time.sleep(600)
    return "slept"


def spin_long() -> None:
    print("spinning")
    while True:
        pass


def close_stdout() -> None:
    sys.stdout.close()


def close_descriptors() -> None:
    os.close(1)
    os.close(2)
    open(os.devnull)  # takes number 1, so that a print would go there
    raise RuntimeError("closed")


def leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def fork_and_return() -> int:
    return os.fork()


def run_child() -> str:
    return subprocess.run(["echo", "from a child"], capture_output=True, text=True, check=True).stdout


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kind_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
    except FileNotFoundError:
        return ""


def swallow() -> str:
    try:
        print("swallowing")
        time.sleep(600)
    except BaseException:
        return "swallowed"
    return "slept"


class Ender:
    """An actor that can end in every way."""

    def __init__(self) -> None:
        self.blocked = threading.Event()
        atexit.register(print, "atexit ran")

    def exit(self) -> None:
        """As `exit_actor` does."""
        context = current.get()
        assert context is not None
        context.exits = True
        raise ActorExitRequested

    def swallow_exit(self) -> str:
        try:
            self.exit()
        except BaseException:
            return "swallowed"
        return "not reached"

    def sys_exit(self) -> None:
        sys.exit(4)

    def add(self) -> int:
        return 1

    def block(self) -> None:
        print("blocking")
        self.blocked.wait()

    def later(self) -> str:
        print("later")
        time.sleep(0.05)
        return "done"

    def __ray_shutdown__(self) -> None:
        print("shutdown hook ran")


class AsyncEnder(Ender):
    async def block(self) -> None:  # type: ignore[override]
        print("blocking")
        await asyncio.sleep(600)

    async def later(self) -> str:  # type: ignore[override]
        print("later")
        await asyncio.sleep(0.05)
        return "done"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "say": say,
    "partly": partly,
    "sleep": sleep_long,
    "spin": spin_long,
    "close_stdout": close_stdout,
    "close_descriptors": close_descriptors,
    "leave_thread": leave_thread,
    "fork": fork_and_return,
    "child": run_child,
    "ignore_interrupts": ignore_interrupts,
    "swallow": swallow,
    "one": lambda: 1,
    "random": random.random,
    "environment": lambda name: os.environ.get(name),
    "os_exit": os._exit,
    "sys_exit": sys.exit,
    "kill": lambda number: os.kill(os.getpid(), number),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "read": lambda: sys.stdin.read(),
    "pid": os.getpid,
    "descriptors": lambda: [kind for kind in map(kind_of, range(256)) if kind],
    "group": lambda: (os.getsid(0), os.getpgid(0)),
    "Ender": Ender,
    "AsyncEnder": AsyncEnder,
}


@pytest.fixture
def cluster() -> Iterator[Node]:
    with node(FUNCTIONS) as running:
        yield running


def task_of(work: Run) -> str:
    return unpack_head(work.spec).task


# ---- output ----------------------------------------------------------------------------------------------------------
def test_prints_arrive_as_lines(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("say", payload("grüße", "\ud800")), run("partly"), EXIT)
    cluster.exited(worker)
    assert worker.printed == ["grüße \\ud800", "no end of line"]
    assert worker.complained == ["grüße \\ud800"]
    assert not worker.err.tail, "words of a task that has ended are no last words"


@pytest.mark.parametrize("how", ["close_stdout", "close_descriptors"])
def test_closed_streams_are_opened_again(cluster: Node, how: str) -> None:
    worker = cluster.worker()
    worker.give(run(how))
    cluster.done(worker)
    worker.give(run("say", payload("still here")), EXIT)
    cluster.exited(worker)
    assert worker.printed == ["still here"]
    assert worker.dones()[1].outcome == Outcome.VALUE


def test_stdin_is_empty(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("read"))
    assert result(cluster.done(worker)) == ""


# ---- death -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "argument", "code"),
    [
        ("os_exit", 7, 7),
        ("sys_exit", 3, 3),
        ("kill", int(signal.SIGKILL), -signal.SIGKILL),
        ("kill", int(signal.SIGTERM), -signal.SIGTERM),
        ("kill", int(signal.SIGSEGV), -signal.SIGSEGV),
        ("segfault", None, -signal.SIGSEGV),
        ("abort", None, -signal.SIGABRT),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_death_is_reported_with_its_status_and_the_run_that_had_started(
    cluster: Node, how: str, argument: object, code: int
) -> None:
    worker = cluster.worker()
    before, deadly, after = run("one"), run(how, payload(argument) if argument else b"", attempt=2), run("one")
    worker.give(before, deadly, after)
    report = cluster.exited(worker)
    assert os.waitstatus_to_exitcode(report.status) == code
    assert report.started == deadly.serial
    assert not is_running(worker.pid)


def test_022_sys_exit_sends_earlier_results_first(cluster: Node) -> None:
    worker = cluster.worker()
    first = run("one")
    worker.give(first, run("sys_exit", payload(0)), run("one"))
    assert os.waitstatus_to_exitcode(cluster.exited(worker).status) == 0
    assert [done.task for done in worker.dones()] == [task_of(first)]


def test_a_thread_left_behind_does_not_keep_the_worker(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("leave_thread"), run("one"), EXIT)
    assert cluster.exited(worker).status == 0
    assert len(worker.dones()) == 2


def test_a_fork_that_comes_back_ends_and_leaves_the_channel_to_its_parent(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("fork"), run("one"), EXIT)
    cluster.exited(worker)
    child, one = worker.dones()
    assert result(child) > 0
    cluster.wait(lambda: not is_running(result(child)), "end of the forked child")
    assert result(one) == 1


def test_children_of_a_task_work_as_usual(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("child"))
    assert result(cluster.done(worker)) == "from a child\n"


def test_workers_die_with_their_template(cluster: Node) -> None:
    workers = [cluster.worker() for _ in range(3)]
    for worker in workers:
        worker.give(run("leave_thread"), run("spin"))
    cluster.wait(lambda: all("spinning" in worker.printed for worker in workers), "spinning")
    cluster.template.close()
    wait_until(lambda: not any(is_running(worker.pid) for worker in workers), what="the end of the workers")


# ---- cancel ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_057_a_running_task_is_interrupted_and_the_next_runs(cluster: Node, what: str) -> None:
    worker = cluster.worker()
    long = run(what, attempt=2)
    worker.give(long, run("one"))
    cluster.wait(lambda: worker.printed, "first line")
    cluster.template.interrupt(worker.name, task_of(long), 2)
    assert cluster.done(worker).outcome == Outcome.CANCELLED
    assert result(cluster.done(worker, 2)) == 1


def test_an_interrupt_meant_for_another_attempt_is_ignored(cluster: Node) -> None:
    worker = cluster.worker()
    work = run("swallow")
    worker.give(work, run("one"))
    cluster.wait(lambda: worker.printed, "first line")
    cluster.template.interrupt(worker.name, "ab" * 12, 1)
    os.kill(worker.pid, signal.SIGINT)
    cluster.template.interrupt(worker.name, task_of(work), 1)
    assert result(cluster.done(worker)) == "swallowed"
    assert result(cluster.done(worker, 2)) == 1


def test_an_idle_worker_survives_interrupts(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("ignore_interrupts"))
    cluster.done(worker)
    cluster.template.interrupt(worker.name, "ab" * 12, 1)
    work = run("sleep")
    worker.give(work)
    cluster.wait(lambda: worker.printed, "first line")
    cluster.template.interrupt(worker.name, task_of(work), 1)
    assert cluster.done(worker, 2).outcome == Outcome.CANCELLED


# ---- a process of its own --------------------------------------------------------------------------------------------
def test_each_worker_draws_its_own_random_numbers(cluster: Node) -> None:
    drawn = set()
    for _ in range(3):
        worker = cluster.worker()
        worker.give(run("random"))
        drawn.add(result(cluster.done(worker)))
    assert len(drawn) == 3


def test_the_environment_asked_for_is_set(cluster: Node) -> None:
    worker = cluster.worker({"REDRAY_TEST_VALUE": "set"})
    worker.give(run("environment", payload("REDRAY_TEST_VALUE")))
    assert result(cluster.done(worker)) == "set"


def test_a_worker_holds_no_descriptor_but_its_own(cluster: Node) -> None:
    cluster.worker()
    worker = cluster.worker()
    worker.give(run("descriptors"))
    found = sorted(result(cluster.done(worker)))
    assert found == [os.devnull, "pipe", "pipe", "pipe", "pipe", "socket"]  # stdout and stderr have spare copies


def test_workers_are_in_a_session_of_their_own(cluster: Node) -> None:
    worker = cluster.worker()
    worker.give(run("group"))
    session, group = result(cluster.done(worker))
    assert session == group == cluster.template.pid != os.getsid(0)


# ---- ends of actors --------------------------------------------------------------------------------------------------
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("Ender", {}),
    "threaded": ("Ender", {"max_concurrency": 4}),
    "async": ("AsyncEnder", {"is_async": True}),
}


def actor(cluster: Node, kind: str) -> Worker:
    name, options = KINDS[kind]
    worker = cluster.worker()
    worker.give(run(name, kind=ACTOR_CREATION, actor="ac" * 12, options=options, num_returns=0))
    assert cluster.done(worker).outcome == Outcome.VALUE
    return worker


def call(method: str) -> Run:
    return run(method, kind=ACTOR_CALL, actor="ac" * 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["exit", "swallow_exit", "__ray_terminate__"])
def test_078_an_actor_ends_itself(cluster: Node, kind: str, how: str) -> None:
    worker = actor(cluster, kind)
    worker.give(call("add"), call(how))
    assert cluster.exited(worker).status == 0
    _, added, ended = worker.dones()
    assert result(added) == 1
    assert isinstance(result(ended), ActorDiedError)
    assert result(ended).actor_id == "ac" * 12
    assert len(worker.farewells()) == 1
    assert worker.printed == ["shutdown hook ran", "atexit ran"]


def test_078_other_calls_fail_when_an_async_actor_ends_itself(cluster: Node) -> None:
    worker = actor(cluster, "async")
    worker.give(call("block"))
    cluster.wait(lambda: worker.printed, "blocking")
    worker.give(call("exit"))
    cluster.exited(worker)
    errors = [result(done) for done in worker.dones()[1:]]
    assert [type(error) for error in errors] == [ActorDiedError] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["exit message", "terminate"])
def test_070_calls_that_have_begun_end_before_the_actor_does(cluster: Node, kind: str, how: str) -> None:
    worker = actor(cluster, kind)
    worker.give(call("later"), EXIT if how == "exit message" else call("__ray_terminate__"))
    assert cluster.exited(worker).status == 0
    assert result(worker.dones()[1]) == "done"
    assert worker.printed == ["later", "shutdown hook ran", "atexit ran"]
    assert len(worker.farewells()) == (0 if how == "exit message" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_022_sys_exit_in_an_actor_ends_its_process(cluster: Node, kind: str) -> None:
    worker = actor(cluster, kind)
    worker.give(call("sys_exit"))
    report = cluster.exited(worker)
    assert os.waitstatus_to_exitcode(report.status) == 4
    assert worker.farewells() == []
    assert len(worker.dones()) == 1
