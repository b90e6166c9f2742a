"""What was asked of a task, an actor or a method, as one value that travels.

Options go through two steps. `option_checks` looks at each one alone, where the user writes it. `*_options` here turns
the whole of them, decorator and `.options()` merged, into the record that travels: defaults filled in, resources added
up to a demand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from redray import signatures, strategies
from redray.resources import to_text
from redray.where import where_text

if TYPE_CHECKING:
    from redray.runtime_env import RuntimeEnv

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
    runtime_env: RuntimeEnv | None = None
    label_selector: Mapping[str, str] | None = None
    fallback_strategy: tuple[Mapping[str, Any], ...] = ()
    generator_backpressure: int = UNLIMITED  # items a streaming generator may run ahead of its reader
    enable_task_events: bool = True
    where: str = ""  # what strategy, selector and fallbacks come to, see redray.where


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
    out_of_order: bool = False  # a call whose argument is not ready lets its caller's later ones pass
    demand_to_place: str = "CPU:1"
    demand_held: str = "-"
    priority: int = 0
    scheduling_strategy: strategies.SchedulingStrategy = None
    runtime_env: RuntimeEnv | None = None
    is_async: bool = False
    label_selector: Mapping[str, str] | None = None
    fallback_strategy: tuple[Mapping[str, Any], ...] = ()
    enable_task_events: bool = True
    where: str = ""


class MethodOptions(NamedTuple):
    """How one call of an actor's method runs, including what its actor sets for all of its methods."""

    num_returns: int = 1
    max_task_retries: int = 0
    retry_exceptions: Retry = False
    concurrency_group: str = ""  # "" is the default group
    name: str = ""  # of the task, "" means class and method
    generator_backpressure: int = UNLIMITED
    enable_task_events: bool = True
    max_pending_calls: int = UNLIMITED
    is_generator: bool = False
    signature: signatures.Signature = signatures.ANYTHING


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
    captures = given.get("placement_group_capture_child_tasks")
    if group is None or group == "default":
        if given.get("placement_group_bundle_index", -1) != -1:
            raise ValueError("'placement_group_bundle_index' says nothing without 'placement_group'.")
        if strategy is None and ("placement_group" in given or captures is not None):
            return strategies.PlacementGroupSchedulingStrategy(group, -1, captures)  # None keeps it out of any group
        return strategy
    if strategy is not None:
        raise ValueError("'placement_group' and 'scheduling_strategy' exclude each other: give the latter only.")
    return strategies.PlacementGroupSchedulingStrategy(
        group,
        given.get("placement_group_bundle_index", -1),
        captures,
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


def _environment(given: Mapping[str, Any]) -> RuntimeEnv | None:
    """Checked, and a copy: what the caller changes in it later is not meant for this one."""
    value = given.get("runtime_env")
    if not value:
        return None
    from redray.runtime_env import checked

    return checked(value)


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
        runtime_env=_environment(given),
        label_selector=given.get("label_selector"),
        fallback_strategy=tuple(given.get("fallback_strategy") or ()),
        generator_backpressure=_or(given.get("_generator_backpressure_num_objects"), UNLIMITED),
        enable_task_events=given.get("enable_task_events", True),
        where=_where(given),
    )


def _where(given: Mapping[str, Any]) -> str:
    return where_text(_scheduling(given), given.get("label_selector"), given.get("fallback_strategy") or ())


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
        out_of_order=bool(given.get("allow_out_of_order_execution")),
        demand_to_place=to_place,
        demand_held=held,
        priority=_or(given.get("priority"), 0),
        scheduling_strategy=_scheduling(given),
        runtime_env=_environment(given),
        is_async=is_async,
        label_selector=given.get("label_selector"),
        fallback_strategy=tuple(given.get("fallback_strategy") or ()),
        enable_task_events=given.get("enable_task_events", True),
        where=_where(given),
    )


def method_options(given: Mapping[str, Any], base: MethodOptions) -> MethodOptions:
    """`base` with the checked options of `@method` or `.options()` put over it."""
    changes: dict[str, Any] = {
        field: given[field]
        for field in ("max_task_retries", "concurrency_group", "name", "enable_task_events")
        if given.get(field) is not None
    }
    if given.get("num_returns") is not None:
        changes["num_returns"] = _returns(given, base.is_generator)
    if "retry_exceptions" in given:
        changes["retry_exceptions"] = _retry(given)
    if given.get("_generator_backpressure_num_objects") is not None:
        changes["generator_backpressure"] = given["_generator_backpressure_num_objects"]
    return base._replace(**changes)


def plain_method(
    is_generator: bool, signature: signatures.Signature, actor: ActorOptions, name: str = ""
) -> MethodOptions:
    """The options of a method that `@method` says nothing about. `name` is that of its tasks: class and method."""
    return MethodOptions(
        name=name,
        num_returns=_returns({}, is_generator),
        max_task_retries=actor.max_task_retries,
        max_pending_calls=actor.max_pending_calls,
        is_generator=is_generator,
        signature=signature,
    )
