"""Options: each one's own check, and what they add up to."""

from __future__ import annotations

from typing import Any

import pytest

from redray import option_checks, options
from redray.resources import NOTHING
from redray.spec import STREAMING
from redray.strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)


class Group:
    bundle_specs = ({"CPU": 1},)


GOOD_FOR_TASKS: list[tuple[str, Any]] = [
    ("num_cpus", 0),
    ("num_cpus", 0.0001),
    ("num_cpus", None),
    ("num_gpus", 0.5),
    ("num_gpus", 3),
    ("resources", {"disk": 2, "fast lane": 0.5}),
    ("memory", 10**9),
    ("accelerator_type", "A100"),
    ("num_returns", 0),
    ("num_returns", 5),
    ("num_returns", "streaming"),
    ("num_returns", "dynamic"),
    ("max_retries", -1),
    ("max_calls", 0),
    ("retry_exceptions", True),
    ("retry_exceptions", [KeyError, OSError]),
    ("name", "any name"),
    ("scheduling_strategy", "SPREAD"),
    ("scheduling_strategy", NodeAffinitySchedulingStrategy("ab" * 8, soft=True)),
    ("placement_group", Group()),
    ("label_selector", {"zone": "in(a,b)", "disk": "!ssd", "gpu": "!in(x, y)", "any": ""}),
    ("fallback_strategy", [{"label_selector": {"zone": "c"}}]),
    ("runtime_env", {"env_vars": {"A": "1"}}),
    ("priority", -3),
    ("_generator_backpressure_num_objects", 1),
    ("_generator_backpressure_num_objects", -1),
]
WRONG_TYPES: list[tuple[str, Any]] = [
    ("num_cpus", "2"),
    ("num_gpus", [1]),
    ("resources", ["disk"]),
    ("resources", {"disk": "2"}),
    ("resources", {3: 1}),
    ("memory", "1 GB"),
    ("accelerator_type", 7),
    ("num_returns", 1.5),
    ("max_retries", 1.0),
    ("max_calls", "1"),
    ("retry_exceptions", None),
    ("name", 3),
    ("scheduling_strategy", 3),
    ("placement_group", 3),
    ("label_selector", {"zone": 3}),
    ("runtime_env", "path"),
    ("priority", 0.5),
    ("enable_task_events", 1),
]
BAD_VALUES: list[tuple[str, Any]] = [
    ("no_such_option", 1),
    ("num_cpus", -1),
    ("num_cpus", 0.00001),
    ("num_cpus", float("nan")),
    ("num_cpus", float("inf")),
    ("num_gpus", 1.5),
    ("resources", {"CPU": 1}),
    ("resources", {"GPU": 1}),
    ("resources", {"memory": 1}),
    ("resources", {"disk": -1}),
    ("resources", {"a,b": 1}),
    ("resources", {"": 1}),
    ("memory", -1),
    ("num_returns", -1),
    ("num_returns", "some"),
    ("max_retries", -2),
    ("max_calls", -1),
    ("retry_exceptions", [3]),
    ("scheduling_strategy", "NEAR"),
    ("label_selector", {"zone": "!!"}),
    ("label_selector", {"zone": "in()"}),
    ("label_selector", {"zone": "a b"}),
    ("fallback_strategy", [3]),
    ("_generator_backpressure_num_objects", 0),
]
ACTORS_ONLY: list[tuple[str, Any, type[Exception] | None]] = [
    ("max_restarts", -1, None),
    ("max_restarts", -2, ValueError),
    ("max_task_retries", 1.5, TypeError),
    ("max_concurrency", 0, ValueError),
    ("max_concurrency", -1, ValueError),
    ("max_pending_calls", -2, ValueError),
    ("lifetime", "detached", None),
    ("lifetime", "for ever", ValueError),
    ("name", "", ValueError),
    ("namespace", "", ValueError),
    ("get_if_exists", 1, TypeError),
    ("concurrency_groups", {"io": 2}, None),
    ("concurrency_groups", {"io": 0}, ValueError),
    ("concurrency_groups", {"io": "2"}, TypeError),
    ("num_returns", 2, ValueError),
    ("max_calls", 2, ValueError),
]


@pytest.mark.parametrize("name, value", GOOD_FOR_TASKS)
def test_a_good_option_passes(name: str, value: Any) -> None:
    option_checks.check_task({name: value})


@pytest.mark.parametrize("name, value", WRONG_TYPES)
def test_a_wrong_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name if name != "label_selector" else "strings"):
        option_checks.check_task({name: value})


@pytest.mark.parametrize("name, value", BAD_VALUES)
def test_a_bad_value_is_a_value_error(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        option_checks.check_task({name: value})


@pytest.mark.parametrize("name, value, error", ACTORS_ONLY)
def test_options_of_actors(name: str, value: Any, error: type[Exception] | None) -> None:
    if error is None:
        option_checks.check_actor({name: value})
    else:
        with pytest.raises(error):
            option_checks.check_actor({name: value})


def test_an_unknown_option_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"(?s)num_cpu .*'num_cpus'.*'resources'"):
        option_checks.check_task({"num_cpu": 1})
    with pytest.raises(ValueError, match="num_cpus for actor methods"):
        option_checks.check_method({"num_cpus": 1})


@pytest.mark.parametrize(
    "check, name", [(option_checks.check_task, "max_calls"), (option_checks.check_actor, "concurrency_groups")]
)
def test_some_options_belong_into_the_decorator(check: Any, name: str) -> None:
    given = {name: 1 if name == "max_calls" else {"io": 1}}
    check(given)
    with pytest.raises(ValueError, match=name):
        check(given, in_options=True)


