"""How values of a class are sent, where the class itself does not say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from redray.reducers import registered

T = TypeVar("T")


def register_serializer(cls: type[T], *, serializer: Callable[[T], Any], deserializer: Callable[[Any], T]) -> None:
    """In this process, send instances of exactly `cls` as what `serializer` gives; `deserializer` makes one of that.

    The deserializer travels with the value, so only processes that send need the registration: a worker that returns
    such a value registers it itself. Registering again replaces what was there.

    Raises:
        TypeError: `cls` is no class, or one of the others cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer() takes a class, not {cls!r}.")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"The '{name}' of register_serializer() is a function, not {function!r}.")
    registered[cls] = lambda value: (deserializer, (serializer(value),))


def deregister_serializer(cls: type[Any]) -> None:
    """Forget what was registered for `cls`, if anything was."""
    if not isinstance(cls, type):
        raise TypeError(f"deregister_serializer() takes a class, not {cls!r}.")
    registered.pop(cls, None)
