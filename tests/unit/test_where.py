"""Which nodes work may run on, as text: what options come to, and what a node reads in it."""

from __future__ import annotations

from typing import Any

import pytest

from redray.strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    check_label_syntax,
    check_labels,
)
from redray.where import admits, may_admit, where_text

NODE = "ab" * 8
HARD = NodeAffinitySchedulingStrategy(NODE, soft=False)
SOFT = NodeAffinitySchedulingStrategy(NODE, soft=True)
SPILL = NodeAffinitySchedulingStrategy(NODE, soft=True, _spill_on_unavailable=True)
LABELS = NodeLabelSchedulingStrategy({"zone": In("a", "b"), "gpu": Exists()}, soft={"old": DoesNotExist()})


@pytest.mark.parametrize(
    "strategy, selector, fallbacks, text",
    [
        (None, None, [], ""),
        ("DEFAULT", {}, [], ""),
        ("SPREAD", None, [], "SPREAD"),
        ("SPREAD", {"zone": "a"}, [], "SPREAD zone=a"),
        (None, {"zone": "in(a, b)", "disk": "!hdd", "x.io/gpu": "!in(t4)"}, [], "disk!=hdd&x.io/gpu!=t4&zone=a,b"),
        (None, {"zone": "(a,b)", "empty": ""}, [], "empty=&zone=a,b"),
        (None, {"disk": "ssd", "ray.io/node-id": NODE}, [], f"ray.io/node-id={NODE}&disk=ssd"),
        (None, {"zone": "a"}, [{"label_selector": {"zone": "b"}}, {"label_selector": {}}], "zone=a~zone=b~*"),
        (HARD, None, [], f"ray.io/node-id={NODE}"),
        (SOFT, None, [], f"ray.io/node-id={NODE}>*"),
        (SPILL, None, [], f"ray.io/node-id={NODE}~*"),
        (HARD, {"zone": "a"}, [], f"ray.io/node-id={NODE}&zone=a"),
        (LABELS, None, [], "gpu&zone=a,b&!old~gpu&zone=a,b"),
        (NodeLabelSchedulingStrategy({"a b": NotIn("x&y~z")}), None, [], "a%20b!=x%26y%7Ez"),
    ],
)
def test_options_as_text(strategy: Any, selector: Any, fallbacks: Any, text: str) -> None:
    assert where_text(strategy, selector, fallbacks) == text


@pytest.mark.parametrize(
    "where, best, at_all",
    [
        ("", True, True),
        ("SPREAD", False, True),
        ("zone=a", True, True),
        ("zone=b", False, False),
        ("zone=b,a&disk", True, True),
        ("zone!=a", False, False),
        ("zone!=b&nothing!=x&!nothing", True, True),
        ("!disk", False, False),
        ("nothing", False, False),
        ("nothing=", False, False),
        ("zone=b>zone=a", False, True),
        ("zone=b~*", False, True),
        ("SPREAD zone=b>disk", False, True),
        ("odd%20one=%26", True, True),
    ],
)
def test_what_a_node_reads(where: str, best: bool, at_all: bool) -> None:
    labels = {"zone": "a", "disk": "ssd", "odd one": "&"}
    assert (admits(where, labels), may_admit(where, labels)) == (best, at_all)


@pytest.mark.parametrize("labels", [{"zone": 1}, {3: "a"}, {"zone": None}])
def test_labels_are_texts(labels: Any) -> None:
    with pytest.raises(TypeError):
        check_labels(labels)


@pytest.mark.parametrize(
    "labels",
    [{"": "a"}, {"zone": "a b"}, {"-zone": "a"}, {"a..b/zone": "x"}, {"z" * 64: "x"}, {"zone": "x" * 64}],
)
def test_labels_that_no_selector_can_name(labels: Any) -> None:
    check_labels(labels)
    with pytest.raises(ValueError):
        check_label_syntax(labels)


def test_labels_that_are_fine() -> None:
    check_label_syntax({"zone": "a", "example.com/disk-type": "ssd_2.x", "empty": "", "x" * 63: "y" * 63})


@pytest.mark.parametrize("node", ["ff" * 8, "ff" * 28, "xyz"])
def test_an_id_that_no_node_can_have(node: str) -> None:
    with pytest.raises(ValueError, match="Invalid node_id"):
        NodeAffinitySchedulingStrategy(node, soft=False)
