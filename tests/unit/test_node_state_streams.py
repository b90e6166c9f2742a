"""The local scheduler passes items of streams on: once a turn, ahead of ends, and only of attempts that are its own."""

from __future__ import annotations

import pytest

from redray.messages import Returned, StreamNews, Yielded
from redray.spec import STREAMING
from redray.worker import actions, events
from redray.worker.streams import MOST_BYTES, MOST_ITEMS
from tests.unit.bench import Bench, of, task, task_id


@pytest.fixture
def node() -> Bench:
    """Task 1 streams on one of two workers."""
    bench = Bench.with_workers(2)
    assert bench.submit(task(1, returns=STREAMING)) == "R"
    bench.settle()
    return bench


def worker_of(node: Bench, number: int = 1) -> str:
    return node.state.attempts[task_id(number)].worker


def yields(node: Bench, first: int, *values: bytes | None, attempt: int = 1, worker: str = "") -> None:
    items = [Returned(value, len(value or b"x" * 200_000), []) for value in values]
    node.handle(events.ItemsYielded(worker or worker_of(node), Yielded(task_id(1), attempt, first, items)))


def recorded(out: list[actions.Action]) -> list[tuple[int, list[bytes]]]:
    return [(items.first, values) for action in of(actions.RecordItems, out) for items, values in action.yields]


def told(out: list[actions.Action]) -> list[StreamNews]:
    return [action.message for action in of(actions.Send, out) if isinstance(action.message, StreamNews)]


def test_items_of_a_turn_go_out_in_one_call(node: Bench) -> None:
    yields(node, 1, b"Va")
    yields(node, 2, b"Vb", b"Vc")
    out = node.settle()
    assert len(of(actions.RecordItems, out)) == 1
    assert recorded(out) == [(1, [b"Va", b"Vb", b"Vc"])]
    assert recorded(node.settle()) == []


def test_a_question_is_not_joined_with_items(node: Bench) -> None:
    yields(node, 1)
    yields(node, 1, b"Va")
    yields(node, 5, b"Ve")
    assert recorded(node.settle()) == [(1, []), (1, [b"Va"]), (5, [b"Ve"])]


def test_items_go_ahead_of_the_end(node: Bench) -> None:
    yields(node, 1, b"Va")
    node.done(1)
    kinds = [type(action) for action in node.settle()]
    assert kinds.index(actions.RecordItems) < kinds.index(actions.RecordFinishes)


@pytest.mark.parametrize(("count", "size"), [(MOST_ITEMS + 1, 1), (3, MOST_BYTES // 2)])
def test_many_items_go_out_in_several_calls_and_the_end_after_them(node: Bench, count: int, size: int) -> None:
    for number in range(1, count + 1):
        yields(node, number, b"V" * size)
    node.done(1)
    out = node.settle()
    ((_, values),) = recorded(out)
    assert len(values) == count - 1 and not of(actions.RecordFinishes, out)
    assert node.state.has_more_to_settle() and not node.state.is_at_rest()
    out = node.settle()
    ((number, values),) = recorded(out)
    assert (number, len(values)) == (count, 1) and of(actions.RecordFinishes, out)


@pytest.mark.parametrize("how", ["another attempt", "another worker", "ended"])
def test_items_of_nobody_are_dropped_with_their_memory(node: Bench, how: str) -> None:
    mine = worker_of(node)
    other = next(id for id in node.state.workers if id != mine)
    if how == "ended":
        node.done(1)
    yields(node, 1, b"Va", None, attempt=2 if how == "another attempt" else 1, worker=other if how != "ended" else mine)
    out = node.settle()
    assert recorded(out) == []
    assert [action.objects for action in of(actions.FreeLarge, out)] == [[task_id(1) + "00000002"]]


def test_what_redis_says_goes_to_the_worker(node: Bench) -> None:
    node.handle(events.ItemsPublished([(task_id(1), 3, 2, 1)]))
    node.handle(events.ItemsTaken(task_id(1), 3))
    node.handle(events.ItemsPublished([(task_id(1), -1, -1, 0)]))
    assert told(node.settle()) == [
        StreamNews(task_id(1), 3, 2, 1),
        StreamNews(task_id(1), 0, 3, -1),
        StreamNews(task_id(1), 0, -1, 0),
    ]


def test_news_of_a_task_that_has_ended_are_for_nobody(node: Bench) -> None:
    node.done(1)
    node.handle(events.ItemsPublished([(task_id(1), 3, 2, 0)]))
    node.handle(events.ItemsTaken(task_id(1), 3))
    assert told(node.settle()) == []


def test_an_item_is_near_for_whoever_needs_it_next(node: Bench) -> None:
    yields(node, 1, b"Va")
    node.settle()
    assert node.submit(task(2, needs=[task_id(1) + "00000001"])) == "R"


def test_items_of_a_dead_worker_count_as_said_before_its_end(node: Bench) -> None:
    worker = worker_of(node)
    yields(node, 1, b"Va")
    node.gone(worker, started=1)
    kinds = [type(action) for action in node.settle()]
    assert kinds.index(actions.RecordItems) < kinds.index(actions.RecordFinishes)
