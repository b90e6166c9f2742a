"""What a session is told about functions and classes: how to send one, and what a named actor is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from redray.ids import ActorID, FunctionID
from redray.options import MethodOptions


class ExportedFunction(NamedTuple):
    """A function or class as `cloudpickle.loads(pickled)` gives it back. The session sends it once, before its use."""

    id: FunctionID
    pickled: bytes
    name: str
    contains: tuple[bytes, ...] = ()  # ids of the objects whose refs it captured: they live as long as it does
    target: Any = None  # the function or class itself, for a session that runs it in this process


class ActorDescription(NamedTuple):
    """What another process must know of an actor to call it."""

    actor_id: ActorID
    class_name: str
    methods: Mapping[str, MethodOptions]
