"""What a row must reach, and the verdict on what it did reach. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOOR_SHARE = 0.70


@dataclass(frozen=True)
class Times:
    """At least `factor` times as good as `peer`, measured in the same run."""

    factor: float
    peer: str

    def __str__(self) -> str:
        return f">= {self.factor:g}x {self.peer}"


@dataclass(frozen=True)
class AtLeast:
    limit: float

    def __str__(self) -> str:
        return f">= {self.limit:,.5g}"


@dataclass(frozen=True)
class AtMost:
    limit: float

    def __str__(self) -> str:
        return f"<= {self.limit:g}"


Goal = Times | AtLeast | AtMost


@dataclass(frozen=True)
class Row:
    """One line of the table. `timeout` is what one round of it may take, whichever system runs it."""

    name: str
    title: str
    unit: str
    goals: tuple[Goal, ...]
    higher_is_better: bool = True
    floor: bool = False  # the bare hops of this row are measured too
    capped: bool = False  # one call at a time: wake-ups bound it, so 70 % of the floor is enough whatever the goals say
    spine: tuple[Goal, ...] = ()  # the smaller goals of the first release
    timeout: float = 90

    def goal_text(self, spine: bool = False) -> str:
        chosen = self.spine if spine else self.goals
        text = ", ".join(map(str, chosen)) or "-"
        return f"{text}, or {FLOOR_SHARE:.0%} of the floor" if self.capped and not spine else text


def times_as_good(row: Row, ours: float, theirs: float) -> float:
    """How many times as good `ours` is: above 1 we win, whichever direction is the good one."""
    better, worse = (ours, theirs) if row.higher_is_better else (theirs, ours)
    return better / worse if worse else float("inf")


def reached(row: Row, medians: Mapping[str, float], spine: bool = False) -> bool | None:
    """Whether redray's median reaches the row's goals; None when that cannot be told from what was measured."""
    goals = row.spine if spine else row.goals
    ours = medians.get("redray")
    if ours is None or not goals:
        return None
    if row.capped and not spine and "floor" in medians and times_as_good(row, ours, medians["floor"]) >= FLOOR_SHARE:
        return True
    verdicts = [_reached_one(row, goal, ours, medians) for goal in goals]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _reached_one(row: Row, goal: Goal, ours: float, medians: Mapping[str, float]) -> bool | None:
    if isinstance(goal, AtLeast):
        return ours >= goal.limit
    if isinstance(goal, AtMost):
        return ours <= goal.limit
    theirs = medians.get(goal.peer)
    return None if theirs is None else times_as_good(row, ours, theirs) >= goal.factor
