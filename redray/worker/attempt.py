"""One attempt of a task, step by step: its arguments out of the payload, its value or error into a `Done`. No state, no
loop.

The payload of a spec is empty for a call without arguments, else the serialized tuple `(args, kwargs, slots)`. A slot
`(position or keyword, number)` says that this argument is to be replaced by value `number` of the head's `waits_for`.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Generator, Sequence
from typing import Any

from redray.exceptions import RayError, RayTaskError
from redray.gcs.schema import Outcome
from redray.messages import Done, Returned
from redray.spec import ACTOR_CREATION, STREAMING, TASK, TaskHead
from redray.store import serialization
from redray.task_context import TaskContext
from redray.worker.host import Host

_NONE = serialization.pack(serialization.serialize(None))
Arguments = tuple[Sequence[Any], dict[str, Any]]


class DependencyFailed(Exception):
    """An argument's task failed, so the body never runs: its result is `error`, which already says whose traceback it
    is."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def arguments(host: Host, head: TaskHead, payload: memoryview, inline: dict[str, bytes]) -> Arguments:
    """The arguments as the function is to get them. Raises DependencyFailed, or whatever unpickling user data
    raises."""
    values: list[tuple[bool, Any]] = []
    if head.waits_for:
        values = host.load_values(head.waits_for, inline)
        for is_error, value in values:
            if is_error:
                raise DependencyFailed(value)
    if not payload:
        return (), {}
    args, kwargs, slots = serialization.deserialize(payload)
    if slots:
        args = list(args)
        for place, number in slots:
            if isinstance(place, str):
                kwargs[place] = values[number][1]
            else:
                args[place] = values[number][1]
    return args, kwargs


def value_done(host: Host, head: TaskHead, attempt: int, value: Any, run_us: int, who: Who) -> Done:
    """`Done` for what the body returned; an error if it cannot be stored or does not fit `num_returns`."""
    count = head.num_returns
    try:
        if type(value) is Failed:
            return error_done(head, attempt, value.error, run_us, who)
        if count == 1 or count == STREAMING:
            returns = [host.store_return(head.task, 0, value)]
        else:
            values = _split(head, value, count)
            if values and type(values[-1]) is Failed:
                return _partly_done(host, head, attempt, values, run_us, who)
            returns = [host.store_return(head.task, i, item) for i, item in enumerate(values)]
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # pickling runs user code, and so does a generator's body, only now
        return error_done(head, attempt, error, run_us, who, is_users=False)
    return Done(head.task, attempt, Outcome.VALUE, returns, run_us)


def _partly_done(host: Host, head: TaskHead, attempt: int, values: list[Any], run_us: int, who: Who) -> Done:
    """`Done` for a generator that came to some of its returns only: the others are its error."""
    done = error_done(head, attempt, values[-1].error, run_us, who)
    for index, value in enumerate(values):
        if type(value) is not Failed:
            done.returns[index] = host.store_return(head.task, index, value)
    return done


def error_done(
    head: TaskHead, attempt: int, error: BaseException, run_us: int, who: Who, is_users: bool = True
) -> Done:
    """`Done` for an attempt that ended in `error`: every return is that error. `is_users` False: redray raised it,
    about what the user's code returned."""
    outcome = Outcome.RETRY if _asks_for_retry(head, error) else Outcome.ERROR
    if isinstance(error, DependencyFailed):
        error = error.error
    else:
        error = who.wrap(error, is_users)
    packed = serialization.pack_error(error)
    detail = ""
    if head.kind == ACTOR_CREATION:  # who calls the actor reads this; the packed error has no reader
        detail = f"The actor died because of an error raised in its creation task, {error}"
    returns = _copies(head, packed)
    if head.num_returns == STREAMING:
        returns = [Returned(_NONE, len(_NONE), []), *returns]  # the stream's end, after an item that is the error
    return Done(head.task, attempt, outcome, returns, run_us, detail)


