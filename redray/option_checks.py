"""Checks of each option alone (known name, type, range), made where the user writes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from redray import strategies
from redray.resources import UNIT

_MOST_COUNT = 2**31 - 1
_MOST_RETURNS = 1_000_000
_MOST_QUANTITY = 10**14  # of anything, in its own unit: what msgpack and Lua still carry, in ten thousandths


class _Option:
    __slots__ = ("check", "types")  # a NamedTuple takes 0.3 ms to make, at every start of every program

    def __init__(self, types: tuple[type, ...], check: Callable[[str, Any], None] | None = None) -> None:
        self.types = types
        self.check = check


def _quantity(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative: {value}.")
    if not math.isfinite(value):
        raise ValueError(f"The quantity of resource {name} must be a finite number, not {value}.")
    if value > _MOST_QUANTITY:
        raise ValueError(f"The quantity of resource {name} cannot be more than {_MOST_QUANTITY:.0e}: {value:.3g}.")
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
        if not isinstance(resource, str) or isinstance(quantity, bool) or not isinstance(quantity, (int, float)):
            raise TypeError(f"'{name}' maps names to numbers, not {resource!r} to {quantity!r}.")
        if not resource or "," in resource or "|" in resource:  # they separate the parts of a queue's name
            raise ValueError(f"A resource's name cannot be empty or contain a comma or a bar: {resource!r}.")
        _quantity(resource, quantity)


def _count_or_unlimited(name: str, value: int) -> None:
    if value < -1:
        raise ValueError(f"'{name}' takes None, 0, a positive integer, or -1, which means no limit; not {value}.")


def _count(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"'{name}' takes None, 0 or a positive integer; not {value}.")


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"'{name}' takes None or a positive integer; not {value}.")


def _num_returns(name: str, value: int | str) -> None:
    if isinstance(value, int) and value > _MOST_RETURNS:
        raise ValueError(f"'{name}' is at most {_MOST_RETURNS}; not {value}. A generator can give more.")
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
    if not (value == "default" or hasattr(type(value), "bundle_specs")):
        raise TypeError(f"'{name}' must be a placement group, None or 'default', not {type(value)}.")


def _selector(name: str, value: Mapping[str, str]) -> None:
    strategies.check_label_selector(value)


def _fallbacks(name: str, value: list[Any]) -> None:
    for element in value:
        if not isinstance(element, dict) or "label_selector" not in element:
            raise ValueError(f"Each element of '{name}' is a dict with a 'label_selector', not {element!r}.")
        for option in element:
            if option != "label_selector":
                raise ValueError(f"Unsupported option '{option}' in '{name}': only 'label_selector' can be there.")
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
    _text(name, value)


def _text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"'{name}' is not text that can be sent: {value!a:.100} has a lone surrogate.") from None


def _namespace(name: str, value: str) -> None:
    if not value:
        raise ValueError(f'"" is not a valid {name}. Pass None to not specify a {name}.')
    _text(name, value)


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
    "name": _Option(_STR, _text),
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
    "max_concurrency": _Option(_INT, _positive),
    "concurrency_groups": _Option(_DICT, _groups),
    "max_pending_calls": _Option(_INT, _count_or_unlimited),
    "allow_out_of_order_execution": _Option((bool, _NONE)),
}
_METHOD = {
    **_CALL,
    "name": _Option(_STR, _text),
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
        is_unasked_bool = isinstance(value, bool) and bool not in option.types and object not in option.types
        if is_unasked_bool or not isinstance(value, option.types):
            wanted = " or ".join(t.__name__ for t in option.types)
            raise TypeError(f"The type of keyword '{name}' must be {wanted}, but it is {type(value).__name__}.")
        if type(value) is int and not -_MOST_COUNT <= value <= _MOST_COUNT and option.check is not _quantity:
            raise ValueError(f"'{name}' is {value:.3g}, beyond what redray counts to ({_MOST_COUNT}).")
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


def check_flags(given: Mapping[str, Any]) -> None:
    """Raises TypeError for a text where True, False or None is meant: any text would count as True."""
    for name, value in given.items():
        if not isinstance(value, (bool, int, type(None))):
            raise TypeError(f"'{name}' is True or False, and no {type(value).__name__}.")


def seconds(what: str, value: Any) -> float | None:
    """A timeout as a number, None for one that never ends.

    Raises:
        TypeError: no number, or a bool.
        ValueError: not a number (NaN).
    """
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"The 'timeout' of {what} is a number of seconds, and no {type(value).__name__}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        raise ValueError(f"The 'timeout' of {what} is a number of seconds, not NaN.")
    return None if number == math.inf else number
