"""The errors that the system makes. Lua and nodes name them by class name and text, and `system_error` turns that into
an exception: no pickle is opened to learn that a worker died."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redray.exceptions.base import RayError, UnserializableException, UserCodeException, restore
from redray.exceptions.task_error import RayTaskError


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


class LocalRayletDiedError(RayError):
    """The node of this process died. redray raises NodeDiedError itself; the name is here for ported programs."""


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

    @property
    def error_msg(self) -> str:
        return str(self)


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


class TaskKilledWithPlacementGroup(TaskPlacementGroupRemoved, WorkerCrashedError):
    """The task ran in a placement group that was removed. Both of its bases, because Ray names either."""


class TaskLostWithNode(NodeDiedError, WorkerCrashedError):
    """The node that ran the task died, and no retries were left. Both of its bases, because Ray names either."""


class ActorKilledWithPlacementGroup(ActorPlacementGroupRemoved, ActorDiedError, ActorUnschedulableError):
    """The actor lived, or waited, in a placement group that was removed. All of its bases, because Ray names any."""


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be set up on the node."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__("\n".join(["Failed to set up runtime environment.", *filter(None, [error_message])]))


class OutOfMemoryError(RayError):
    """The node was about to run out of memory and killed the task's worker."""


# ---- objects ---------------------------------------------------------------------------------------------------------
class GetTimeoutError(RayError, TimeoutError):
    """`get` ran into its timeout before every value was ready."""


class ObjectStoreFullError(RayError):
    """The object does not fit: shared memory is full, and nothing in it may be evicted or spilled."""


class PlasmaObjectNotAvailable(RayError):
    """The object is in no shared memory of this node. redray waits for it instead; here for ported programs."""


class OufOfBandObjectRefSerializationException(RayError):
    """A ref was pickled by hand where that is forbidden. redray allows it; here for ported programs."""


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator has no more items. Its reader sees StopIteration instead."""


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


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted though it is still referenced. redray raises ObjectLostError itself."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and could not be computed again: no retries are left, or `put` or an actor made it."""


# ---- the system ------------------------------------------------------------------------------------------------------
class RaySystemError(RayError):
    """Something in redray itself, or between its processes, failed.

    Attributes:
        client_exc: the text of what failed, or the exception.
        traceback_str: where that was, if known.
    """

    traceback_str: str | None = None

    def __init__(self, client_exc: Any = "", traceback_str: str | None = None) -> None:
        super().__init__(client_exc)
        self.traceback_str = traceback_str

    @property
    def client_exc(self) -> Any:
        return self.args[0]

    def __str__(self) -> str:
        return "\n".join(filter(None, [str(self.client_exc), self.traceback_str]))


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again gave other items than the first time."""


class RpcError(RayError):
    """A process could not be reached. `rpc_code` is a number of the transport's, or None."""

    rpc_code: int | None = None

    def __init__(self, message: str = "", rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class ClusterLostError(RaySystemError):
    """Redis and with it the cluster's state are gone. This session's tasks and objects are lost: call init() again."""


class AuthenticationError(RayError):
    """The cluster refused the credentials."""


class SecurityError(RayError):
    """A message or file failed its integrity check and was not opened."""


SYSTEM_ERRORS: dict[str, type[RayError]] = {
    cls.__name__: cls
    for cls in (*globals().values(), UnserializableException, UserCodeException)
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
    cls = SYSTEM_ERRORS.get(name)
    if cls is None:
        return RaySystemError(f"{name}: {message}")
    error = restore(cls, (message,), {})
    for field, value in (fields or {}).items():
        if field in ("actor_id", "actor_init_failed", "preempted", "task_id", "object_ref_hex") and hasattr(cls, field):
            setattr(error, field, value)
    return error
