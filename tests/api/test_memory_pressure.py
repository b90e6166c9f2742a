"""A node that runs out of memory: spec lines 48 and 49. What the machine is said to have is a file of the test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import OutOfMemoryError, WorkerCrashedError
from tests.helpers import PATIENCE, Journal, is_alive, wait_until


class Machine:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "meminfo"

    def has(self, available: int) -> None:
        """Out of 100."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"MemTotal: 1000 kB\nMemAvailable: {10 * available} kB\n")
        os.replace(beside, self._file)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]) -> Machine:
    machine = Machine(tmp_path)
    machine.has(50)
    monkeypatch.setenv("REDRAY_PROCFS", str(tmp_path))
    start(num_cpus=1)
    return machine


@ray.remote
def hungry(journal: Journal) -> str:
    if journal.add(f"{time.monotonic()} {os.getpid()}") > 1:
        return "enough"
    while True:
        time.sleep(0.1)


@ray.remote
class Hungry:
    def eat(self, journal: Journal) -> None:
        journal.add("eats")
        while True:
            time.sleep(0.1)


@pytest.mark.differs_from_ray("it measures the machine itself")
def test_048_a_task_killed_for_memory_runs_again_after_a_while(machine: Machine, journal: Journal) -> None:
    ref = hungry.options(max_retries=1).remote(journal)
    wait_until(journal.lines, what="the task to begin")
    pid = int(journal.lines()[0].split()[1])
    machine.has(1)
    wait_until(lambda: not is_alive(pid), what="its worker to be killed")
    machine.has(50)
    assert ray.get(ref, timeout=PATIENCE) == "enough"
    first, second = (float(line.split()[0]) for line in journal.lines())
    assert second - first >= 1.0


@pytest.mark.differs_from_ray("it measures the machine itself")
def test_049_without_retries_it_is_an_out_of_memory_error(machine: Machine, journal: Journal) -> None:
    ref = hungry.options(max_retries=0).remote(journal)
    wait_until(journal.lines, what="the task to begin")
    machine.has(1)
    with pytest.raises(OutOfMemoryError, match="ran out of memory.*99%") as caught:
        ray.get(ref, timeout=PATIENCE)
    assert not isinstance(caught.value, WorkerCrashedError)


@pytest.mark.differs_from_ray("it measures the machine itself")
def test_049_so_is_the_call_of_an_actor(machine: Machine, journal: Journal) -> None:
    actor = Hungry.remote()
    ref = actor.eat.remote(journal)
    wait_until(journal.lines, what="the call to begin")
    machine.has(1)
    with pytest.raises(OutOfMemoryError, match="ran out of memory"):
        ray.get(ref, timeout=PATIENCE)
