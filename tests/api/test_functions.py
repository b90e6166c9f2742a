"""Remote functions and their options: spec lines 7 to 13."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from tests.helpers import run_driver

BAD_TYPES: list[tuple[str, Any]] = [
    ("num_cpus", "two"),
    ("num_gpus", [1]),
    ("resources", ["disk"]),
    ("max_retries", "3"),
    ("max_retries", 1.5),
    ("retry_exceptions", "yes"),
    ("num_returns", 1.5),
    ("name", 7),
    ("runtime_env", 3),
    ("scheduling_strategy", 3),
]

BAD_VALUES: list[tuple[str, Any]] = [
    ("num_cpus", -1),
    ("num_gpus", -1),
    ("resources", {"disk": -1}),
    ("resources", {"CPU": 1}),
    ("resources", {"GPU": 1}),
    ("max_retries", -2),
    ("num_returns", -1),
    ("memory", -1),
]

# Ray notices these only later, or as another class.
REFUSED_EARLIER: list[tuple[str, Any]] = [
    ("num_gpus", 1.5),
    ("num_returns", "everything"),
    ("scheduling_strategy", "NOWHERE"),
]


def test_007_a_function_is_pickled_at_its_first_call(start: Callable[..., Any]) -> None:
    captured = {"value": "at decoration"}

    @ray.remote
    def read() -> str:
        return captured["value"]

    start(num_cpus=1)
    captured["value"] = "at the first call"
    assert ray.get(read.remote()) == "at the first call"
    captured["value"] = "later"
    assert ray.get(read.remote()) == "at the first call"
    assert ray.get(read.options(name="other").remote()) == "at the first call"
    ray.shutdown()
    start(num_cpus=1)
    assert ray.get(read.remote()) == "later", "a new cluster gets the function anew"


def test_007_an_actor_class_is_exported_again_to_a_new_cluster(start: Callable[..., Any]) -> None:
    captured = {"value": "first"}

    @ray.remote
    class Reader:
        def read(self) -> str:
            return captured["value"]

    start(num_cpus=1)
    assert ray.get(Reader.remote().read.remote()) == "first"
    captured["value"] = "second"
    assert ray.get(Reader.remote().read.remote()) == "first"
    ray.shutdown()
    start(num_cpus=1)
    assert ray.get(Reader.remote().read.remote()) == "second"


@pytest.mark.usefixtures("cluster")
def test_008_redefining_a_function_runs_the_new_closure() -> None:
    answers = []
    for number in range(4):

        @ray.remote
        def same_name() -> int:
            return number  # noqa: B023 - the loop variable is what differs

        answers.append(same_name.remote())
        assert ray.get(answers[-1]) == number
    assert ray.get(answers) == [0, 1, 2, 3]


@pytest.mark.usefixtures("cluster")
def test_008_redefining_an_actor_class_runs_the_new_one() -> None:
    def define(number: int) -> Any:
        @ray.remote
        class SameName:
            def read(self) -> int:
                return number

        return SameName

    actors = [define(number).remote() for number in range(3)]
    assert ray.get([actor.read.remote() for actor in actors]) == [0, 1, 2]


@pytest.mark.usefixtures("cluster")
def test_009_a_function_over_100_mb_is_refused() -> None:
    ballast = os.urandom(1024) * (110 * 1024)

    @ray.remote
    def heavy() -> int:
        return len(ballast)

    with pytest.raises(ValueError, match="(?i)large.*Mi?B"):
        heavy.remote()


def test_009_a_function_over_10_mb_works_with_a_warning(tmp_path: Path) -> None:
    output = run_driver(
        tmp_path,
        """
        import redray as ray
        ballast = bytes(12 * 1024 * 1024)
        @ray.remote
        def heavy_function():
            return len(ballast)
        ray.init("local", num_cpus=1, include_dashboard=False)
        assert ray.get(heavy_function.remote()) == len(ballast)
        ray.shutdown()
        """,
    )
    lines = [line for line in output.splitlines() if "heavy_function" in line and "large" in line]
    assert lines, f"no warning about a large function in:\n{output}"


def test_010_an_async_function_is_refused() -> None:
    async def coroutine() -> None:
        pass

    with pytest.raises(ValueError, match="async"):
        ray.remote(coroutine)


@pytest.mark.usefixtures("cluster")
def test_010_calling_without_remote_is_a_type_error() -> None:
    @ray.remote
    def function() -> int:
        return 1

    @ray.remote
    class Actor:
        def method(self) -> int:
            return 1

    with pytest.raises(TypeError, match=r"\.remote\("):
        function()
    with pytest.raises(TypeError, match=r"\.remote\("):
        Actor()
    actor = Actor.remote()
    with pytest.raises(TypeError, match=r"\.remote\("):
        actor.method()
    assert ray.get(actor.method.remote()) == 1


def test_011_remote_with_empty_parentheses_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match="remote"):
        ray.remote()


@pytest.mark.usefixtures("cluster")
def test_011_remote_takes_a_function_with_or_without_options() -> None:
    def plain() -> int:
        return 1

    class Plain:
        def read(self) -> int:
            return 2

    assert ray.get(ray.remote(plain).remote()) == 1
    assert ray.get(ray.remote(num_cpus=0)(plain).remote()) == 1
    assert ray.get(ray.remote(Plain).remote().read.remote()) == 2
    assert ray.get(ray.remote(num_cpus=0)(Plain).remote().read.remote()) == 2


@pytest.mark.parametrize("target", [3, "text", None])
def test_011_remote_decorates_functions_and_classes_only(target: object) -> None:
    with pytest.raises((TypeError, AssertionError)):
        ray.remote(target)


@pytest.mark.differs_from_ray("a TypeError in one sentence, not an AttributeError from the inside")
@pytest.mark.parametrize("target", [3, "text", None])
def test_011_remote_with_options_decorates_functions_and_classes_only(target: object) -> None:
    with pytest.raises(TypeError):
        ray.remote(num_cpus=1)(target)


def function() -> None:
    pass


class Class:
    pass


@pytest.mark.parametrize("target", [function, Class])
def test_012_an_unknown_option_names_the_valid_ones(target: Any) -> None:
    with pytest.raises(ValueError, match="(?s)num_of_cpus.*num_cpus"):
        ray.remote(num_of_cpus=1)(target)
    with pytest.raises(ValueError, match="(?s)num_of_cpus.*num_cpus"):
        ray.remote(target).options(num_of_cpus=1)


@pytest.mark.parametrize("option", ["max_restarts", "max_concurrency", "lifetime"])
def test_012_an_actor_option_is_unknown_to_a_function(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        ray.remote(**{option: 1})(function)


@pytest.mark.parametrize("option", ["max_calls", "max_retries", "num_returns"])
def test_012_a_task_option_is_unknown_to_an_actor(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        ray.remote(**{option: 1})(Class)


@pytest.mark.parametrize("option, value", BAD_TYPES)
def test_012_an_option_of_the_wrong_type_is_a_type_error(option: str, value: object) -> None:
    with pytest.raises(TypeError, match=option):
        ray.remote(**{option: value})(function)
    with pytest.raises(TypeError, match=option):
        ray.remote(function).options(**{option: value})


@pytest.mark.parametrize("option, value", BAD_VALUES)
def test_012_an_option_out_of_range_is_a_value_error(option: str, value: object) -> None:
    with pytest.raises(ValueError):
        ray.remote(**{option: value})(function)
    with pytest.raises(ValueError):
        ray.remote(function).options(**{option: value})


@pytest.mark.differs_from_ray("refused where it is written, not where it is used")
@pytest.mark.parametrize("option, value", REFUSED_EARLIER)
def test_012_an_impossible_option_is_refused_at_decoration(option: str, value: object) -> None:
    with pytest.raises(ValueError):
        ray.remote(**{option: value})(function)
    with pytest.raises(ValueError):
        ray.remote(function).options(**{option: value})


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("option, value", [("num_gpus", 1.5), ("scheduling_strategy", "NOWHERE")])
def test_012_an_impossible_option_is_refused_at_the_latest_at_remote(option: str, value: object) -> None:
    with pytest.raises(ValueError):
        ray.remote(function).options(**{option: value}).remote()


@pytest.mark.usefixtures("cluster")
def test_013_options_make_a_new_wrapper_and_leave_the_original() -> None:
    @ray.remote(num_returns=2)
    def pair() -> tuple[int, int]:
        return 1, 2

    whole = pair.options(num_returns=1)
    assert whole is not pair
    assert ray.get(whole.remote()) == (1, 2)
    assert ray.get(pair.remote()) == [1, 2]


@pytest.mark.usefixtures("cluster")
def test_013_options_of_an_actor_class_leave_the_original() -> None:
    @ray.remote
    class Actor:
        def held(self) -> dict[str, float]:
            return dict(ray.get_runtime_context().get_assigned_resources())

    greedy = Actor.options(num_cpus=1, resources={"disk": 1}).remote()
    plain = Actor.remote()
    assert ray.get(greedy.held.remote()) == {"CPU": 1, "disk": 1}
    assert ray.get(plain.held.remote()) == {}


@pytest.mark.usefixtures("cluster")
def test_013_options_of_a_method_leave_the_original() -> None:
    @ray.remote
    class Actor:
        def pair(self) -> tuple[int, int]:
            return 1, 2

    actor = Actor.remote()
    assert ray.get(actor.pair.options(num_returns=2).remote()) == [1, 2]
    assert ray.get(actor.pair.remote()) == (1, 2)


def test_013_max_calls_and_concurrency_groups_are_for_the_decorator_only() -> None:
    with pytest.raises(ValueError, match="max_calls"):
        ray.remote(function).options(max_calls=1)
    with pytest.raises(ValueError, match="concurrency_groups"):
        ray.remote(Class).options(concurrency_groups={"io": 2})


# --- what names itself ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_007_a_function_that_calls_itself_keeps_its_defaults_and_options() -> None:
    @ray.remote(num_cpus=0.5, num_returns=2)
    def count(down_from: int, step: int = 1, *, last: str = "done") -> tuple[int, str]:
        if down_from <= 0:
            return 0, last
        calls, said = count.remote(down_from - step)
        return ray.get(calls) + 1, ray.get(said)

    assert ray.get(count.remote(3)) == [3, "done"]
    with pytest.raises(TypeError):
        count.remote()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("options", [{}, {"num_cpus": 0.5}])
def test_007_an_actor_makes_actors_of_its_own_class(options: dict[str, float]) -> None:
    @ray.remote
    class Node:
        def __init__(self, depth: int, name: str = "leaf") -> None:
            self.name = name
            self.child = Node.options(**options).remote(depth - 1) if depth else None

        @ray.method(num_returns=2)
        def both(self, mark: str = "") -> tuple[str, int]:
            return self.name + mark, 0

        async def names(self) -> list[str]:
            if self.child is None:
                return [self.name]
            name, _ = self.child.both.remote()
            return [self.name, await name, *await self.child.names.remote()]

    root = Node.remote(2, name="root")
    assert ray.get(root.names.remote()) == ["root", "leaf", "leaf", "leaf", "leaf"]
