"""What can go wrong, under Ray's names, so that ported `except` clauses keep working.

Two ways lead here. `RayTaskError` carries what user code raised and travels as a pickle from worker to caller. All
others are made by the system: Lua and nodes name them by (class name, message), and `system_error` turns that into an
exception, so no pickle is opened to learn that a worker died.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

_Error = TypeVar("_Error", bound=BaseException)
_HEADER = "Traceback (most recent call last):\n"
_OWN_FILES = __file__.removesuffix("exceptions.py")


def _restore(cls: type[_Error], args: tuple[Any, ...], state: dict[str, Any]) -> _Error:
    """Rebuild an exception without calling its `__init__`, whose parameters need not be its `args`."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RayError(Exception):
    """Root of everything redray raises about tasks, actors, objects and the cluster."""

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return _restore, (type(self), self.args, self.__dict__)


# ---- what user code raised -------------------------------------------------------------------------------------------
class RayTaskError(RayError):
    """A task or actor method raised. `get` raises it as a class that also is the class of `cause`.

    Args:
        function_name: what ran, such as `f` or `Actor.method`.
        traceback_str: the remote traceback, framework frames removed.
        cause: the exception that user code raised.
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
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, pid, ip, actor_repr, actor_id)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
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
    ) -> RayTaskError:
        """Wrap what user code raised, in the worker that caught it. The result can always be pickled.

        An error that came out of a nested `get` passes its own cause on: `except ValueError` works at every depth.
        """
        text = _format_traceback(error)
        cause = error.cause if isinstance(error, RayTaskError) else error
        return cls(function_name, text, cause, pid, ip, actor_repr, actor_id)

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
        return f"ray::{self.function_name}() ({where})\n{self.traceback_str}".rstrip()

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        what = (self.function_name, self.traceback_str, self.pid, self.ip, self.actor_repr, self.actor_id)
        return _load_task_error, (*what, _dump_cause(self.cause, self.traceback_str), type(self) is not RayTaskError)


def _format_traceback(error: BaseException) -> str:
    import traceback  # 5 ms of imports that only a failure needs

    report = traceback.TracebackException.from_exception(error)
    _hide_own_frames(report, set())
    lines = list(report.format())
    if lines.count(_HEADER) == 1 and lines[0] == _HEADER:
        del lines[0]  # the line "ray::f() (pid=...)" stands in its place
    return "".join(lines)


def _hide_own_frames(report: Any, seen: set[int]) -> None:
    """Leave the user's frames, in the whole chain of causes. A failure wholly inside redray keeps its own frames."""
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    users = [frame for frame in report.stack if not frame.filename.startswith(_OWN_FILES)]
    if users:
        report.stack[:] = users
    _hide_own_frames(report.__cause__, seen)
    _hide_own_frames(report.__context__, seen)
    for inner in getattr(report, "exceptions", None) or ():
        _hide_own_frames(inner, seen)


@lru_cache(maxsize=256)  # bounded: classes may be made in a loop, and a dual class keeps its cause class alive
def _dual_class(cause_class: type) -> type[RayTaskError]:
    def forward(self: Any, name: str) -> Any:
        if name.startswith("__") or "cause" not in self.__dict__:
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
        return _restore, self.parts


