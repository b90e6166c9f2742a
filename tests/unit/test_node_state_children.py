"""The local scheduler: what a cancelled task has submitted is cancelled with it."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from redray.messages import Done
from redray.spec import pack, unpack_head
from redray.worker import actions, events
from redray.worker.children import Children
from tests.unit.bench import Bench, call, of, task, task_id


@pytest.fixture
def node() -> Bench:
    return Bench.with_workers(2)


def child(number: int, parent: str, worker: str) -> bytes:
    head = unpack_head(task(number, maker=worker, depth=1, demand="CPU:9"))
    head.parent = parent
    return pack(head, b"payload")


def running_parent(node: Bench) -> str:
    """Task 1 runs, and has submitted tasks 1 and 2 of its worker, which it returns."""
    node.submit(task(1))
    worker = node.worker_of(1)
    node.submit(*(child(number, task_id(1), worker) for number in (1, 2)), maker=worker)
    node.settle()
    return worker


def cancelled(out: list[actions.Action]) -> list[tuple[list[str], str]]:
    return [(action.tasks, action.how) for action in of(actions.CancelTasks, out)]


@pytest.mark.parametrize("how", ["recursive", "force recursive"])
def test_children_are_cancelled_as_their_parent_is(node: Bench, how: str) -> None:
    worker = running_parent(node)
    node.handle(events.CancelRequested(task_id(1), how))
    assert cancelled(node.settle()) == [([task_id(1, worker), task_id(2, worker)], how)]


def test_not_without_being_asked(node: Bench) -> None:
    running_parent(node)
    node.handle(events.CancelRequested(task_id(1), ""))
    assert cancelled(node.settle()) == []


def test_once(node: Bench) -> None:
    running_parent(node)
    for _ in range(2):
        node.handle(events.CancelRequested(task_id(1), "recursive"))
    assert len(cancelled(node.settle())) == 1


def test_those_of_another_task_are_not(node: Bench) -> None:
    worker = running_parent(node)
    node.submit(child(3, task_id(7), worker), maker=worker)
    node.submit(task(2))
    node.handle(events.CancelRequested(task_id(2), "recursive"))
    assert cancelled(node.settle()) == []


def test_what_was_on_its_way_is_told_by_the_worker(node: Bench) -> None:
    """It had submitted 3 when it was interrupted, and 4 to clean up."""
    worker = running_parent(node)
    node.handle(events.CancelRequested(task_id(1), "recursive"))
    node.settle()
    node.submit(*(child(number, task_id(1), worker) for number in (3, 4)), maker=worker)
    done = Done(task_id(1), 1, Outcome.CANCELLED, [], 1, submitted=3)
    node.handle(events.TaskDone(worker, done))
    assert cancelled(node.settle()) == [([task_id(3, worker)], "recursive")]


def test_what_was_on_its_way_when_its_worker_was_killed(node: Bench) -> None:
    worker = running_parent(node)
    node.handle(events.CancelRequested(task_id(1), "force recursive"))
    node.revoked(worker, started=1)
    node.settle()
    node.submit(child(3, task_id(1), worker), maker=worker)
    node.gone(worker, started=1)
    out = node.settle()
    assert cancelled(out) == [([task_id(3, worker)], "force recursive")]
    assert node.finished(out)[1] == Outcome.CANCELLED


def test_a_worker_that_dies_by_itself_takes_nobody_along(node: Bench) -> None:
    worker = running_parent(node)
    node.gone(worker, started=1)
    assert cancelled(node.settle()) == []


def test_calls_are_children_too(node: Bench) -> None:
    worker = running_parent(node)
    head = unpack_head(call(3, 1, maker=worker))
    head.parent = task_id(1)
    node.submit(pack(head, b"payload"), maker=worker)
    node.handle(events.CancelRequested(task_id(1), "recursive"))
    assert cancelled(node.settle()) == [([task_id(number, worker) for number in (1, 2, 3)], "recursive")]


def test_a_stranger_cannot_make_itself_a_child(node: Bench) -> None:
    children = Children("a" * 16)
    children.add("b" * 16 + "00000001")
    children.add("a" * 16 + "0000000f")
    assert children.take() == ["a" * 16 + "0000000f"]
