"""An actor of a session in local mode: an instance in this process, called by whoever calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redray.exceptions import ActorDiedError, RayTaskError
from redray.exit import ActorExitRequested
from redray.functions import ActorDescription
from redray.ids import ActorID
from redray.local_objects import Packed
from redray.options import ActorOptions, MethodOptions
from redray.spec import TaskHead
from redray.store import serialization

Body = Callable[..., Any]


class LocalActor:
    def __init__(
        self,
        actor_id: ActorID,
        class_name: str,
        creation: TaskHead,
        options: ActorOptions,
        methods: dict[str, MethodOptions],
    ) -> None:
        self.id = actor_id
        self.class_name = class_name
        self.creation = creation
        self.options = options
        self.name = options.name
        self.namespace = options.namespace or ""
        self.instance: Any = None
        self.death: Packed | None = None  # what every call gives once the actor is dead
        self._methods = methods

    @property
    def is_dead(self) -> bool:
        return self.death is not None

    def describe(self) -> ActorDescription:
        return ActorDescription(self.id, self.class_name, self._methods)

    def make(self, cls: type) -> Body:
        def construct(*args: Any, **kwargs: Any) -> None:
            self.instance = cls(*args, **kwargs)

        return construct

    def method(self, name: str) -> Body:
        """What to call. A name that the instance lacks raises when called, so that the error is that of the call."""
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == "__ray_terminate__":
            return _exit
        return lambda *args, **kwargs: getattr(self.instance, name)(*args, **kwargs)

    def fail(self, cause: BaseException) -> None:
        """Its `__init__` failed: with an error of its own, or because one of its arguments did."""
        error = cause if not isinstance(cause, RayTaskError) else ActorDiedError(cause, self.id.hex())
        self.death = Packed(serialization.pack_error(error))

    def end(self, reason: str) -> Packed:
        text = f"The actor {self.class_name} ({self.id.hex()}) is dead because {reason}."
        self.death = Packed(serialization.pack_system_error("ActorDiedError", text, actor_id=self.id.hex()))
        return self.death


def _exit() -> None:
    raise ActorExitRequested()
