"""The functions of the public API: they check their arguments, then ask the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from redray import current, option_checks
from redray.actor import ActorClass, ActorHandle, _check_session
from redray.actor_shape import ActorShape
from redray.refs import ObjectRef
from redray.remote_function import RemoteFunction, is_function
from redray.startup import init, is_initialized, shutdown

if TYPE_CHECKING:
    from redray.runtime_context import RuntimeContext

__all__ = [
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]

T = TypeVar("T")


# ---- remote ----------------------------------------------------------------------------------------------------------
def remote(*targets: Any, **options: Any) -> Any:
    """Make a function a task, or a class an actor: `@redray.remote`, or with options `@redray.remote(num_cpus=2)`.

    Args:
        num_cpus, num_gpus, resources, memory, accelerator_type: what one call, or one actor, takes of its node.
            `memory` is in bytes, the others are numbers of 1/10000 precision. A task takes one CPU unless told
            otherwise; an actor takes one to be placed and none afterwards.
        num_returns: how many refs a call gives; "streaming" for a generator.
        max_retries, retry_exceptions: how often a task is repeated after its worker or node died (default 3, -1 without
            end), and whether, or after which exceptions, it is repeated when it raised.
        name, namespace, get_if_exists, lifetime, max_restarts, max_task_retries, max_concurrency: of actors, see
            `docs/actors.md`.
        scheduling_strategy, label_selector, priority, runtime_env: where, before whom and in which environment it runs.

    Raises:
        AssertionError: empty parentheses, a target together with options, or one that cannot be called at all.
        TypeError: an option has the wrong type, or the target is neither function nor class.
        ValueError: an option is unknown or out of range, or the function is `async def`.
    """
    if len(targets) == 1 and not options and callable(targets[0]):
        return _Decorator({})(targets[0])
    if targets or not options:
        raise AssertionError(
            "The @redray.remote decorator is applied either bare, without parentheses, or with keyword arguments out of"
            f" {option_checks.ALL_NAMES}, for example '@redray.remote(num_returns=2)'."
        )
    return _Decorator(options)


class _Decorator:
    """`@remote(...)` before it meets its function or class."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, target: Any, /) -> Any:
        if isinstance(target, type):
            option_checks.check_actor(self._options)
            return ActorClass(target, self._options)
        if is_function(target):
            option_checks.check_task(self._options)
            return RemoteFunction(target, self._options)
        raise TypeError(f"The @redray.remote decorator must be applied to a function or a class, not to {target!r}.")


