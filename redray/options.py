"""What may be asked of a task, an actor or a method: checked where the user writes it, then carried as one value.

Options go through two steps. `check_*` looks at each one alone (known name, type, range) when it is written.
`*_options` turns the whole of them, decorator and `.options()` merged, into the record that travels: defaults filled
in, resources added up to a demand.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redray import strategies
from redray.resources import UNIT, to_text

DYNAMIC = -2  # num_returns="dynamic": one ref, of a generator of refs
UNLIMITED = -1
DEFAULT_MAX_RETRIES = 3
DEFAULT_ASYNC_CONCURRENCY = 1000
ACCELERATOR_SHARE = (
    0.001  # of the custom resource that stands for an accelerator type: enough to ask for, never used up
)

Retry = bool | tuple[type[BaseException], ...]


class TaskOptions(NamedTuple):
    """How a task runs. `demand` is a text of `resources.to_text`; `max_calls` 0 and `max_retries` -1 mean no limit."""

    name: str
    demand: str = "CPU:1"
    num_returns: int = 1  # STREAMING and DYNAMIC are negative
    max_retries: int = DEFAULT_MAX_RETRIES
    retry_exceptions: Retry = False
    max_calls: int = 0
    priority: int = 0
    scheduling_strategy: strategies.SchedulingStrategy = None
    runtime_env: Mapping[str, Any] | None = None
    label_selector: Mapping[str, str] | None = None
    fallback_strategy: tuple[Mapping[str, Any], ...] = ()
    generator_backpressure: int = UNLIMITED  # items a streaming generator may run ahead of its reader
    enable_task_events: bool = True


class ActorOptions(NamedTuple):
    """How an actor lives. It is placed where `demand_to_place` is free and holds `demand_held` for life."""

    name: str = ""
    namespace: str | None = None
    get_if_exists: bool = False
    detached: bool = False
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    concurrency_groups: Mapping[str, int] = {}
    max_pending_calls: int = UNLIMITED
    demand_to_place: str = "CPU:1"
    demand_held: str = "-"
    priority: int = 0
    scheduling_strategy: strategies.SchedulingStrategy = None
    runtime_env: Mapping[str, Any] | None = None
    is_async: bool = False
    label_selector: Mapping[str, str] | None = None
    fallback_strategy: tuple[Mapping[str, Any], ...] = ()
    enable_task_events: bool = True


class MethodOptions(NamedTuple):
    """How one call of an actor's method runs. `max_task_retries` None means the actor's own."""

    num_returns: int = 1
    max_task_retries: int | None = None
    retry_exceptions: Retry = False
    concurrency_group: str = ""
    name: str = ""
    generator_backpressure: int = UNLIMITED
    enable_task_events: bool = True


# ---- one option alone ------------------------------------------------------------------------------------------------
class _Option(NamedTuple):
    types: tuple[type, ...]
    check: Callable[[str, Any], None] | None = None


def _quantity(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative: {value}.")
    if not math.isfinite(value):
        raise ValueError(f"The quantity of resource {name} must be a finite number, not {value}.")
    if 0 < value * UNIT < 1:
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001.")


def _gpus(name: str, value: float) -> None:
    _quantity(name, value)
    if value > 1 and value != int(value):
        raise ValueError(f"GPU quantities above 1 must be whole numbers: {name}={value} is not.")


def _resources(name: str, value: Mapping[str, float]) -> None:
    if "CPU" in value or "GPU" in value:
        raise ValueError(f"Use the 'num_cpus' and 'num_gpus' keywords instead of 'CPU' and 'GPU' in '{name}'.")
    if "memory" in value or "object_store_memory" in value:
        raise ValueError(f"Use the 'memory' keyword: '{name}' cannot contain 'memory' or 'object_store_memory'.")
    for resource, quantity in value.items():
        if not isinstance(resource, str) or not isinstance(quantity, (int, float)):
            raise TypeError(f"'{name}' maps names to numbers, not {resource!r} to {quantity!r}.")
        if not resource or "," in resource:  # the comma separates the parts of a demand's text
            raise ValueError(f"A resource's name cannot be empty or contain a comma: {resource!r}.")
        _quantity(resource, quantity)


def _count_or_unlimited(name: str, value: int) -> None:
    if value < -1:
        raise ValueError(f"'{name}' takes None, 0, a positive integer, or -1, which means no limit; not {value}.")


def _count(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"'{name}' takes None, 0 or a positive integer; not {value}.")


def _num_returns(name: str, value: int | str) -> None:
    if value not in ("streaming", "dynamic") and (isinstance(value, str) or value < 0):
        raise ValueError(f"'{name}' takes None, 0, a positive integer, 'streaming' or 'dynamic'; not {value!r}.")


def _retry_exceptions(name: str, value: bool | list[Any] | tuple[Any, ...]) -> None:
    if not isinstance(value, bool):
        for item in value:
            if not (isinstance(item, type) and issubclass(item, BaseException)):
                raise ValueError(f"'{name}' is a bool or a list of exception classes; {item!r} is not one.")


def _strategy(name: str, value: Any) -> None:
    if isinstance(value, str) and value not in strategies.NAMES:
        raise ValueError(f"Invalid '{name}' {value!r}. It is 'DEFAULT', 'SPREAD' or a scheduling strategy object.")


def _group(name: str, value: Any) -> None:
    if not (value == "default" or hasattr(value, "bundle_specs")):
        raise TypeError(f"'{name}' must be a placement group, None or 'default', not {type(value)}.")


def _selector(name: str, value: Mapping[str, str]) -> None:
    strategies.check_label_selector(value)


def _fallbacks(name: str, value: list[Any]) -> None:
    for element in value:
        if not isinstance(element, dict) or "label_selector" not in element:
            raise ValueError(f"Each element of '{name}' is a dict with a 'label_selector', not {element!r}.")
        strategies.check_label_selector(element["label_selector"])


def _backpressure(name: str, value: int) -> None:
    if value == 0 or value < -1:
        raise ValueError(
            f"{name} takes -1 (off) or a positive integer, where 1 makes one item per next(); not {value}."
        )


def _lifetime(name: str, value: str) -> None:
    if value not in ("detached", "non_detached"):
        raise ValueError(f"'{name}' takes None, 'detached' or 'non_detached', not {value!r}.")


def _actor_name(name: str, value: str) -> None:
    if not value:
        raise ValueError(f"Actor {name} cannot be an empty string.")


def _namespace(name: str, value: str) -> None:
    if not value:
        raise ValueError(f'"" is not a valid {name}. Pass None to not specify a {name}.')


def _groups(name: str, value: Mapping[str, int]) -> None:
    for group, size in value.items():
        if not isinstance(group, str) or not isinstance(size, int):
            raise TypeError(f"'{name}' maps names to integers, not {group!r} to {size!r}.")
        if size < 1:
            raise ValueError(f"'{name}': {group!r} must allow at least one call at a time, not {size}.")


_NONE = type(None)
_NUMBER, _INT, _STR, _DICT = (int, float, _NONE), (int, _NONE), (str, _NONE), (dict, _NONE)

_COMMON = {
    "num_cpus": _Option(_NUMBER, _quantity),
    "num_gpus": _Option(_NUMBER, _gpus),
    "resources": _Option(_DICT, _resources),
    "memory": _Option(_NUMBER, _quantity),
    "accelerator_type": _Option(_STR),
    "name": _Option(_STR),
    "scheduling_strategy": _Option((str, _NONE, *strategies.CLASSES), _strategy),
    "placement_group": _Option((object,), _group),
    "placement_group_bundle_index": _Option((int,)),
    "placement_group_capture_child_tasks": _Option((bool, _NONE)),
    "label_selector": _Option(_DICT, _selector),
    "fallback_strategy": _Option((list, _NONE), _fallbacks),
    "runtime_env": _Option(_DICT),
    "priority": _Option(_INT),
    "enable_task_events": _Option((bool,)),
}
_CALL = {
    "num_returns": _Option((int, str, _NONE), _num_returns),
    "retry_exceptions": _Option((bool, list, tuple), _retry_exceptions),
    "_generator_backpressure_num_objects": _Option(_INT, _backpressure),
}
_TASK = {
    **_COMMON,
    **_CALL,
    "max_calls": _Option(_INT, _count),
    "max_retries": _Option(_INT, _count_or_unlimited),
}
_ACTOR = {
    **_COMMON,
    "name": _Option(_STR, _actor_name),
    "namespace": _Option(_STR, _namespace),
    "get_if_exists": _Option((bool,)),
    "lifetime": _Option(_STR, _lifetime),
    "max_restarts": _Option(_INT, _count_or_unlimited),
    "max_task_retries": _Option(_INT, _count_or_unlimited),
    "max_concurrency": _Option(_INT, _count),
    "concurrency_groups": _Option(_DICT, _groups),
    "max_pending_calls": _Option(_INT, _count_or_unlimited),
    "allow_out_of_order_execution": _Option((bool, _NONE)),
}
_METHOD = {
    **_CALL,
    "name": _Option(_STR),
    "max_task_retries": _Option(_INT, _count_or_unlimited),
    "concurrency_group": _Option(_STR),
    "enable_task_events": _Option((bool,)),
}
ALL_NAMES = sorted({*_TASK, *_ACTOR})
METHOD_NAMES = sorted(_METHOD)
_ONLY_IN_DECORATOR = ("max_calls", "concurrency_groups")


def _check(given: Mapping[str, Any], table: Mapping[str, _Option], what: str, in_options: bool) -> None:
    for name, value in given.items():
        option = table.get(name)
        if option is None:
            raise ValueError(f"Invalid option keyword {name} for {what}. Valid ones are {sorted(table)}.")
        if in_options and name in _ONLY_IN_DECORATOR:
            raise ValueError(f"Setting '{name}' is not supported in '.options()': give it to @redray.remote.")
        if not isinstance(value, option.types):
            wanted = " or ".join(t.__name__ for t in option.types)
            raise TypeError(f"The type of keyword '{name}' must be {wanted}, but it is {type(value).__name__}.")
        if value is not None and option.check is not None:
            option.check(name, value)


def check_task(given: Mapping[str, Any], in_options: bool = False) -> None:
    """Raises ValueError (unknown or out of range) or TypeError (wrong type). `in_options`: written in `.options()`."""
    _check(given, _TASK, "remote functions", in_options)


def check_actor(given: Mapping[str, Any], in_options: bool = False) -> None:
    """As `check_task`, for an actor class."""
    _check(given, _ACTOR, "actors", in_options)


def check_method(given: Mapping[str, Any]) -> None:
    """As `check_task`, for a call of an actor's method."""
    _check(given, _METHOD, "actor methods", in_options=False)


