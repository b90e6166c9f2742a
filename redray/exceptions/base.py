"""The root of redray's exceptions, and how each of them travels: by class, arguments and attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Error = TypeVar("_Error", bound=BaseException)


def restore(cls: type[_Error], args: tuple[Any, ...], state: dict[str, Any]) -> _Error:
    """Rebuild an exception without calling its `__init__`, whose parameters need not be its `args`."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RayError(Exception):
    """Root of everything redray raises about tasks, actors, objects and the cluster."""

    __module__ = "redray.exceptions"

    def __init_subclass__(cls, **keywords: Any) -> None:
        """All are named by the package, whichever file of it they stand in: that is what users import, and what a
        pickle that an earlier release made says."""
        super().__init_subclass__(**keywords)
        if cls.__module__.startswith("redray.exceptions."):
            cls.__module__ = "redray.exceptions"

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return restore, (type(self), self.args, self.__dict__)


class UserCodeException(RayError):
    """User code failed outside the body of a task."""


class UnserializableException(RayError):
    """The exception that user code raised cannot be loaded in this process."""