def exit_done(head: TaskHead, attempt: int, reason: str) -> Done:
    """`Done` for a call that ended its actor, or came after its end."""
    message = f"The actor is dead because {reason}.\n    actor_id: {head.actor}"
    packed = serialization.pack_system_error("ActorDiedError", message, actor_id=head.actor)
    return Done(head.task, attempt, Outcome.ERROR, _copies(head, packed), 0)


def setup_failed_done(head: TaskHead, attempt: int, reason: str) -> Done:
    """`Done` for what cannot run, because its runtime environment could not be set up. An actor's callers read the
    detail."""
    packed = serialization.pack_system_error("RuntimeEnvSetupError", reason)
    outcome = Outcome.SETUP_FAILED if head.kind == ACTOR_CREATION else Outcome.ERROR
    return Done(head.task, attempt, outcome, _copies(head, packed), 0, reason)


def cancelled_done(head: TaskHead, attempt: int, run_us: int) -> Done:
    """Without returns: whoever records the end names the task in the error, the same way as for one that never ran."""
    return Done(head.task, attempt, Outcome.CANCELLED, [], run_us)


def ends_actor(error: SystemExit, context: TaskContext) -> bool:
    """As in Ray: in an actor, sys.exit(0) is exit_actor(), which ends it for good: `context` is told. Other codes are a
    crash."""
    context.exits = context.head.kind != TASK and error.code == 0 and error.code is not False
    return context.exits


def exit_code(error: SystemExit) -> int:
    """What the interpreter would exit with: a text is printed, and means 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


class Failed:
    """In place of a value: what the body raised before it came to it."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Who:
    """Names the running function in its errors: `f`, or `Class.method` with the actor's id and repr."""

    __slots__ = ("_actor_id", "_instance", "_name")

    def __init__(self, name: str, actor_id: str | None = None, instance: Any = None) -> None:
        self._name = name
        self._actor_id = actor_id
        self._instance = instance

    def wrap(self, error: BaseException, is_users: bool = True) -> BaseException:
        shown = None if self._instance is None else safe_repr(self._instance)
        ip = os.environ.get("REDRAY_NODE_IP")
        try:
            return RayTaskError.from_exception(error, self._name, os.getpid(), ip, shown, self._actor_id, is_users)
        except Exception as problem:  # a __str__ or __repr__ of the user's that raises while the traceback is formatted
            text = f"{type(error).__name__} (its text cannot be shown: {type(problem).__name__})"
            return RayTaskError(self._name, text, RayError(text), None, os.getpid(), ip, shown, self._actor_id)


def safe_repr(instance: Any) -> str:
    try:
        return repr(instance)
    except Exception as problem:  # user code: an error message must not fail because of it
        return f"<{type(instance).__name__}, whose __repr__ raised {type(problem).__name__}>"


def _split(head: TaskHead, value: Any, count: int) -> list[Any]:
    if count == 0:
        if value is not None:
            sys.stderr.write(f"{head.name}() has num_returns=0, so what it returned is dropped.\n")
        return []
    try:
        items = value if isinstance(value, (tuple, list)) else list(value)
    except TypeError:
        if isinstance(value, Generator) or hasattr(type(value), "__iter__"):
            raise
        raise ValueError(f"{head.name}() returned one {type(value).__name__}, but num_returns={count}.") from None
    if len(items) != count:
        raise ValueError(f"{head.name}() returned {len(items)} values, but num_returns={count}.")
    return list(items)


def _copies(head: TaskHead, packed: bytes) -> list[Returned]:
    """A creation without a return still has to tell why it failed."""
    count = max(head.num_returns, 1 if head.kind == ACTOR_CREATION or head.num_returns == STREAMING else 0)
    return [Returned(packed, len(packed), [])] * count


def _asks_for_retry(head: TaskHead, error: BaseException) -> bool:
    wanted = head.options.get("retry_exceptions")
    if not wanted or not isinstance(error, Exception) or isinstance(error, DependencyFailed):
        return False
    if wanted is True:
        return True
    try:
        return isinstance(error, pickle.loads(bytes.fromhex(wanted)))
    except Exception as problem:  # classes that this worker cannot import: then the error is none of them
        sys.stderr.write(f"retry_exceptions of {head.name}() cannot be loaded here: {problem!r}\n")
        return False