# ---- all of them together --------------------------------------------------------------------------------------------
def _demand(given: Mapping[str, Any]) -> dict[str, float]:
    demand: dict[str, float] = dict(given.get("resources") or {})
    for option, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if given.get(option) is not None:
            demand[resource] = given[option]
    if given.get("accelerator_type") is not None:
        demand[f"accelerator_type:{given['accelerator_type']}"] = ACCELERATOR_SHARE
    return demand


def _scheduling(given: Mapping[str, Any]) -> strategies.SchedulingStrategy:
    group = given.get("placement_group", "default")
    strategy: strategies.SchedulingStrategy = given.get("scheduling_strategy")
    if group is None or group == "default":
        if given.get("placement_group_bundle_index", -1) != -1:
            raise ValueError("'placement_group_bundle_index' says nothing without 'placement_group'.")
        return strategy
    if strategy is not None:
        raise ValueError("'placement_group' and 'scheduling_strategy' exclude each other: give the latter only.")
    return strategies.PlacementGroupSchedulingStrategy(
        group,
        given.get("placement_group_bundle_index", -1),
        given.get("placement_group_capture_child_tasks"),
    )


def _returns(given: Mapping[str, Any], is_generator: bool) -> int:
    value = given.get("num_returns")
    if isinstance(value, int) or (value is None and not is_generator):
        return 1 if value is None else int(value)
    from redray.spec import STREAMING  # brings msgspec, which importing a program of plain functions need not

    if not is_generator:
        raise ValueError(
            f"num_returns={value!r} can only be used with generator functions, which use 'yield'."
            " The decorated function is not one."
        )
    return DYNAMIC if value == "dynamic" else STREAMING


