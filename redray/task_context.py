"""What runs now: the facts about the current task or actor call that user code may ask for."""

from __future__ import annotations

from redray.resources import NOTHING, from_text, from_units
from redray.spec import ACTOR_CREATION, TaskHead


class TaskContext:
    """Made once per attempt on the hot path, so everything but the flag is read from the spec's head when asked."""

    __slots__ = ("attempt", "cancelled", "creation", "gpus", "head", "is_restarted", "submitted")

    def __init__(
        self,
        head: TaskHead,
        attempt: int,
        gpus: list[int],
        creation: TaskHead | None = None,
        is_restarted: bool = False,
    ) -> None:
        self.head = head
        self.attempt = attempt
        self.gpus = gpus
        self.creation = creation  # of the actor that this process hosts, None for a plain task
        self.is_restarted = is_restarted  # this process is not the first of that actor
        self.cancelled = False  # somebody asked to cancel; what an actor method can poll
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
        return self.head.name

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
        return {name: from_units(units) for name, units in from_text(demand).items()}
