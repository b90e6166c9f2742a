"""A node whose lease is not fresh: what it holds may be running elsewhere by now, so it starts nothing."""

from __future__ import annotations

from tests.unit.bench import Bench, born, call, received, task, task_id


def test_a_fenced_node_leaves_new_tasks_to_the_cluster() -> None:
    node = Bench.with_workers(2)
    node.state.fence(True)
    assert node.submit(task(1)) == "-"
    node.state.fence(False)
    assert node.submit(task(2)) == "R"


def test_a_fenced_node_holds_back_what_it_has_claimed() -> None:
    node = Bench.with_workers(2)
    node.state.fence(True)
    assert node.dispatched(node.receive(task(1))) == []
    node.state.fence(False)
    assert node.dispatched(node.settle()) == [1]


def test_a_fenced_node_holds_back_the_calls_of_its_actors() -> None:
    node = Bench.with_workers(2)
    born(node)
    node.state.fence(True)
    out = received(node, call(7, 1))
    assert node.dispatched(out) == []
    node.state.fence(False)
    assert node.dispatched(node.settle()) == [7]
    assert task_id(7) in node.state.attempts
