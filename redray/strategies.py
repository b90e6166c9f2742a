"""Where a task or actor may run, as values. `redray.util.scheduling_strategies` is their public home, as in Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("DEFAULT", "SPREAD")


class PlacementGroupSchedulingStrategy:
    """Run inside a placement group.

    Args:
        placement_group: the group.
        placement_group_bundle_index: which bundle, from 0; -1 is any of them.
        placement_group_capture_child_tasks: True: what this task or actor starts runs in the group too.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on the node `node_id` (hexadecimal, see `redray.nodes()`); with `soft`, elsewhere if that node is gone."""

    def __init__(
        self, node_id: str, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False
    ) -> None:
        if (_spill_on_unavailable or _fail_on_unavailable) and not (_spill_on_unavailable and soft):
            if not _fail_on_unavailable or soft:
                raise ValueError("_spill_on_unavailable needs soft=True, _fail_on_unavailable needs soft=False.")
        self.node_id = _hex(node_id)
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable


def _hex(node_id: str) -> str:
    text = node_id if isinstance(node_id, str) else node_id.hex()
    try:
        bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"Invalid node_id '{text}': it must be hexadecimal, as redray.nodes() lists it.") from None
    if not text.strip("fF"):
        raise ValueError(f"Invalid node_id '{text}': this is nobody's id, see redray.nodes().")
    return text


class _Values:
    def __init__(self, *values: str) -> None:
        name = type(self).__name__
        if not values:
            raise ValueError(f'{name} needs at least one value, such as {name}("value1", "value2").')
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(f"{name} takes strings, but value {position} is {value!r} of type {type(value)}.")
        self.values = list(values)


class In(_Values):
    """The node's label has one of these values."""


class NotIn(_Values):
    """The node's label has none of these values, or is missing."""


class Exists:
    """The node has the label, with any value."""


class DoesNotExist:
    """The node lacks the label."""


LabelMatch = In | NotIn | Exists | DoesNotExist


class NodeLabelSchedulingStrategy:
    """Run on a node whose labels match all of `hard`; prefer one that matches `soft` too."""

    def __init__(self, hard: Mapping[str, LabelMatch], *, soft: Mapping[str, LabelMatch] | None = None) -> None:
        self.hard = _checked_matches(hard, "hard")
        self.soft = _checked_matches(soft or {}, "soft")
        if not self.hard and not self.soft:
            raise ValueError("NodeLabelSchedulingStrategy: `hard` and `soft` cannot both be empty.")


def _checked_matches(matches: Mapping[str, LabelMatch], which: str) -> dict[str, LabelMatch]:
    if not isinstance(matches, Mapping):
        raise ValueError(f"`{which}` must be a dict from label to In, NotIn, Exists or DoesNotExist, not {matches!r}.")
    for label, match in matches.items():
        if not isinstance(label, str):
            raise ValueError(f"`{which}`: a label must be a string, not {label!r}.")
        if not isinstance(match, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(
                f'`{which}`: the value of {label!r} must be In, NotIn, Exists or DoesNotExist, such as In("a"),'
                f" not {match!r}."
            )
    return dict(matches)


CLASSES = (PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)
SchedulingStrategy = (
    str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy | None
)


def check_label_selector(selector: Mapping[str, str]) -> None:
    """`{label: condition}`, where a condition is `value`, `!value`, `in(a,b)` or `!in(a,b)`.

    Raises:
        TypeError: a label or condition is not a string.
        ValueError: a condition cannot be read.
    """
    for label, condition in selector.items():
        if not isinstance(label, str) or not isinstance(condition, str):
            raise TypeError(f"A label selector maps strings to strings, not {label!r} to {condition!r}.")
        _check_label_key(label)
        body = condition.removeprefix("!")
        listing = body.removeprefix("in")
        values = listing[1:-1].split(",") if listing.startswith("(") and listing.endswith(")") else [body]
        listed = values[0] is not body
        if not all(_is_label_value(value.strip(), may_be_empty=not listed) for value in values):
            raise ValueError(
                f"Invalid label selector value {condition!r} of {label!r}. It is `value`, `!value`, `in(a,b)` or"
                " `!in(a,b)`; a value has at most 63 letters, digits, `-`, `_` and `.`, and starts and ends with a"
                " letter or digit."
            )


def check_labels(labels: Mapping[str, str]) -> None:
    """A node's labels: any texts, as with Ray. Raises TypeError."""
    for label, value in labels.items():
        if not isinstance(label, str) or not isinstance(value, str):
            raise TypeError(f"'labels' maps strings to strings, not {label!r} to {value!r}.")


def check_label_syntax(labels: Mapping[str, str]) -> None:
    """What a label selector can ask for: `{"zone": "a", "example.com/disk": "ssd"}`. Raises ValueError."""
    for label, value in labels.items():
        _check_label_key(label)
        if not _is_label_value(value, may_be_empty=True):
            raise ValueError(f"Invalid value {value!r} of label {label!r}: {_RULE}.")


def _check_label_key(label: str) -> None:
    prefix, slash, name = label.rpartition("/")
    parts = prefix.split(".") if slash else []
    if len(prefix) > 253 or not all(_is_label_value(part, may_be_empty=False) for part in (*parts, name)):
        raise ValueError(f"Invalid label key {label!r}: a name, or a domain, a slash and a name. For each, {_RULE}.")


_RULE = "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"


def _is_label_value(value: str, may_be_empty: bool) -> bool:
    if not value:
        return may_be_empty
    inner = value.replace("-", "").replace("_", "").replace(".", "")
    return len(value) <= 63 and value.isascii() and inner.isalnum() and value[0].isalnum() and value[-1].isalnum()