def _retry(given: Mapping[str, Any]) -> Retry:
    value = given.get("retry_exceptions", False)
    return value if isinstance(value, bool) else tuple(value)


def _default_max_retries() -> int:
    text = os.environ.get("REDRAY_TASK_MAX_RETRIES") or os.environ.get("RAY_TASK_MAX_RETRIES")
    return int(text) if text else DEFAULT_MAX_RETRIES


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def task_options(given: Mapping[str, Any], name: str, is_generator: bool) -> TaskOptions:
    """The record of a function's checked options.

    Args:
        given: decorator and `.options()`, merged.
        name: of the function: what the task is called unless `given` names it.
        is_generator: the function uses `yield`.
    """
    demand = _demand(given)
    demand.setdefault("CPU", 1)
    return TaskOptions(
        name=given.get("name") or name,
        demand=to_text(demand),
        num_returns=_returns(given, is_generator),
        max_retries=given["max_retries"] if given.get("max_retries") is not None else _default_max_retries(),
        retry_exceptions=_retry(given),
        max_calls=_or(given.get("max_calls"), 1 if demand.get("GPU") else 0),
        priority=_or(given.get("priority"), 0),
        scheduling_strategy=_scheduling(given),
        runtime_env=given.get("runtime_env"),
        label_selector=given.get("label_selector"),
        fallback_strategy=tuple(given.get("fallback_strategy") or ()),
        generator_backpressure=_or(given.get("_generator_backpressure_num_objects"), UNLIMITED),
        enable_task_events=given.get("enable_task_events", True),
    )