def task(is_generator: bool = False, **given: Any) -> options.TaskOptions:
    return options.task_options(given, "function", is_generator)


def test_a_plain_task() -> None:
    assert task() == options.TaskOptions(name="function", demand="CPU:1", max_retries=3)
    assert task(name="other").name == "other"


def test_the_demand_of_a_task_adds_up() -> None:
    demand = task(num_cpus=0.5, num_gpus=2, resources={"disk": 1}, memory=1000, accelerator_type="A100").demand
    assert demand == "CPU:0.5,GPU:2,accelerator_type:A100:0.001,disk:1,memory:1000"
    assert task(num_cpus=0).demand == NOTHING
    assert task(num_gpus=1).demand == "CPU:1,GPU:1"


def test_a_worker_that_used_a_gpu_is_not_used_again() -> None:
    assert task(num_gpus=0.5).max_calls == 1
    assert task(num_gpus=0.5, max_calls=0).max_calls == 0
    assert task(num_gpus=0).max_calls == 0


def test_a_generator_streams_unless_told_otherwise() -> None:
    assert task(is_generator=True).num_returns == STREAMING
    assert task(is_generator=True, num_returns=3).num_returns == 3
    assert task(is_generator=True, num_returns="dynamic").num_returns == options.DYNAMIC
    with pytest.raises(ValueError, match="yield"):
        task(num_returns="streaming")


@pytest.mark.parametrize("variable", ["REDRAY_TASK_MAX_RETRIES", "RAY_TASK_MAX_RETRIES"])
def test_the_environment_sets_the_default_of_max_retries(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "7")
    assert task().max_retries == 7
    assert task(max_retries=0).max_retries == 0


def test_the_older_spelling_of_a_placement_group() -> None:
    group = Group()
    strategy = task(placement_group=group, placement_group_bundle_index=2).scheduling_strategy
    assert isinstance(strategy, PlacementGroupSchedulingStrategy)
    assert (strategy.placement_group, strategy.placement_group_bundle_index) == (group, 2)
    with pytest.raises(ValueError, match="exclude"):
        task(placement_group=group, scheduling_strategy="SPREAD")
    with pytest.raises(ValueError, match="placement_group_bundle_index"):
        task(placement_group_bundle_index=1)


def actor(is_async: bool = False, **given: Any) -> options.ActorOptions:
    return options.actor_options(given, is_async)


@pytest.mark.parametrize(
    "given, to_place, held",
    [
        ({}, "CPU:1", NOTHING),
        ({"resources": {}}, "CPU:1", NOTHING),
        ({"memory": 500}, "CPU:1,memory:500", "memory:500"),
        ({"num_cpus": 2}, "CPU:2", "CPU:2"),
        ({"num_cpus": 0}, NOTHING, NOTHING),
        ({"num_gpus": 1}, "CPU:1,GPU:1", "CPU:1,GPU:1"),
        ({"resources": {"disk": 1}}, "CPU:1,disk:1", "CPU:1,disk:1"),
    ],
)
def test_062_a_default_actor_needs_a_cpu_to_be_placed_only(given: dict[str, Any], to_place: str, held: str) -> None:
    made = actor(**given)
    assert (made.demand_to_place, made.demand_held) == (to_place, held)


def test_067_concurrency_by_default() -> None:
    assert actor().max_concurrency == 1
    assert actor(is_async=True).max_concurrency == 1000
    assert actor(is_async=True, max_concurrency=5).max_concurrency == 5


def test_066_order_and_concurrency_exclude_each_other() -> None:
    for given in ({"max_concurrency": 2}, {"is_async": True}):
        with pytest.raises(ValueError, match="allow_out_of_order_execution"):
            actor(allow_out_of_order_execution=False, **given)
    assert actor(allow_out_of_order_execution=False).max_concurrency == 1


def test_075_get_if_exists_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        actor(get_if_exists=True)
    assert actor(get_if_exists=True, name="one").get_if_exists


def test_a_method_inherits_from_its_actor_and_is_overridden() -> None:
    plain = options.plain_method(
        False, options.MethodOptions().signature, actor(max_task_retries=4, max_pending_calls=9)
    )
    assert (plain.max_task_retries, plain.max_pending_calls, plain.num_returns) == (4, 9, 1)
    other = options.method_options({"num_returns": 2, "retry_exceptions": [KeyError], "max_task_retries": 0}, plain)
    assert (other.num_returns, other.retry_exceptions, other.max_task_retries) == (2, (KeyError,), 0)
    assert other.max_pending_calls == 9
    with pytest.raises(ValueError, match="yield"):
        options.method_options({"num_returns": "streaming"}, plain)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NodeAffinitySchedulingStrategy("not hex", soft=False),
        lambda: NodeLabelSchedulingStrategy({}),
        lambda: NodeLabelSchedulingStrategy({"zone": "a"}),  # type: ignore[dict-item]
        lambda: NodeLabelSchedulingStrategy({3: In("a")}),  # type: ignore[dict-item]
        lambda: In(),
        lambda: NotIn(3),  # type: ignore[arg-type]
    ],
)
def test_a_strategy_that_says_nothing_is_refused(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def test_strategies_keep_what_they_were_given() -> None:
    labels = NodeLabelSchedulingStrategy({"zone": In("a", "b"), "gpu": Exists()}, soft={"old": DoesNotExist()})
    assert isinstance(labels.hard["zone"], In) and labels.hard["zone"].values == ["a", "b"]
    assert list(labels.soft) == ["old"]
