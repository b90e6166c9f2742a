"""Cancelling what has not started: spec lines 56, 59 and 61."""

from __future__ import annotations

from typing import Any

import pytest

import redray as ray
from redray.exceptions import TaskCancelledError
from tests.helpers import Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def when(signal: Signal, value: Any = None) -> Any:
    signal.wait()
    return value


@ray.remote
def note(journal: Journal, text: str, after: Any = None) -> str:
    journal.add(text)
    return text


def test_056_a_task_that_waits_for_its_argument_never_runs(signal: Signal, journal: Journal) -> None:
    argument = when.remote(signal)
    pending = note.remote(journal, "pending", argument)
    ray.cancel(pending)
    with pytest.raises(TaskCancelledError):
        ray.get(pending)
    signal.set()
    ray.get(argument)
    assert ray.get(note.remote(journal, "later")) == "later"
    assert journal.lines() == ["later"]


def test_056_a_task_that_waits_for_resources_never_runs(signal: Signal, journal: Journal) -> None:
    holders = [when.remote(signal), when.remote(signal)]
    pending = note.remote(journal, "pending")
    last = note.remote(journal, "last")
    ray.cancel(pending)
    with pytest.raises(TaskCancelledError):
        ray.get(pending)
    signal.set()
    assert ray.get([last, *holders]) == ["last", None, None]
    assert journal.lines() == ["last"]


def test_056_an_infeasible_task_can_be_cancelled(journal: Journal) -> None:
    never = note.options(resources={"unobtainable": 1}).remote(journal, "never")
    ray.cancel(never)
    with pytest.raises(TaskCancelledError):
        ray.get(never)
    assert journal.lines() == []


def test_056_cancel_of_a_finished_task_is_a_no_op() -> None:
    done = when.options(num_cpus=0).remote(Signal("/"), "value")  # "/" exists: nothing to wait for
    assert ray.get(done) == "value"
    ray.cancel(done)
    assert ray.get(done) == "value"


@pytest.mark.differs_from_ray("Ray raises TaskCancelledError and may run the call all the same")
def test_056_a_queued_actor_call_can_be_cancelled(signal: Signal, journal: Journal) -> None:
    @ray.remote
    class Actor:
        def wait(self) -> None:
            journal.add("running")
            signal.wait()

        def note(self, text: str) -> str:
            journal.add(text)
            return text

    actor = Actor.remote()
    running, queued, last = actor.wait.remote(), actor.note.remote("queued"), actor.note.remote("last")
    wait_until(journal.lines, what="the actor to be busy")
    ray.cancel(queued)
    signal.set()
    with pytest.raises(TaskCancelledError):
        ray.get(queued)
    assert ray.get([running, last]) == [None, "last"]
    assert journal.lines() == ["running", "last"]


def test_059_a_cancelled_task_is_not_retried(signal: Signal, journal: Journal) -> None:
    argument = when.remote(signal)
    task = note.options(max_retries=-1, retry_exceptions=True)
    pending = task.remote(journal, "pending", argument)
    ray.cancel(pending)
    signal.set()
    with pytest.raises(TaskCancelledError):
        ray.get(pending)
    with pytest.raises(TaskCancelledError):
        ray.get(pending)
    ray.get([argument, note.remote(journal, "later")])
    assert journal.lines() == ["later"]


def test_061_tasks_behind_a_cancelled_one_fail_too(signal: Signal, journal: Journal) -> None:
    argument = when.remote(signal)
    first = note.remote(journal, "first", argument)
    second = note.remote(journal, "second", first)
    third = note.remote(journal, "third", second)
    ray.cancel(first)
    for ref in (first, second, third):
        with pytest.raises(TaskCancelledError):
            ray.get(ref)
    signal.set()
    ray.get(argument)
    assert journal.lines() == []


def test_061_calls_of_actors_behind_a_cancelled_task_fail_too(signal: Signal, journal: Journal) -> None:
    @ray.remote
    class Actor:
        def note(self, value: str) -> str:
            journal.add(value)
            return value

    actor = Actor.remote()
    first = note.remote(journal, "first", when.remote(signal))
    waiting, behind = actor.note.remote(first), actor.note.remote("behind")
    ray.cancel(first)
    with pytest.raises(TaskCancelledError):
        ray.get(waiting)
    assert ray.get(behind) == "behind"
    signal.set()
    assert journal.lines() == ["behind"]