def _actor_demands(given: Mapping[str, Any]) -> tuple[str, str]:
    """What placing takes and what living holds: a default actor needs a CPU only to be placed, so many fit on one."""
    held = _demand(given)
    if held.keys() <= {"memory"}:
        return to_text({**held, "CPU": 1}), to_text(held)
    held.setdefault("CPU", 1)
    return to_text(held), to_text(held)


def actor_options(given: Mapping[str, Any], is_async: bool) -> ActorOptions:
    """The record of an actor class' checked options. `is_async`: one of its methods is `async def`."""
    concurrency = given.get("max_concurrency") or (DEFAULT_ASYNC_CONCURRENCY if is_async else 1)
    if given.get("get_if_exists") and not given.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    if given.get("allow_out_of_order_execution") is False and (is_async or concurrency > 1):
        raise ValueError(
            "An async or multi-threaded actor cannot run its calls in order: allow_out_of_order_execution=False needs"
            " a plain actor with max_concurrency=1."
        )
    to_place, held = _actor_demands(given)
    return ActorOptions(
        name=given.get("name") or "",
        namespace=given.get("namespace"),
        get_if_exists=given.get("get_if_exists", False),
        detached=given.get("lifetime") == "detached",
        max_restarts=_or(given.get("max_restarts"), 0),
        max_task_retries=_or(given.get("max_task_retries"), 0),
        max_concurrency=concurrency,
        concurrency_groups=dict(given.get("concurrency_groups") or {}),
        max_pending_calls=given.get("max_pending_calls") or UNLIMITED,
        demand_to_place=to_place,
        demand_held=held,
        priority=_or(given.get("priority"), 0),
        scheduling_strategy=_scheduling(given),
        runtime_env=given.get("runtime_env"),
        is_async=is_async,
        label_selector=given.get("label_selector"),
        fallback_strategy=tuple(given.get("fallback_strategy") or ()),
        enable_task_events=given.get("enable_task_events", True),
    )


def method_options(given: Mapping[str, Any], is_generator: bool) -> MethodOptions:
    """The record of a method's checked options, from `@method` and `.options()` merged."""
    return MethodOptions(
        num_returns=_returns(given, is_generator),
        max_task_retries=given.get("max_task_retries"),
        retry_exceptions=_retry(given),
        concurrency_group=given.get("concurrency_group") or "",
        name=given.get("name") or "",
        generator_backpressure=_or(given.get("_generator_backpressure_num_objects"), UNLIMITED),
        enable_task_events=given.get("enable_task_events", True),
    )
