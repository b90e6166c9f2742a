"""What user code raised, on its way from the worker to whoever gets the result, as an error of both classes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from redray.exceptions.base import RayError, UnserializableException, restore

_HEADER = "Traceback (most recent call last):\n"
_OWN_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep


class RayTaskError(RayError):
    """A task or actor method raised. `get` raises it as a class that also is the class of `cause`.

    Args:
        function_name: what ran, such as `f` or `Actor.method`.
        traceback_str: the remote traceback, framework frames removed.
        cause: the exception that user code raised.
        proctitle: what the first line calls the process; default: `ray::` and the function's name.
        pid: process id of the worker.
        ip: address of the worker's node.
        actor_repr: `repr()` of the actor instance, for an actor's method.
        actor_id: hexadecimal id of the actor, for an actor's method.
    """

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip, actor_repr, actor_id)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}()"
        self.pid = pid
        self.ip = ip
        self.actor_repr = actor_repr
        self.actor_id = actor_id

    @classmethod
    def from_exception(
        cls,
        error: BaseException,
        function_name: str,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
        is_users: bool = True,
    ) -> RayTaskError:
        """Wrap what user code raised, in the worker that caught it. The result can always be pickled.

        An error that came out of a nested `get` passes its own cause on: `except ValueError` works at every depth.

        Args:
            is_users: False for what redray raised about user code, such as a result of the wrong length: then even
                frames wholly inside redray say nothing, and are left out.
        """
        text = _format_traceback(error, is_users)
        cause = error.cause if isinstance(error, RayTaskError) else error
        return cls(function_name, text, cause, None, pid, ip, actor_repr, actor_id)

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of both `RayTaskError` and the class of `cause`, if that allows subclasses."""
        cause_class: type = type(self.cause)
        if isinstance(self, cause_class):
            return self
        try:
            error = _new_dual(_dual_class(cause_class), self)
        except Exception:  # a final class, a metaclass with opinions, a __new__ with its own parameters: not possible
            return self
        error.__dict__.update(self.__dict__)
        _copy_slots(self.cause, error)
        error.args = (self.cause,)
        return error

    def __str__(self) -> str:
        known = {"pid": self.pid, "ip": self.ip, "actor_id": self.actor_id, "repr": self.actor_repr}
        where = ", ".join(f"{name}={value}" for name, value in known.items() if value is not None)
        return f"{self.proctitle} ({where})\n{self.traceback_str}".rstrip()

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        title = self.proctitle if self.proctitle != f"ray::{self.function_name}()" else None
        what = (self.function_name, self.traceback_str, title, self.pid, self.ip, self.actor_repr, self.actor_id)
        return _load_task_error, (*what, _dump_cause(self.cause, self.traceback_str), type(self) is not RayTaskError)


def _format_traceback(error: BaseException, is_users: bool) -> str:
    import traceback  # 5 ms of imports that only a failure needs

    report = traceback.TracebackException.from_exception(error)
    _hide_own_frames(report, is_users, set())
    lines = list(report.format())
    if lines.count(_HEADER) == 1 and lines[0] == _HEADER:
        del lines[0]  # the line "ray::f() (pid=...)" stands in its place
    return "".join(lines)


def _hide_own_frames(report: Any, is_users: bool, seen: set[int]) -> None:
    """Leave the user's frames, in the whole chain of causes. A failure wholly inside redray keeps its own frames,
    if it is no message about what the user did (`is_users`)."""
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    hidden = (_OWN_FILES,) if is_users else (_OWN_FILES, *_cloudpickles_files())
    users = [frame for frame in report.stack if not frame.filename.startswith(hidden)]
    if users:
        report.stack[:] = users
    elif not is_users:
        report.stack = None  # then no header stands above nothing
    for next_one in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        _hide_own_frames(next_one, is_users, seen)


def _cloudpickles_files() -> tuple[str, ...]:
    module = sys.modules.get("cloudpickle")
    return (os.path.dirname(str(module.__file__)) + os.sep,) if module is not None else ()


@lru_cache(maxsize=256)  # bounded: classes may be made in a loop, and a dual class keeps its cause class alive
def _dual_class(cause_class: type) -> type[RayTaskError]:
    def forward(self: Any, name: str) -> Any:
        if (name.startswith("__") and name != "__notes__") or "cause" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.cause, name)

    name = f"RayTaskError({cause_class.__name__})"
    members = {
        "__getattr__": forward,
        "__str__": RayTaskError.__str__,
        "__repr__": lambda self: f"{name}({self.cause!r})",
        "__reduce__": RayTaskError.__reduce__,
        "__module__": RayTaskError.__module__,
    }
    return type(name, (RayTaskError, cause_class), members)


def _new_dual(dual: type[RayTaskError], plain: RayTaskError) -> RayTaskError:
    if _is_group(plain.cause):  # its content is set by __new__
        group: Any = plain.cause
        return dual.__new__(dual, group.message, group.exceptions)
    return dual.__new__(dual)


def _is_group(error: BaseException) -> bool:
    return hasattr(error, "exceptions") and hasattr(error, "derive")  # BaseExceptionGroup is no name before Python 3.11


def _copy_slots(cause: BaseException, error: BaseException) -> None:
    """Copy what lives outside `__dict__`, such as `OSError.errno`: `__getattr__` is never asked for it."""
    for owner in type(cause).__mro__:
        if owner in (BaseException, Exception, object):
            continue
        for name, member in vars(owner).items():
            if hasattr(type(member), "__set__") and not isinstance(member, property) and not name.startswith("__"):
                try:
                    setattr(error, name, getattr(cause, name))
                except (AttributeError, TypeError):  # read-only, or never set on the cause: the copy has none either
                    continue


def _dump_cause(cause: BaseException, traceback_str: str) -> bytes:
    """Pickle `cause` so that it loads again; what cannot be pickled becomes a RayError with the traceback's text."""
    from redray import cloudpickle

    data: bytes
    try:  # user code runs in __reduce__, __init__ and __setstate__: it may raise anything
        data = cloudpickle.dumps(cause)
        if not _loads(data):
            data = cloudpickle.dumps(_ByState(type(cause), cause.args, dict(cause.__dict__)))
            cloudpickle.loads(data)
    except Exception as problem:
        what = f"The cause, {type(cause).__name__}, could not be pickled ({type(problem).__name__})"
        data = cloudpickle.dumps(RayError(f"{what}. Its traceback was:\n{traceback_str}"))
    return data


def _loads(data: bytes) -> bool:
    from redray import cloudpickle

    try:
        cloudpickle.loads(data)
    except Exception:  # as above
        return False
    return True


class _ByState:
    """Stands for an exception that its class cannot rebuild: its `__init__` takes other parameters than `args`."""

    def __init__(self, cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.parts = (cls, args, state)

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return restore, self.parts


def _load_task_error(
    function_name: str,
    traceback_str: str,
    proctitle: str | None,
    pid: int | None,
    ip: str | None,
    actor_repr: str | None,
    actor_id: str | None,
    cause_data: bytes,
    dual: bool,
) -> RayTaskError:
    from redray import cloudpickle

    try:
        cause = cloudpickle.loads(cause_data)
    except Exception as problem:  # its class is not importable here: the text must still arrive
        cause = UnserializableException(
            f"The cause could not be loaded here ({type(problem).__name__}). It was:\n{traceback_str}"
        )
    error = RayTaskError(function_name, traceback_str, cause, proctitle, pid, ip, actor_repr, actor_id)
    return error.as_instanceof_cause() if dual else error
