"""Several drivers on one cluster, and what they see of their workers: spec lines 70, 72, 73, 79 and 97."""

from __future__ import annotations

import os
import re
import signal as os_signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayActorError
from tests.helpers import Driver, Journal, Signal, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

# What every program below begins with: ADDRESS is the cluster, GO the signal it may wait for.
PREAMBLE = """
import os, sys
import redray as ray
from redray.exceptions import *
from tests.helpers import Journal, Signal
ADDRESS, GO = sys.argv[1], Signal(sys.argv[2])

@ray.remote
class Actor:
    def __init__(self):
        self.calls = 0
    def count(self):
        self.calls += 1
        return self.calls
    def pid(self):
        return os.getpid()
"""

Start = Callable[..., Driver]


@ray.remote
class Actor:
    def __init__(self) -> None:
        self.calls = 0

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def start_driver(address: str, tmp_path: Path, signal: Signal) -> Iterator[Start]:
    """Starts a second driver that runs the given lines; ends it after the test."""
    drivers: list[Driver] = []

    def start(source: str) -> Driver:
        name = f"driver{len(drivers)}.py"
        lines = "\n".join(line[8:] if line.startswith(" " * 8) else line for line in source.splitlines())
        drivers.append(Driver(tmp_path, PREAMBLE + lines, [address, signal.path], name=name))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()


def number_after(word: str, text: str) -> int:
    found = re.search(rf"{word} (\d+)", text)
    assert found, f"no number after {word!r} in {text!r}"
    return int(found.group(1))


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_070_an_actor_ends_with_its_driver(end: str, start_driver: Start, signal: Signal) -> None:
    driver = start_driver("""
        ray.init(ADDRESS)
        actor = Actor.options(name="private", namespace="observed").remote()
        print("actor", ray.get(actor.pid.remote()), "is up", flush=True)
        GO.wait()
        """)
    pid = number_after("actor", driver.wait_for_output("is up"))
    assert is_alive(pid)
    if end == "exit":
        signal.set()
        driver.finish()
    else:
        driver.kill()
    wait_until(lambda: not is_alive(pid), what="the actor of the ended driver to end")
    with pytest.raises(ValueError, match="private"):
        ray.get_actor("private", namespace="observed")


def test_070_the_work_of_a_killed_driver_is_cancelled(start_driver: Start, journal: Journal) -> None:
    driver = start_driver(f"""
        ray.init(ADDRESS)
        journal = Journal({journal.path!r})
        @ray.remote(max_retries=-1)
        def hold():
            journal.add(os.getpid())
            GO.wait()
        refs = [hold.remote() for _ in range(6)]
        GO.wait()
        """)
    wait_until(lambda: len(journal.lines()) == 2, what="both CPUs to be busy for the other driver")
    driver.kill()
    pids = [int(line) for line in journal.lines()]
    wait_until(lambda: not any(map(is_alive, pids)), what="the tasks of the killed driver to end")

    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="both CPUs to be free")
    assert len(journal.lines()) == 2, "its queued tasks never start"


def test_070_an_actor_ends_with_the_process_that_created_it() -> None:
    @ray.remote
    class Creator:
        def create(self) -> list[Any]:
            return [Actor.remote()]

        def crash(self) -> None:
            os.kill(os.getpid(), os_signal.SIGKILL)

    creator = Creator.remote()
    (child,) = ray.get(creator.create.remote())
    pid = ray.get(child.pid.remote())
    creator.crash.remote()
    wait_until(lambda: not is_alive(pid), what="the child of the dead actor to end")
    with pytest.raises(RayActorError, match="owner has died"):  # line 79
        ray.get(child.count.remote())


def test_072_a_detached_actor_survives_its_driver(start_driver: Start) -> None:
    driver = start_driver("""
        ray.init(ADDRESS, namespace="shared")
        actor = Actor.options(name="survivor", lifetime="detached", max_restarts=1).remote()
        print("calls", ray.get(actor.count.remote()))
        """)
    assert number_after("calls", driver.finish()) == 1
    actor = ray.get_actor("survivor", namespace="shared")
    assert ray.get(actor.count.remote()) == 2
    pid = ray.get(actor.pid.remote())
    os.kill(pid, os_signal.SIGKILL)

    def answers_again() -> bool:
        try:
            return bool(ray.get(actor.pid.remote()) != pid)
        except RayActorError:
            return False

    wait_until(answers_again, what="the detached actor to restart without its driver")
    assert ray.get(actor.count.remote()) == 1
    ray.kill(actor)
    wait_until(lambda: not is_named("survivor", "shared"), what="the name to be free")


def test_072_a_detached_actor_survives_its_last_handle() -> None:
    actor = Actor.options(name="alone", lifetime="detached").remote()
    assert ray.get(actor.count.remote()) == 1
    pid = ray.get(actor.pid.remote())
    del actor
    again = ray.get_actor("alone")
    assert ray.get([again.count.remote(), again.pid.remote()]) == [2, pid]
    ray.kill(again)


def test_072_a_detached_actor_survives_a_killed_driver(start_driver: Start) -> None:
    driver = start_driver("""
        ray.init(ADDRESS, namespace="shared")
        actor = Actor.options(name="survivor", lifetime="detached").remote()
        print("calls", ray.get(actor.count.remote()), "done", flush=True)
        GO.wait()
        """)
    driver.wait_for_output("done")
    driver.kill()
    actor = ray.get_actor("survivor", namespace="shared")
    assert ray.get(actor.count.remote()) == 2
    ray.kill(actor)


