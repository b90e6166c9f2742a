"""What runs now: the facts about the current task or actor call that user code may ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from redray.resources import NOTHING, from_units, plain
from redray.spec import ACTOR_CALL, ACTOR_CREATION, TaskHead


class TaskContext:
    """Made once per attempt on the hot path, so everything but the flag is read from the spec's head when asked."""

    __slots__ = (
        "attempt",
        "body",
        "cancelled",
        "creation",
        "exits",
        "gpus",
        "head",
        "is_restarted",
        "returned",
        "submitted",
    )

    def __init__(
        self,
        head: TaskHead,
        attempt: int,
        gpus: Sequence[int | str],
        creation: TaskHead | None = None,
        is_restarted: bool = False,
    ) -> None:
        self.head = head
        self.attempt = attempt
        self.gpus = gpus
        self.body: Any = None  # the function that runs, or the class of the actor
        self.creation = creation  # of the actor that this process hosts, None for a plain task
        self.is_restarted = is_restarted  # this process is not the first of that actor
        self.cancelled = False  # somebody asked to cancel; what an actor method can poll
        self.exits = False  # it asked for the end of its actor
        self.returned: Any = None  # until that is said: another thread must not let go of the refs in it before
        self.submitted = 0  # number of the last task which this process had submitted then

    def cancel(self, submitted: int) -> None:
        if not self.cancelled:
            self.cancelled, self.submitted = True, submitted

    @property
    def task(self) -> str:
        return self.head.task

    @property
    def job(self) -> str:
        return self.head.job

    @property
    def name(self) -> str:
        return f"{self.head.name}.__init__" if self.head.kind == ACTOR_CREATION else self.head.name

    @property
    def function_name(self) -> str:
        """`module.f` or `module.Class.method`."""
        if self.body is None:
            return self.name
        parts = [_module(self.body), self.body.__name__]
        if self.head.kind == ACTOR_CREATION:
            parts.append("__init__")
        elif self.head.kind == ACTOR_CALL:
            parts.append(self.head.function)
        return ".".join(parts)

    @property
    def actor(self) -> str:
        return self.head.actor

    @property
    def actor_name(self) -> str:
        return str((self.creation or self.head).options.get("name") or "")

    def assigned_resources(self) -> dict[str, float]:
        """What is held while this runs. An actor holds what its creation said it keeps, which may be less than it took
        to place."""
        if self.creation is not None or self.head.kind == ACTOR_CREATION:
            demand = str((self.creation or self.head).options.get("demand_held", NOTHING))
        else:
            demand = self.head.demand
        return {name: from_units(units) for name, units in plain(demand).items()}


def _module(target: Any) -> str:
    """Where a function or class is from; of a script, the name of its file, as in Ray."""
    name = str(target.__module__)
    if name != "__main__":
        return name
    members = [target, *vars(target).values()] if isinstance(target, type) else [target]
    code = next((member.__code__ for member in members if hasattr(member, "__code__")), None)
    return os.path.splitext(os.path.basename(code.co_filename))[0] if code is not None else name
