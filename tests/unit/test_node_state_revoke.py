"""The local scheduler takes back what it sent behind a run that turned out long: by the runs' serials, through shared
memory."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from redray.worker import actions, events
from redray.worker.withdrawals import SLOW_MS
from tests.unit.bench import Bench, asked, of, short_tasks_in_line, task


@pytest.fixture
def node() -> Bench:
    return short_tasks_in_line(4)


def slow(node: Bench) -> str:
    """The first task turned out long; its worker."""
    worker = node.worker_of(1)
    [revoke] = of(actions.Revoke, node.tick(SLOW_MS + 1))
    assert revoke == actions.Revoke(worker, node.serial(4))
    return worker


def test_what_waits_behind_a_slow_run_is_taken_back(node: Bench) -> None:
    worker = slow(node)
    node.revoked(worker, started=1)
    assert [node.worker_of(number) for number in (1, 2, 3, 4)] == [worker, "", "", ""]


def test_a_short_run_is_left_alone(node: Bench) -> None:
    assert of(actions.Revoke, node.tick(SLOW_MS)) == []


def test_each_run_in_line_has_its_own_time(node: Bench) -> None:
    node.tick(SLOW_MS)
    node.done(1, run_us=100)
    assert of(actions.Revoke, node.tick(SLOW_MS)) == []
    assert len(of(actions.Revoke, node.tick(1))) == 1


def test_a_run_alone_is_left_alone() -> None:
    node = short_tasks_in_line(1)
    assert of(actions.Revoke, node.tick(10 * SLOW_MS)) == []


def test_asked_once_while_the_answer_is_awaited(node: Bench) -> None:
    slow(node)
    assert of(actions.Revoke, node.tick(SLOW_MS + 1)) == []


def test_what_started_meanwhile_stays(node: Bench) -> None:
    worker = slow(node)
    node.revoked(worker, started=3)
    assert [bool(node.worker_of(number)) for number in (1, 2, 3, 4)] == [True, True, True, False]


def test_what_never_reached_the_first_comes_back_and_is_given_out_anew(node: Bench) -> None:
    """The worker is starved: it has not even begun."""
    worker = slow(node)
    before = node.serial(1)
    node.revoked(worker)
    assert node.dispatched(node.settle()) == [1, 2, 3, 4]
    assert node.serial(1) > before


def test_nothing_more_is_sent_behind_a_slow_run(node: Bench) -> None:
    worker = slow(node)
    node.receive(task(5))
    assert node.worker_of(5) == "", "while the answer is awaited"
    node.revoked(worker, started=1)
    node.settle()
    assert node.worker_of(5) == node.worker_of(2) == "", "and after it"
    node.handle(events.Rung())
    assert asked(node.settle()) == 0


def test_an_answer_that_a_later_one_includes_does_nothing(node: Bench) -> None:
    """A worker could have started what the first did not name."""
    worker = slow(node)
    node.handle(events.Revoked(worker, node.serial(4) - 1, node.serial(1)))
    assert node.worker_of(4) == worker


def test_what_the_worker_hands_back_itself_is_taken_once(node: Bench) -> None:
    """The answer came first: what the worker says of those runs is about the past."""
    worker = slow(node)
    old = node.serial(2)
    node.revoked(worker, started=1)
    node.done(1, run_us=100)
    node.settle()
    assert (node.worker_of(2), node.serial(2) > old) == (worker, True), "sent again, to the same worker"
    node.handle(events.HandedBackTasks(worker, [old]))
    assert node.worker_of(2) == worker


def test_a_worker_that_blocks_gives_back_runs_not_tasks(node: Bench) -> None:
    worker = slow(node)
    old = node.serial(2)
    node.revoked(worker, started=1)
    node.done(1, run_us=100)
    node.settle()
    node.handle(events.WorkerBlocked(worker, [old]))
    assert node.worker_of(2) == worker


def test_a_worker_that_dies_behind_a_revoked_run_used_up_what_it_had_begun(node: Bench) -> None:
    """It ran the first to its end, marked the second, found it revoked, and died with both still to be told."""
    worker = slow(node)
    node.revoked(worker, started=1)
    node.gone(worker, started=2)
    assert node.finished(node.settle()) == {1: Outcome.CRASHED}


def test_the_answer_of_a_dead_worker_does_nothing(node: Bench) -> None:
    worker = slow(node)
    serial = node.serial(4)
    node.gone(worker, started=1)
    node.handle(events.Revoked(worker, serial, node.serial(1)))
    assert node.finished(node.settle()) == {1: Outcome.CRASHED}


def test_a_task_that_is_cancelled_while_it_is_taken_back_ends(node: Bench) -> None:
    worker = slow(node)
    node.handle(events.CancelRequested(node.attempt(3).task, ""))
    node.revoked(worker, started=1)
    assert node.finished(node.settle()) == {3: Outcome.CANCELLED}


def test_what_was_sent_after_the_asking_stays(node: Bench) -> None:
    """All that was asked about has ended, and the worker has got other work."""
    worker = slow(node)
    for number in (1, 2, 3, 4):
        node.done(number, run_us=100)
    serial = node.serial(4)
    node.receive(task(5))
    assert node.worker_of(5) == worker
    node.handle(events.Revoked(worker, serial, serial))
    assert node.worker_of(5) == worker


def test_nothing_is_sent_to_a_worker_that_may_have_to_die(node: Bench) -> None:
    """It could start between the look and the kill."""
    node.handle(events.CancelRequested(node.attempt(1).task, "force"))
    node.receive(task(5))
    assert node.worker_of(5) == ""
