"""Retries of tasks: spec lines 45, 46 and the crash part of 22."""

from __future__ import annotations

import os
import signal as os_signal
import sys
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayTaskError, WorkerCrashedError
from tests.helpers import Journal, Signal

pytestmark = pytest.mark.usefixtures("cluster")


def crash() -> None:
    os.kill(os.getpid(), os_signal.SIGKILL)


@ray.remote
def crash_until(journal: Journal, attempt: int) -> int:
    reached = journal.add(os.getpid())
    if reached < attempt:
        os.kill(os.getpid(), os_signal.SIGKILL)
    return reached


def test_045_three_crashes_are_retried_by_default(journal: Journal) -> None:
    assert ray.get(crash_until.remote(journal, 4)) == 4
    assert len(set(journal.lines())) == 4, "each attempt has a process of its own"


def test_045_a_fourth_crash_is_the_end_by_default(journal: Journal) -> None:
    with pytest.raises(WorkerCrashedError):
        ray.get(crash_until.remote(journal, 100))
    assert len(journal.lines()) == 4


@pytest.mark.parametrize("retries", [0, 1])
def test_045_max_retries_bounds_the_attempts(retries: int, journal: Journal) -> None:
    with pytest.raises(WorkerCrashedError) as caught:
        ray.get(crash_until.options(max_retries=retries).remote(journal, 100))
    assert not isinstance(caught.value, RayTaskError)
    assert len(journal.lines()) == retries + 1


def test_045_max_retries_minus_one_is_without_bound(journal: Journal) -> None:
    assert ray.get(crash_until.options(max_retries=-1).remote(journal, 7)) == 7


@pytest.mark.differs_from_ray("redray's error carries how the process died")
def test_045_the_error_of_a_crash_names_the_signal_and_the_last_words() -> None:
    @ray.remote(max_retries=0)
    def dies() -> None:
        os.write(2, b"last words on stderr\n")
        os.kill(os.getpid(), os_signal.SIGKILL)

    with pytest.raises(WorkerCrashedError, match="(?s)dies.*(SIGKILL|signal 9).*last words on stderr"):
        ray.get(dies.remote())


@pytest.mark.differs_from_ray("redray's error carries how the process died")
def test_045_the_last_words_are_those_of_the_task_that_died() -> None:
    @ray.remote(max_retries=0)
    def say(text: str, dies: bool) -> int:
        print(text, file=sys.stderr, end="" if text == "unfinished" else "\n")
        if dies:
            os._exit(3)
        return os.getpid()

    for _ in range(20):
        # One worker runs several tasks, sooner or later the one that dies.
        ray.get([say.remote("of another task", False), say.remote("unfinished", False)])
        with pytest.raises(WorkerCrashedError) as caught:
            ray.get(say.remote("my last words", True))
        assert "my last words" in str(caught.value)
        assert "of another task" not in str(caught.value) and "unfinished" not in str(caught.value)


@pytest.mark.differs_from_ray("redray's error carries how the process died")
def test_045_the_error_of_an_exit_names_the_exit_code() -> None:
    @ray.remote(max_retries=0)
    def leaves() -> None:
        os._exit(77)

    with pytest.raises(WorkerCrashedError, match="77"):
        ray.get(leaves.remote())


def test_045_application_errors_are_not_retried(journal: Journal) -> None:
    @ray.remote
    def fail() -> None:
        journal.add("attempt")
        raise ValueError("of the application")

    with pytest.raises(ValueError):
        ray.get(fail.remote())
    assert journal.lines() == ["attempt"]


def test_045_a_crash_harms_no_neighbour(journal: Journal, signal: Signal) -> None:
    @ray.remote(num_cpus=0.5)
    def neighbour() -> str:
        signal.wait()
        return "unharmed"

    @ray.remote(num_cpus=0.5, max_retries=0)
    def dies() -> None:
        os.kill(os.getpid(), os_signal.SIGKILL)

    others = [neighbour.remote(), neighbour.remote()]
    for _ in range(2):
        with pytest.raises(WorkerCrashedError):
            ray.get(dies.remote())
    signal.set()
    assert ray.get(others) == ["unharmed"] * 2


def test_045_a_retried_task_gets_its_arguments_again(journal: Journal) -> None:
    @ray.remote
    def total(values: Any, refs: list[Any]) -> int:
        if journal.add("attempt") < 3:
            os.kill(os.getpid(), os_signal.SIGKILL)
        return sum(values) + sum(ray.get(refs))

    assert ray.get(total.remote(ray.put([1, 2]), [ray.put(3), ray.put(4)])) == 10


class Transient(Exception):
    pass


class Worse(Transient):
    pass


@ray.remote(max_retries=3)
def fails_at_first(journal: Journal, failures: list[str]) -> int:
    kinds: dict[str, Any] = {"Transient": Transient, "Worse": Worse, "ValueError": ValueError}
    attempt = journal.add("attempt")
    if attempt <= len(failures):
        kind = failures[attempt - 1]
        if kind == "crash":
            os.kill(os.getpid(), os_signal.SIGKILL)
        raise kinds[kind](f"attempt {attempt}")
    return attempt


def test_046_retry_exceptions_true_retries_every_exception(journal: Journal) -> None:
    task = fails_at_first.options(retry_exceptions=True)
    assert ray.get(task.remote(journal, ["Transient", "ValueError", "Worse"])) == 4


def test_046_a_list_retries_instances_of_its_classes_only(journal: Journal) -> None:
    task = fails_at_first.options(retry_exceptions=[Transient])
    assert ray.get(task.remote(journal, ["Transient", "Worse"])) == 3


def test_046_another_class_is_not_retried(journal: Journal) -> None:
    task = fails_at_first.options(retry_exceptions=[Transient])
    with pytest.raises(ValueError, match="attempt 2"):
        ray.get(task.remote(journal, ["Transient", "ValueError"]))
    assert len(journal.lines()) == 2


def test_046_the_last_error_is_the_one_seen(journal: Journal) -> None:
    task = fails_at_first.options(retry_exceptions=True, max_retries=2)
    with pytest.raises(Transient, match="attempt 3"):
        ray.get(task.remote(journal, ["Transient"] * 10))
    assert len(journal.lines()) == 3


@pytest.mark.parametrize("failures", [["crash", "Transient", "crash"], ["Transient", "crash", "Transient"]])
def test_046_crashes_and_exceptions_share_the_budget(failures: list[str], journal: Journal) -> None:
    task = fails_at_first.options(retry_exceptions=True, max_retries=2)
    with pytest.raises((Transient, WorkerCrashedError)):
        ray.get(task.remote(journal, failures * 5))
    assert len(journal.lines()) == 3
