"""Errors on their way from worker to caller."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from redray import exceptions
from redray.exceptions import (
    ActorDiedError,
    RayActorError,
    RayError,
    RayTaskError,
    base,
    system,
    system_error,
    task_error,
)


def raised(function: Callable[[], Any], **who: Any) -> RayTaskError:
    """The error as a caller gets it: wrapped where it happened, pickled, made of both classes."""
    try:
        function()
    except BaseException as error:
        wrapped = RayTaskError.from_exception(error, "function", 12, "10.0.0.1", **who)
        return pickle.loads(pickle.dumps(wrapped)).as_instanceof_cause()  # type: ignore[no-any-return]
    raise AssertionError("nothing was raised")


def throw(error: BaseException) -> Callable[[], None]:
    def user_code() -> None:
        raise error

    return user_code


class WithAttributes(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code} because of {reason}")
        self.code = code
        self.reason = reason

    def summary(self) -> str:
        return f"{self.code}/{self.reason}"


def test_018_an_error_is_of_both_classes() -> None:
    error = raised(throw(ValueError("bad", 3)))
    assert isinstance(error, ValueError) and isinstance(error, RayTaskError)
    assert type(error).__name__ == "RayTaskError(ValueError)"
    assert type(error.cause) is ValueError and error.cause.args == ("bad", 3)
    assert error.args == (error.cause,)


def test_018_attributes_and_methods_are_forwarded() -> None:
    error: Any = raised(throw(WithAttributes(42, reason="a rule")))
    assert isinstance(error, WithAttributes)
    assert (error.code, error.reason, error.summary()) == (42, "a rule", "42/a rule")
    with pytest.raises(AttributeError):
        _ = error.missing


def test_018_attributes_outside_of_dict_are_copied() -> None:
    error: Any = raised(throw(FileNotFoundError(2, "No such file", "there.txt")))
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (2, "there.txt")
    error = raised(lambda: b"\xff".decode("utf-8"))
    assert isinstance(error, UnicodeDecodeError) and (error.start, error.encoding) == (0, "utf-8")


def test_018_a_class_without_subclasses_gives_a_plain_error() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("no subclasses, please")

    class NeedsArguments(Exception):
        def __new__(cls, first: int, second: int) -> NeedsArguments:
            return super().__new__(cls, first, second)

    for error in (Final("the end"), NeedsArguments(1, 2)):
        plain = RayTaskError.from_exception(error, "function").as_instanceof_cause()
        assert type(plain) is RayTaskError and plain.cause is error


def test_018_the_dual_error_survives_pickling_again() -> None:
    error = pickle.loads(pickle.dumps(raised(throw(KeyError("k")))))
    assert isinstance(error, KeyError) and isinstance(error, RayTaskError) and "'k'" in str(error)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup came with Python 3.11")
def test_019_an_exception_group_can_be_split() -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])  # noqa: F821 - see the skip above
    error: Any = raised(throw(group))
    assert isinstance(error, ExceptionGroup) and isinstance(error, RayTaskError)  # noqa: F821
    values, rest = error.split(ValueError)
    assert [str(inner) for inner in values.exceptions] == ["one"] and len(rest.exceptions) == 1
    assert str(error).startswith("ray::function() (")


def test_020_what_cannot_be_pickled_becomes_its_text() -> None:
    class HoldsALock(Exception):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.lock = threading.Lock()

    class Hostile(Exception):
        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    for error in (HoldsALock("the text"), Hostile("the text")):
        found = raised(throw(error))
        assert type(found.cause) is RayError
        assert type(error).__name__ in str(found.cause) and "the text" in str(found.cause)
        assert "user_code" in str(found)


def test_020_an_init_with_other_parameters_than_args_is_no_obstacle() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(WithAttributes(1, reason="x")))
    assert type(raised(throw(WithAttributes(1, reason="x"))).cause) is WithAttributes


def test_020_a_class_that_is_not_here_leaves_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pickle.dumps(RayTaskError.from_exception(WithAttributes(1, reason="x"), "function"))
    monkeypatch.delattr(sys.modules[__name__], "WithAttributes")
    found = pickle.loads(packed)
    assert type(found.cause) is exceptions.UnserializableException
    assert "1 because of x" in str(found)


@pytest.mark.parametrize("cause", [GeneratorExit("x"), type("Odd", (BaseException,), {})("x")])
def test_021_other_base_exceptions_are_wrapped(cause: BaseException) -> None:
    error = raised(throw(cause))
    assert isinstance(error, type(cause)) and isinstance(error, Exception)


def test_023_the_text_begins_with_the_function_and_its_process() -> None:
    text = str(raised(throw(ValueError("bad"))))
    assert text.startswith("ray::function() (pid=12, ip=10.0.0.1)\n")
    assert text.endswith("ValueError: bad") and "user_code" in text
    assert "Traceback (most recent call last)" not in text
    text = str(raised(throw(ValueError("bad")), actor_id="ab", actor_repr="Counter(3)"))
    assert text.startswith("ray::function() (pid=12, ip=10.0.0.1, actor_id=ab, repr=Counter(3))\n")


def test_023_frames_of_redray_are_hidden() -> None:
    def through_redray() -> None:
        base.restore(Raises, (), {})

    text = str(raised(through_redray))
    assert "through_redray" in text and "from inside" in text
    assert "redray/exceptions/base.py" not in text


class Raises(Exception):
    def __new__(cls) -> Raises:
        raise ValueError("from inside")


def test_023_a_failure_wholly_in_redray_keeps_its_frames() -> None:
    try:
        base.restore(None, (), {})  # type: ignore[type-var]
    except TypeError as error:
        assert error.__traceback__ is not None
        error.__traceback__ = error.__traceback__.tb_next  # without this file's own frame
        assert "redray/exceptions/base.py" in str(RayTaskError.from_exception(error, "function"))


def test_023_causes_and_nested_tasks_are_in_the_text() -> None:
    def chained() -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            raise KeyError("k") from error

    text = str(raised(chained))
    assert "ZeroDivisionError" in text and "direct cause" in text and "KeyError: 'k'" in text

    inner = raised(throw(ValueError("deep")))
    outer = raised(throw(inner))
    assert isinstance(outer, ValueError) and type(outer.cause) is ValueError
    assert str(outer).count("ray::function()") == 2


def test_many_classes_in_a_loop_are_not_kept() -> None:
    for _ in range(1000):
        raised(throw(type("Short", (Exception,), {})("x")))
    info = task_error._dual_class.cache_info()
    assert info.maxsize is not None and info.currsize <= info.maxsize


# ---- errors that the system makes ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(system.SYSTEM_ERRORS))
def test_every_system_error_is_made_of_its_text_and_can_be_pickled(name: str) -> None:
    error = pickle.loads(pickle.dumps(system_error(name, "what happened")))
    assert type(error).__name__ == name and isinstance(error, RayError)
    assert str(error) == "what happened"


def test_fields_of_a_system_error() -> None:
    error = system_error("ActorDiedError", "gone", {"actor_id": "ab", "actor_init_failed": True, "__class__": int})
    assert isinstance(error, ActorDiedError)
    assert (error.actor_id, error.actor_init_failed, error.preempted) == ("ab", True, False)
    assert not hasattr(system_error("WorkerCrashedError", "gone", {"actor_id": "ab"}), "actor_id")


@pytest.mark.parametrize("name", ["RayTaskError", "SystemExit", "os", "FromANewerRelease"])
def test_no_other_name_is_looked_up(name: str) -> None:
    error = system_error(name, "text")
    assert type(error) is exceptions.RaySystemError and name in str(error)


def test_constructors_take_what_rays_take() -> None:
    assert isinstance(exceptions.GetTimeoutError("x"), TimeoutError)
    assert isinstance(exceptions.ActorAlreadyExistsError("x"), ValueError)
    assert exceptions.TaskCancelledError("ab").task_id == "ab"
    assert exceptions.ObjectLostError("ab", None, "").object_ref_hex == "ab"
    assert RayActorError("ab", "text", True).actor_init_failed
    died = ActorDiedError(RayTaskError("A.__init__", "ValueError: no", ValueError("no"), actor_id="ab"))
    assert died.actor_init_failed and died.actor_id == "ab" and "ValueError: no" in str(died)
    assert "Failed to set up" in str(exceptions.RuntimeEnvSetupError("pip"))


TREE = {
    "RayError": "Exception",
    "RayTaskError": "RayError",
    "UserCodeException": "RayError",
    "TaskCancelledError": "RayError",
    "WorkerCrashedError": "RayError",
    "LocalRayletDiedError": "RayError",
    "NodeDiedError": "RayError",
    "RayActorError": "RayError",
    "ActorDiedError": "RayActorError",
    "ActorUnavailableError": "RayActorError",
    "RaySystemError": "RayError",
    "StreamingGeneratorReplayInconsistentError": "RaySystemError",
    "ObjectStoreFullError": "RayError",
    "OutOfDiskError": "RayError",
    "OutOfMemoryError": "RayError",
    "ObjectLostError": "RayError",
    "ObjectFetchTimedOutError": "ObjectLostError",
    "ReferenceCountingAssertionError": "ObjectLostError AssertionError",
    "ObjectFreedError": "ObjectLostError",
    "OwnerDiedError": "ObjectLostError",
    "ObjectReconstructionFailedError": "ObjectLostError",
    "GetTimeoutError": "RayError TimeoutError",
    "PlasmaObjectNotAvailable": "RayError",
    "AsyncioActorExit": "RayError",
    "RuntimeEnvSetupError": "RayError",
    "TaskPlacementGroupRemoved": "RayError",
    "ActorPlacementGroupRemoved": "RayError",
    "PendingCallsLimitExceeded": "RayError",
    "TaskUnschedulableError": "RayError",
    "ActorUnschedulableError": "RayError",
    "ObjectRefStreamEndOfStreamError": "RayError",
    "OufOfBandObjectRefSerializationException": "RayError",
    "AuthenticationError": "RayError",
    "ActorAlreadyExistsError": "ValueError RayError",
    "ActorHandleNotFoundError": "ValueError RayError",
    "UnserializableException": "RayError",
    "RpcError": "RayError",
}


@pytest.mark.parametrize("name", TREE)
def test_every_class_has_its_bases_and_its_place(name: str) -> None:
    cls = getattr(exceptions, name)
    assert [base.__name__ for base in cls.__bases__] == TREE[name].split()
    assert name in exceptions.__all__
    assert cls.__module__ == "redray.exceptions" and pickle.loads(pickle.dumps(cls)) is cls


def test_attributes_of_what_the_system_raises() -> None:
    unavailable = exceptions.ActorUnavailableError("busy", "ab")
    assert unavailable.actor_id == "ab" and not unavailable.actor_init_failed and not unavailable.preempted
    failed = exceptions.RaySystemError("text", "where")
    assert (failed.client_exc, failed.traceback_str, str(failed)) == ("text", "where", "text\nwhere")
    assert exceptions.RpcError("text", 14).rpc_code == 14
    for error in (unavailable, failed, exceptions.ObjectLostError("ab", None, "")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)


def test_a_task_error_is_made_as_ray_makes_it() -> None:
    error = RayTaskError("f", "the traceback", ValueError("x"), "ray::f", 3, "10.0.0.1")
    assert str(error) == "ray::f (pid=3, ip=10.0.0.1)\nthe traceback"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.function_name, copy.proctitle, copy.pid, copy.ip) == ("f", "ray::f", 3, "10.0.0.1")
    assert str(copy) == str(error) and copy.actor_repr is copy.actor_id is None
