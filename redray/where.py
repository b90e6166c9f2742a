"""Which nodes a task or actor may run on, as text: the name of its queue carries it, and scripts read it.

Alternatives, the best first, each a list of conditions on a node's labels:

* `zone=a,b&disk!=hdd&gpu&!spot`: zone is a or b, disk is not hdd (or there is none), there is a label gpu, and none
  called spot;
* `*`: any node;
* `A>B`: B only while no node of the cluster that matches A could ever run it;
* `A~B`: B when no node that matches A can take it at once.

`SPREAD` in front means: over those nodes by turns. The empty text is the default. `lua/lib/labels.lua` reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from redray import strategies

NODE_ID = "ray.io/node-id"  # a label that every node has
ANYWHERE = "*"
SPREAD = "SPREAD"

_SAFE = {ord(sign): None for sign in "-_./"}

Condition = tuple[str, frozenset[str] | None, bool]  # label, values (None: any), and whether that must hold or must not


def where_text(
    strategy: strategies.SchedulingStrategy,
    label_selector: Mapping[str, str] | None = None,
    fallbacks: Iterable[Mapping[str, Any]] = (),
) -> str:
    """The text for checked options. Each fallback is a dict with a `label_selector`, which replaces the first one."""
    selectors = [_selector(label_selector or {})]
    selectors += [_selector(fallback["label_selector"]) for fallback in fallbacks]
    texts = [_strategy_alternatives(strategy, selector) for selector in selectors]
    text = "~".join(texts)
    if strategy == SPREAD:
        return SPREAD if text == ANYWHERE else f"{SPREAD} {text}"
    return "" if text == ANYWHERE else text


def _strategy_alternatives(strategy: strategies.SchedulingStrategy, selector: str) -> str:
    if isinstance(strategy, strategies.NodeAffinitySchedulingStrategy):
        there = _both(f"{NODE_ID}={strategy.node_id.lower()}", selector)
        if not strategy.soft:
            return there
        return f"{there}{'~' if strategy._spill_on_unavailable else '>'}{selector}"
    if isinstance(strategy, strategies.NodeLabelSchedulingStrategy):
        hard = _both(_matches(strategy.hard), selector)
        return f"{_both(hard, _matches(strategy.soft))}~{hard}" if strategy.soft else hard
    return selector


def _both(one: str, other: str) -> str:
    return "&".join(text for text in (one, other) if text != ANYWHERE) or ANYWHERE


def _selector(selector: Mapping[str, str]) -> str:
    conditions = []
    # A node's id comes first, because scripts look for it there: such a task waits in that node's own queue.
    for label, condition in sorted(selector.items(), key=lambda item: (item[0] != NODE_ID, item[0])):
        body = condition.removeprefix("!")
        listed = body.removeprefix("in")
        values = listed[1:-1].split(",") if listed.startswith("(") else [body]
        operator = "!=" if condition.startswith("!") else "="
        conditions.append(_quoted(label) + operator + _values(value.strip() for value in values))
    return "&".join(conditions) or ANYWHERE


def _matches(matches: Mapping[str, strategies.LabelMatch]) -> str:
    conditions = []
    for label, match in sorted(matches.items()):
        if isinstance(match, strategies.In):
            conditions.append(f"{_quoted(label)}={_values(match.values)}")
        elif isinstance(match, strategies.NotIn):
            conditions.append(f"{_quoted(label)}!={_values(match.values)}")
        else:
            conditions.append(("" if isinstance(match, strategies.Exists) else "!") + _quoted(label))
    return "&".join(conditions) or ANYWHERE


def _values(values: Iterable[str]) -> str:
    return ",".join(_quoted(value) for value in values)


def _quoted(text: str) -> str:
    if text.isascii() and text.translate(_SAFE).isalnum():
        return text
    from urllib.parse import quote

    return quote(text, safe="/").replace("~", "%7E")


def _plain(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


@lru_cache(maxsize=4096)
def alternatives(where: str) -> tuple[tuple[Condition, ...], ...]:
    """What was written, the best first, without how one follows another."""
    text = where.removeprefix(SPREAD).strip() or ANYWHERE
    return tuple(_conditions(one) for one in text.replace("~", ">").split(">"))


def _conditions(text: str) -> tuple[Condition, ...]:
    return () if text == ANYWHERE else tuple(_condition(part) for part in text.split("&"))


def _condition(text: str) -> Condition:
    label, equals, listed = text.partition("=")
    if not equals:
        return _plain(label.removeprefix("!")), None, not label.startswith("!")
    values = frozenset(_plain(value) for value in listed.split(","))
    return _plain(label.removesuffix("!")), values, not label.endswith("!")


def _holds(condition: Condition, labels: Mapping[str, str]) -> bool:
    label, values, wanted = condition
    value = labels.get(label)
    return (value is not None and (values is None or value in values)) == wanted


def admits(where: str, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is among the best places: where no other node need be asked."""
    if not where:
        return True
    best = alternatives(where)[0]
    return not where.startswith(SPREAD) and all(_holds(condition, labels) for condition in best)


def may_admit(where: str, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is among the places at all."""
    return any(all(_holds(condition, labels) for condition in one) for one in alternatives(where))