# ---- values ----------------------------------------------------------------------------------------------------------
@overload
def get(object_refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(object_refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
@overload
def get(object_refs: Any, *, timeout: float | None = None) -> Any: ...
def get(object_refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a ref, or the values of a list of refs in its order; waits until they are ready.

    Args:
        timeout: seconds; 0 tries once, None or -1 waits without end.

    Raises:
        RayTaskError: a task raised. The error is also of the class which the task raised.
        GetTimeoutError: not all values are ready in time.
        RayError: another of `redray.exceptions`: the value is lost, its actor is dead, the task was cancelled.
        ValueError: neither a ref nor a list, or a negative timeout.
        TypeError: an element of the list is not a ref.
    """
    session = current.current()
    if session.kind == "worker":
        _warn_if_blocking_a_loop()
    timeout = option_checks.seconds("get()", timeout)
    if timeout is not None and timeout < 0:
        if timeout != -1:
            raise ValueError(f"The 'timeout' of get() cannot be negative, except for -1, which means none: {timeout}.")
        timeout = None
    if isinstance(object_refs, ObjectRef):
        return session.get([object_refs], timeout)[0]
    if isinstance(object_refs, list):
        for ref in object_refs:
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"get() takes ObjectRefs, and {ref!r} in the list is of type {type(ref).__name__}.")
        return session.get(object_refs, timeout) if object_refs else []
    if _is_generator(object_refs):
        return object_refs
    raise ValueError(f"get() takes an ObjectRef or a list of them, not a value of type {type(object_refs).__name__}.")


def put(value: T, *, _owner: object = None) -> ObjectRef[T]:
    """Store a value and return its ref. `_owner` changes nothing: no object depends on the life of a process.

    Raises:
        TypeError: the value is a ref itself (wrap it in a list if that is meant), or cannot be pickled.
        ObjectStoreFullError: there is no room for it.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put() of an ObjectRef is not allowed. To store the ref itself, put it into a list first.")
    ref: ObjectRef[T] = current.current().put(value)
    return ref


def wait(
    ray_waitables: list[ObjectRef[T]], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until `num_returns` values are ready, or `timeout` seconds are over. A task that failed is ready too.

    Args:
        fetch_local: wait until the values are on this node; False: until they are ready anywhere.

    Returns:
        (ready, not ready), both in the order of the input; ready has at most `num_returns` refs, even if more are.

    Raises:
        TypeError: not a list, or an element is not a ref.
        ValueError: a ref occurs twice, or `num_returns` or `timeout` is out of range.
    """
    session = current.current()
    if session.kind == "worker":
        _warn_if_blocking_a_loop()
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"The 'num_returns' of wait() is an integer, not {num_returns!r}.")
    if not isinstance(ray_waitables, list):
        raise TypeError(f"wait() takes a list of ObjectRefs, not a value of type {type(ray_waitables).__name__}.")
    timeout = option_checks.seconds("wait()", timeout)
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' of wait() cannot be negative: {timeout}.")
    kinds = set(map(type, ray_waitables))
    for kind in kinds:
        if not (issubclass(kind, ObjectRef) or getattr(kind, "is_ref_generator", False)):
            raise TypeError(f"wait() takes a list of ObjectRefs, and one element is of type {kind.__name__}.")
    if not ray_waitables:
        return [], []
    if len(set(ray_waitables)) != len(ray_waitables):
        raise ValueError("wait() takes a list of unique ObjectRefs, and one occurs twice.")
    if not 0 < num_returns <= len(ray_waitables):
        raise ValueError(f"num_returns={num_returns} is not between 1 and the number of refs, {len(ray_waitables)}.")
    waits = session.wait if all(issubclass(kind, ObjectRef) for kind in kinds) else session.wait_any
    return waits(ray_waitables, int(num_returns), timeout, fetch_local)


def _is_generator(value: object) -> bool:
    return getattr(type(value), "is_ref_generator", False)


_warned_of_blocking = False


def _warn_if_blocking_a_loop() -> None:
    global _warned_of_blocking
    import sys

    asyncio = sys.modules.get("asyncio")
    if _warned_of_blocking or asyncio is None or asyncio._get_running_loop() is None:
        return
    import logging

    _warned_of_blocking = True
    logging.getLogger("redray").warning(
        "A blocking redray.get() or wait() inside an async actor stops all of its calls. Write `await ref` instead, or"
        " `await asyncio.gather(*refs)`."
    )


# ---- tasks and actors ------------------------------------------------------------------------------------------------
def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task. One that has not started never runs; one that runs gets a KeyboardInterrupt; a finished one stays.

    Args:
        force: kill the worker process that runs it.
        recursive: cancel the tasks which it started, too.

    Raises:
        TypeError: not a ref, or a flag that is a text.
        ValueError: `force` for a call of an actor.
    """
    if not isinstance(ray_waitable, ObjectRef) and not _is_generator(ray_waitable):
        what = type(ray_waitable).__name__
        raise TypeError(f"cancel() is only supported for object refs, not for {what}. For actors, there is kill().")
    option_checks.check_flags({"force": force, "recursive": recursive})
    ref = ray_waitable if isinstance(ray_waitable, ObjectRef) else ray_waitable.completed()
    current.current().cancel(ref, bool(force), bool(recursive))


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """Kill an actor at once: what runs is lost, no exit hook runs, and its name becomes free.

    Args:
        no_restart: False lets it be restarted, within its `max_restarts`.

    Raises:
        ValueError: not an actor's handle.
        ActorHandleNotFoundError: the handle comes from a session that was shut down.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"kill() is only supported for actors, not {type(actor).__name__}. For tasks: cancel().")
    option_checks.check_flags({"no_restart": no_restart})
    session = current.current()
    _check_session(actor, session)
    session.kill_actor(actor._actor_id, bool(no_restart))


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The handle of a named actor. `namespace` None is that of this job.

    Raises:
        ValueError: there is no such actor, or the name is empty or None, or the namespace is empty.
        TypeError: name or namespace is not a string.
    """
    session = current.current()
    if name is None:
        raise ValueError("get_actor() takes the name of an actor, not None.")
    check_name("The name of an actor", name)
    if namespace is not None:
        check_name("A namespace", namespace)
    where = namespace or session.namespace
    found = session.lookup_actor(name, where)
    if found is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}' in the namespace '{where}': none was created, or it has ended."
            " Without `namespace`, every job has a namespace of its own."
        )
    return ActorHandle(found.actor_id, ActorShape(found.class_name, found.methods))


def check_name(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a string, not {type(value).__name__}.")
    if not value:
        raise ValueError(f"{what} cannot be an empty string. Pass a non-empty one, or None for the default.")


def get_gpu_ids() -> list[int] | list[str]:
    """The ids of the GPUs that the running task or actor holds; empty in a driver. Numbers, or the texts that
    CUDA_VISIBLE_DEVICES had where the node was started."""
    context = current.current().task_context()
    return list(context.gpus) if context is not None else []  # type: ignore[return-value]


def get_runtime_context() -> RuntimeContext:
    """What is known about the job, node, worker, task and actor that runs this."""
    from redray.runtime_context import RuntimeContext

    return RuntimeContext(current.current())


# ---- the cluster -----------------------------------------------------------------------------------------------------
def nodes() -> list[dict[str, Any]]:
    """One dict per node, dead ones included, with the keys NodeID (hexadecimal), Alive, NodeManagerAddress,
    NodeManagerHostname, Resources (name to quantity) and Labels."""
    return current.started().nodes()


def cluster_resources() -> dict[str, float]:
    """The quantity of each resource on all nodes that are alive: CPUs and GPUs in pieces, memory in bytes."""
    return current.started().cluster_resources()


def available_resources() -> dict[str, float]:
    """The part of `cluster_resources()` that nothing holds now. A resource of which nothing is left is missing."""
    return current.started().available_resources()


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """What ran when and where, as events that chrome://tracing and Perfetto open.

    Args:
        filename: write JSON there and return None; without it, return the list of events.

    Raises:
        TypeError: `filename` is no path.
    """
    if filename is not None and not hasattr(filename, "__fspath__") and not isinstance(filename, str):
        raise TypeError(f"The 'filename' of timeline() is a path, not {filename!r}.")  # open(3) would write to a socket
    session = current.started()
    read: Callable[[], list[dict[str, Any]]] | None = getattr(session, "timeline", None)
    if read is None:
        from redray.exceptions import RaySystemError

        raise RaySystemError(f"This session ({session.kind}) records no timeline.")
    events = read()
    if filename is None:
        return events
    import json

    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None
