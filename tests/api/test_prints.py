"""What workers print reaches their own driver, with a prefix that says who spoke."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Driver, Signal

PROGRAM = """
import os, sys
import redray as ray
from tests.helpers import Signal
GO, OPTIONS = Signal(sys.argv[1]), dict(pair.split("=") for pair in sys.argv[2:])
context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=OPTIONS.get("log", "yes") == "yes")

@ray.remote
def speak():
    print("a task speaks")
    print("on stderr", file=sys.stderr)
    print("first line\\nsecond line")
    return os.getpid()

@ray.remote
class Speaker:
    def speak(self):
        print("an actor speaks")
        return os.getpid()

@ray.remote
class Named:
    def __repr__(self):
        return "Named(7)"
    def speak(self):
        print("a named actor speaks")

task = ray.get(speak.remote())
speaker, named = Speaker.remote(), Named.remote()
actor = ray.get(speaker.speak.remote())
ray.get(named.speak.remote())
address = context.address_info["address"]
sys.stdout.write(f"pids {task} {actor} address {address} done\\n")  # whole: `print` would let others write in between
sys.stdout.flush()
GO.wait()
ray.shutdown()
print("the end", flush=True)
"""


@pytest.fixture
def driver(request: pytest.FixtureRequest, tmp_path: Path, signal: Signal, no_cluster: None) -> Iterator[Driver]:
    driver = Driver(tmp_path, PROGRAM, [signal.path, *getattr(request, "param", [])])
    yield driver
    driver.kill()


def line_with(text: str, output: str) -> str:
    return next(line for line in output.splitlines() if text in line)


def test_prints_of_tasks_and_actors_are_shown_with_their_origin(driver: Driver, signal: Signal) -> None:
    driver.wait_for_output("done")
    for text in ("a task speaks", "on stderr", "second line", "an actor speaks", "a named actor speaks"):
        driver.wait_for_output(text)
    task, actor = re.findall(r"pids (\d+) (\d+)", driver.output)[0]
    output = driver.output
    for text in ("a task speaks", "on stderr", "first line", "second line"):
        assert line_with(text, output).startswith(f"(speak pid={task}"), output
    assert line_with("an actor speaks", output).startswith(f"(Speaker pid={actor}"), output
    assert line_with("a named actor speaks", output).startswith("(Named(7) pid="), output
    signal.set()
    driver.finish()


@pytest.mark.parametrize("driver", [["log=no"]], indirect=True)
def test_prints_can_be_switched_off(driver: Driver, signal: Signal) -> None:
    driver.wait_for_output("done")
    signal.set()
    output = driver.finish()
    assert "the end" in output
    assert "speaks" not in output and "second line" not in output


def test_prints_of_other_jobs_are_not_shown(driver: Driver, signal: Signal, tmp_path: Path) -> None:
    driver.wait_for_output("done")
    driver.wait_for_output("an actor speaks")
    other = Driver(
        tmp_path,
        """
        import sys
        import redray as ray
        from tests.helpers import Signal
        ray.init(sys.argv[1])
        @ray.remote
        def whisper():
            print("a secret")
        ray.get(whisper.remote())
        Signal(sys.argv[2]).wait()
        """,
        [driver.output.partition("address ")[2].split()[0], signal.path],
        name="other.py",
    )
    try:
        other.wait_for_output("a secret")
        assert "a secret" not in driver.output
        assert "an actor speaks" not in other.output
        signal.set()
        other.finish()
        assert "a secret" not in driver.finish()
    finally:
        other.kill()


REPEATS = """
import os, sys, time
import redray as ray
ray.init("local", num_cpus=2, include_dashboard=False)

@ray.remote
class Speaker:
    def speak(self):
        print("we all say this")

speakers = [Speaker.options(num_cpus=0).remote() for _ in range(4)]
ray.get([speaker.speak.remote() for speaker in speakers])
sys.stdout.write("spoken\\n")
sys.stdout.flush()
ray.shutdown()
"""


def test_lines_that_many_processes_print_are_shown_once(tmp_path: Path, no_cluster: None) -> None:
    driver = Driver(tmp_path, REPEATS)
    output = driver.finish()
    assert output.count("we all say this") == 2, output
    assert "we all say this [repeated 3x across cluster]" in output
    assert "RAY_DEDUP_LOGS=0" in output


def test_every_line_is_shown_on_request(tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    output = Driver(tmp_path, REPEATS).finish()
    assert output.count("we all say this") == 4, output
    assert "repeated" not in output


def test_progress_bars_of_tasks(tmp_path: Path, no_cluster: None) -> None:
    driver = Driver(
        tmp_path,
        """
        import redray as ray
        from redray.experimental import tqdm_ray
        ray.init("local", num_cpus=2, include_dashboard=False)
        @ray.remote
        def work(name):
            for _ in tqdm_ray.tqdm(range(10), desc=name):
                pass
        ray.get([work.remote("left"), work.remote("right")])
        bar = tqdm_ray.tqdm(desc="own", total=3)
        bar.update(3)
        bar.close()
        ray.shutdown()
        """,
    )
    output = driver.finish()
    for name in ("left", "right"):
        assert any(line.startswith(f"{name}: 100%") and "10/10" in line for line in output.splitlines()), output
    assert "own: 100%" in output
    assert "redray_progress" not in output