def _load_task_error(
    function_name: str,
    traceback_str: str,
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
    error = RayTaskError(function_name, traceback_str, cause, pid, ip, actor_repr, actor_id)
    return error.as_instanceof_cause() if dual else error


# ---- tasks and actors ------------------------------------------------------------------------------------------------
class TaskCancelledError(RayError):
    """The task was cancelled, before or while it ran. `task_id` is hexadecimal, where known."""

    def __init__(self, task_id: str | None = None, error_message: str | None = None) -> None:
        which = f"Task {task_id}" if task_id else "This task"
        super().__init__(error_message or f"{which} or the task it depends on was cancelled.")
        self.task_id = task_id

    task_id: str | None = None


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task, and no retries were left."""


class NodeDiedError(RayError):
    """The node that ran the task or held the object died."""


class RayActorError(RayError):
    """The actor could not run the call: it is dead, was never created, or cannot be reached.

    Attributes:
        actor_id: hexadecimal id, where known.
        actor_init_failed: True if its `__init__` raised.
        preempted: True if its node was taken away on purpose.
    """

    actor_id: str | None = None
    actor_init_failed: bool = False
    preempted: bool = False

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = "The actor died before it finished this call.",
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        super().__init__(error_msg)
        self.actor_id = actor_id
        self.actor_init_failed = actor_init_failed
        self.preempted = preempted


class ActorDiedError(RayActorError):
    """The actor is dead and will not be restarted. With `cause`, its `__init__` raised that."""

    def __init__(
        self,
        cause: RayTaskError | None = None,
        actor_id: str | None = None,
        error_msg: str = "The actor died unexpectedly before it finished this call.",
    ) -> None:
        if cause is not None:
            actor_id = actor_id or cause.actor_id
            error_msg = f"The actor died because of an error raised in its creation task, {cause}"
        super().__init__(actor_id, error_msg, actor_init_failed=cause is not None)


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached now; the call may or may not have run. It may answer later."""

    def __init__(self, error_message: str, actor_id: str | None = None) -> None:
        super().__init__(actor_id, f"The actor {actor_id or ''} is unavailable: {error_message}".replace("  ", " "))


class PendingCallsLimitExceeded(RayError):
    """More calls are pending on this handle than the actor's `max_pending_calls` allows."""


class ActorAlreadyExistsError(ValueError, RayError):
    """An actor of this name lives in the namespace already."""


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle belongs to another session, or to an actor that nobody knows any more."""


class AsyncioActorExit(RayError):
    """Raised inside an async actor by `exit_actor()` to leave the running method."""


class TaskUnschedulableError(RayError):
    """No node can ever run the task: its hard placement names a node that is gone."""

    def __init__(self, error_message: str) -> None:
        super().__init__(f"The task is not schedulable: {error_message}")


class ActorUnschedulableError(RayError):
    """No node can ever hold the actor: its hard placement names a node that is gone."""

    def __init__(self, error_message: str) -> None:
        super().__init__(f"The actor is not schedulable: {error_message}")


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be set up on the node."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__("\n".join(["Failed to set up the runtime environment.", *filter(None, [error_message])]))


class OutOfMemoryError(RayError):
    """The node was about to run out of memory and killed the task's worker."""


# ---- objects ---------------------------------------------------------------------------------------------------------
class GetTimeoutError(RayError, TimeoutError):
    """`get` ran into its timeout before every value was ready."""


class ObjectStoreFullError(RayError):
    """The object does not fit: shared memory is full, and nothing in it may be evicted or spilled."""


class OutOfDiskError(RayError):
    """The disk that objects are spilled to is full."""


class ObjectLostError(RayError):
    """Every copy of the object is gone and it cannot be computed again. `object_ref_hex` names it."""

    object_ref_hex: str = ""

    def __init__(self, object_ref_hex: str, owner_address: object = None, call_site: str = "", reason: str = ""):
        which = f"Object {object_ref_hex} cannot be retrieved: "
        super().__init__(which + (reason or "all its copies were lost with their nodes."))
        self.object_ref_hex = object_ref_hex


class ObjectFetchTimedOutError(ObjectLostError):
    """A copy exists but could not be brought to this node in time."""


class ObjectFreedError(ObjectLostError):
    """The object was freed while this reference still existed."""


class OwnerDiedError(ObjectLostError):
    """The process that was to make the object died before it did."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and could not be computed again: no retries are left, or `put` or an actor made it."""


class UnserializableException(RayError):
    """The exception that user code raised cannot be loaded in this process."""


# ---- the system ------------------------------------------------------------------------------------------------------
class RaySystemError(RayError):
    """Something in redray itself, or between its processes, failed."""


class ClusterLostError(RaySystemError):
    """Redis and with it the cluster's state are gone. This session's tasks and objects are lost: call init() again."""


class AuthenticationError(RayError):
    """The cluster refused the credentials."""


class SecurityError(RayError):
    """A message or file failed its integrity check and was not opened."""


_SYSTEM_ERRORS: dict[str, type[RayError]] = {
    cls.__name__: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, RayError) and not issubclass(cls, RayTaskError)
}


def system_error(name: str, message: str, fields: Mapping[str, Any] | None = None) -> RayError:
    """The exception that Lua or a node named.

    Args:
        name: a class of this module other than RayTaskError. Any other name, which a newer release may send, gives a
            RaySystemError.
        message: the whole text of the error.
        fields: attributes that the class declares, such as `{"actor_init_failed": True}`; others are left out.
    """
    cls = _SYSTEM_ERRORS.get(name)
    if cls is None:
        return RaySystemError(f"{name}: {message}")
    error = _restore(cls, (message,), {})
    for field, value in (fields or {}).items():
        if field in ("actor_id", "actor_init_failed", "preempted", "task_id", "object_ref_hex") and hasattr(cls, field):
            setattr(error, field, value)
    return error
