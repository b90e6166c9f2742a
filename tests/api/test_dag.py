"""Calls that are written down first and made later: `.bind()` and `ray.dag`."""

from __future__ import annotations

import os
from typing import Any

import pytest

import redray as ray
from redray.dag import ClassMethodNode, ClassNode, DAGNode, FunctionNode, InputNode, MultiOutputNode
from tests.helpers import Journal

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def add(left: Any, right: Any = 0) -> Any:
    return left + right


@ray.remote
def note(journal: Journal, value: int) -> int:
    journal.add(value)
    return value


@ray.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, number: int) -> int:
        self.value += number
        return self.value

    def read(self) -> int:
        return self.value

    def pid(self) -> int:
        return os.getpid()


def test_a_bound_function_is_called_when_it_is_executed(journal: Journal) -> None:
    node = note.bind(journal, 1)
    assert isinstance(node, FunctionNode) and isinstance(node, DAGNode)
    assert journal.lines() == []
    assert [ray.get(node.execute()) for _ in range(2)] == [1, 1]
    assert journal.lines() == ["1", "1"]


def test_nodes_are_arguments_of_nodes() -> None:
    assert ray.get(add.bind(add.bind(1, 2), right=add.bind(3, 4)).execute()) == 10
    [inner, five] = ray.get(add.bind([add.bind(1, 2)], [5]).execute())
    assert (ray.get(inner), five) == (3, 5)  # a ref inside a list stays a ref


def test_what_is_used_twice_is_computed_once(journal: Journal) -> None:
    shared = note.bind(journal, 1)
    both = MultiOutputNode([add.bind(shared, 1), add.bind(shared, 2)])
    assert ray.get(both.execute()) == [2, 3]
    assert journal.lines() == ["1"]


def test_the_input_is_given_at_execution() -> None:
    with InputNode() as given:
        one = add.bind(given, 10)
        several = add.bind(given[0], given.right)
    assert ray.get([one.execute(5), one.execute(6)]) == [15, 16]
    assert ray.get(several.execute(1, right=2)) == 3
    with pytest.raises(Exception):  # noqa: B017  # of whatever class: it was given nothing
        ray.get(one.execute())


def test_a_bound_class_is_made_when_it_is_executed() -> None:
    node = Counter.bind(10)
    assert isinstance(node, ClassNode)
    read = node.read.bind()
    assert isinstance(read, ClassMethodNode)
    assert ray.get(read.execute()) == 10
    with pytest.raises(AttributeError):
        node.missing.bind()


def test_methods_of_a_bound_class_run_in_the_order_they_were_bound() -> None:
    node = Counter.bind(10)
    node.add.bind(5)
    node.add.bind(add.bind(1, 1))
    assert ray.get(node.read.bind().execute()) == 17


def test_a_method_of_an_actor_that_is_there_can_be_bound() -> None:
    counter = Counter.remote(1)
    with InputNode() as given:
        node = counter.add.bind(given)
    assert ray.get([node.execute(1), node.execute(2)]) == [2, 4]


def test_options_are_kept() -> None:
    @ray.remote
    def name() -> Any:
        return ray.get_runtime_context().get_task_name()

    assert ray.get(name.options(name="bound").bind().execute()) == "bound"


def test_a_bound_call_is_not_called_remotely_again() -> None:
    with pytest.raises(AttributeError):
        add.bind(1).remote()