def test_072_what_a_detached_actor_starts_for_a_driver_survives_that_driver(start_driver: Start) -> None:
    driver = start_driver("""
        ray.init(ADDRESS, namespace="shared")
        @ray.remote
        def add(a, b):
            return a + b
        @ray.remote
        class Keeper:
            def keep(self):
                self.child = Actor.remote()
                self.task = add.remote(1, 2)
                return ray.get(self.child.count.remote())
            def ask(self):
                return ray.get([self.child.count.remote(), self.task, add.remote(3, 4)])
        keeper = Keeper.options(name="keeper", lifetime="detached", num_cpus=0).remote()
        print("calls", ray.get(keeper.keep.remote()))
        """)
    assert number_after("calls", driver.finish()) == 1
    keeper = ray.get_actor("keeper", namespace="shared")
    assert ray.get(keeper.ask.remote()) == [2, 3, 7]
    ray.kill(keeper)
    wait_until(lambda: not is_named("keeper", "shared"), what="the name to be free")


def test_072_functions_of_a_detached_actor_stay_when_a_driver_that_had_it_use_them_left(start_driver: Start) -> None:
    @ray.remote
    class Caller:
        def call(self, number: int) -> int:
            return int(ray.get(double.remote(number)))

    @ray.remote
    def double(number: int) -> int:
        return 2 * number

    caller = Caller.options(name="caller", namespace="shared", lifetime="detached").remote()
    driver = start_driver("""
        ray.init(ADDRESS, namespace="shared")
        print("double", ray.get(ray.get_actor("caller").call.remote(1)))
        """)
    assert number_after("double", driver.finish()) == 2
    assert ray.get(caller.call.remote(2)) == 4
    ray.kill(caller)
    wait_until(lambda: not is_named("caller", "shared"), what="the name to be free")


def is_named(name: str, namespace: str) -> bool:
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return False
    return True


def test_073_names_are_private_without_a_namespace(start_driver: Start) -> None:
    mine = Actor.options(name="here").remote()
    ray.get(mine.count.remote())
    driver = start_driver("""
        ray.init(ADDRESS)
        try:
            ray.get_actor("here")
        except ValueError:
            print("not found")
        actor = Actor.options(name="here").remote()
        print("calls", ray.get(actor.count.remote()))
        """)
    output = driver.finish()
    assert "not found" in output
    assert number_after("calls", output) == 1
    assert ray.get(mine.count.remote()) == 2


def test_073_drivers_of_one_namespace_share_names(start_driver: Start) -> None:
    mine = Actor.options(name="common", namespace="office").remote()
    assert ray.get(mine.count.remote()) == 1
    driver = start_driver("""
        ray.init(ADDRESS, namespace="office")
        actor = ray.get_actor("common")
        print("calls", ray.get(actor.count.remote()))
        try:
            Actor.options(name="common").remote()
        except ValueError as error:
            print("refused as", type(error).__name__)
        """)
    output = driver.finish()
    assert number_after("calls", output) == 2
    assert "refused as ActorAlreadyExistsError" in output
    assert ray.get(mine.count.remote()) == 3


def test_073_jobs_never_share_worker_processes(start_driver: Start) -> None:
    @ray.remote
    def pid() -> int:
        return os.getpid()

    ours = set(ray.get([pid.remote() for _ in range(10)]))
    driver = start_driver("""
        ray.init(ADDRESS)
        @ray.remote
        def pid():
            return os.getpid()
        print("pids", *sorted(set(ray.get([pid.remote() for _ in range(10)]))))
        """)
    theirs = {int(word) for word in driver.finish().partition("pids")[2].split()}
    assert theirs and not ours & theirs


def test_073_drivers_work_side_by_side(start_driver: Start, signal: Signal, tmp_path: Path) -> None:
    there = Signal(tmp_path / "there")
    driver = start_driver(f"""
        ray.init(ADDRESS)
        @ray.remote
        def meet():
            Signal({there.path!r}).set()
            GO.wait()
            return "met"
        print(ray.get(meet.remote()))
        """)

    @ray.remote
    def meet() -> str:
        there.wait()
        signal.set()
        return "met"

    assert ray.get(meet.remote()) == "met"
    assert "met" in driver.finish()


def test_097_workers_import_what_lies_beside_the_script(start_driver: Start, tmp_path: Path) -> None:
    (tmp_path / "beside_the_script.py").write_text("def answer():\n    return 42\n")
    driver = start_driver("""
        import beside_the_script
        ray.init(ADDRESS)
        @ray.remote
        def by_reference():
            return beside_the_script.answer()
        @ray.remote
        def by_import():
            from beside_the_script import answer
            return answer()
        as_it_is = ray.remote(beside_the_script.answer)
        print("answers", *ray.get([by_reference.remote(), by_import.remote(), as_it_is.remote()]))
        """)
    assert "answers 42 42 42" in driver.finish()


@pytest.mark.differs_from_ray("Ray hands on the script's folder and the working directory only")
def test_097_workers_import_from_the_drivers_sys_path(start_driver: Start, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "found_by_path.py").write_text("ANSWER = 43\n")
    driver = start_driver(f"""
        sys.path.append({str(tmp_path / "elsewhere")!r})
        ray.init(ADDRESS)
        @ray.remote
        def by_import():
            import found_by_path
            return found_by_path.ANSWER
        print("answer", ray.get(by_import.remote()))
        """)
    assert number_after("answer", driver.finish()) == 43


def test_097_classes_of_the_script_travel_both_ways(start_driver: Start) -> None:
    driver = start_driver("""
        class Point:
            def __init__(self, x):
                self.x = x
        ray.init(ADDRESS)
        @ray.remote
        def moved(point):
            assert isinstance(point, Point)
            return Point(point.x + 1)
        point = ray.get(moved.remote(Point(1)))
        assert type(point) is Point
        print("x", point.x)
        """)
    assert number_after("x", driver.finish()) == 2
