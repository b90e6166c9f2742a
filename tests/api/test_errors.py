"""Errors of user code, as the caller sees them: spec lines 18 to 23."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import (
    ActorDiedError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from tests.helpers import Journal, wait_until, without_colour

pytestmark = pytest.mark.usefixtures("cluster")


class Refused(Exception):
    """An exception whose constructor takes more than a message."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"refused with {code} because of {reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> Any:
        return _refused, (self.code, self.reason)

    def summary(self) -> str:
        return f"{self.code}/{self.reason}"


def _refused(code: int, reason: str) -> Refused:
    return Refused(code, reason=reason)


def failure_of(ref: Any) -> BaseException:
    try:
        value = ray.get(ref)
    except BaseException as error:
        return error
    raise AssertionError(f"no error, but {value!r}")


def fails_with(error: BaseException) -> BaseException:
    @ray.remote(max_retries=0)
    def fail() -> None:
        raise error

    return failure_of(fail.remote())


def test_018_an_error_is_of_both_classes() -> None:
    error = fails_with(ValueError("bad value", 7))
    assert isinstance(error, ValueError)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, RayError)
    assert type(error).__name__ == "RayTaskError(ValueError)"
    assert "bad value" in str(error)


def test_018_the_cause_is_the_users_exception() -> None:
    error = fails_with(ValueError("bad value", 7))
    assert isinstance(error, RayTaskError)
    assert type(error.cause) is ValueError
    assert error.cause.args == ("bad value", 7)


def test_018_attributes_and_methods_of_the_cause_are_forwarded() -> None:
    error: Any = fails_with(Refused(42, reason="a rule"))
    assert isinstance(error, Refused)
    assert (error.code, error.reason, error.summary()) == (42, "a rule", "42/a rule")


def test_018_an_except_clause_for_a_base_class_catches_it() -> None:
    error = fails_with(FileNotFoundError(2, "No such file", "there.txt"))
    assert isinstance(error, OSError) and isinstance(error, RayTaskError)


def test_018_a_class_that_cannot_be_subclassed_gives_a_plain_task_error() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("no subclasses, please")

    error = fails_with(Final("the end"))
    assert isinstance(error, RayTaskError)
    assert not isinstance(error, Final)
    assert "the end" in str(error)


def test_018_actor_methods_raise_both_classes_and_the_actor_lives_on() -> None:
    @ray.remote
    class Account:
        def __init__(self) -> None:
            self.balance = 0

        def take(self, amount: int) -> int:
            if amount > self.balance:
                raise ValueError("not enough")
            return amount

    account = Account.remote()
    error = failure_of(account.take.remote(5))
    assert isinstance(error, ValueError) and isinstance(error, RayTaskError)
    assert ray.get(account.take.remote(0)) == 0


def test_018_an_error_can_be_passed_on_through_pickle() -> None:
    error = fails_with(ValueError("travels"))
    (again,) = ray.get(ray.put([error]))
    assert isinstance(again, RayTaskError) and isinstance(again, ValueError)
    assert "travels" in str(again)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup came with Python 3.11")
def test_019_an_exception_group_is_of_both_classes() -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])  # noqa: F821 - see the skip above
    error: Any = fails_with(group)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, ExceptionGroup)  # noqa: F821
    assert [type(inner) for inner in error.exceptions] == [ValueError, KeyError]
    values, rest = error.split(ValueError)
    assert [str(inner) for inner in values.exceptions] == ["one"]
    assert len(rest.exceptions) == 1


def test_020_an_unpicklable_exception_becomes_an_error_with_its_traceback() -> None:
    class HoldsALock(Exception):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.lock = threading.Lock()

    @ray.remote
    def function_that_fails() -> None:
        raise HoldsALock("text of the original")

    error = failure_of(function_that_fails.remote())
    assert isinstance(error, RayError)
    assert not isinstance(error, HoldsALock)
    assert "HoldsALock" in str(error) and "text of the original" in str(error)
    assert "function_that_fails" in str(error)


@pytest.mark.differs_from_ray("hostile exceptions are typed errors; Ray's worker dies of this one")
@pytest.mark.parametrize("method", ["__reduce__", "__str__", "__repr__", "__getstate__"])
def test_020_an_exception_whose_methods_raise_is_still_a_task_error(method: str) -> None:
    @ray.remote(max_retries=0)
    def function_that_fails() -> None:
        def refuse(self: Any, *args: object) -> Any:
            raise RuntimeError("hostile")

        hostile = type("Hostile", (Exception,), {method: refuse})
        raise hostile("text of the original")

    error = failure_of(function_that_fails.remote())
    assert isinstance(error, RayTaskError)
    assert "Hostile" in str(error) and "function_that_fails" in str(error)


def test_020_an_exception_that_cannot_be_unpickled_becomes_an_error_with_its_traceback() -> None:
    @ray.remote
    def function_that_fails() -> None:
        class NeedsTwo(Exception):
            def __init__(self, first: str, second: str) -> None:
                super().__init__(f"{first} and {second}")  # unpickling will pass one argument only

        raise NeedsTwo("left", "right")

    error = failure_of(function_that_fails.remote())
    assert isinstance(error, RayError)
    assert "left and right" in str(error)


def test_021_other_base_exceptions_are_task_errors() -> None:
    class Unusual(BaseException):
        pass

    for original in (Unusual("odd"), GeneratorExit("odd")):
        error = fails_with(original)
        assert isinstance(error, RayTaskError)
        assert "odd" in str(error)


def test_021_keyboard_interrupt_in_a_task_is_its_cancellation() -> None:
    error = fails_with(KeyboardInterrupt())
    assert isinstance(error, TaskCancelledError)
    assert not isinstance(error, KeyboardInterrupt)


def test_022_sys_exit_kills_the_worker_of_a_task() -> None:
    error = fails_with(SystemExit(3))
    assert isinstance(error, WorkerCrashedError)
    assert not isinstance(error, RayTaskError)


def test_022_sys_exit_is_a_crash_that_is_retried(journal: Journal) -> None:
    @ray.remote(max_retries=1)
    def exits_once() -> int:
        attempt = journal.add("attempt")
        if attempt == 1:
            sys.exit(1)
        return attempt

    assert ray.get(exits_once.remote()) == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("code", "restarts"), [(0, 0), (3, 1), (None, 1)])
def test_022_sys_exit_0_is_the_intended_end_of_an_actor(
    code: int | None, restarts: int, threads: int, journal: Journal
) -> None:
    @ray.remote(max_restarts=-1, max_concurrency=threads)
    class Actor:
        def __init__(self) -> None:
            journal.add("made")

        def leave(self) -> None:
            sys.exit(code)

        def answer(self) -> int:
            return 1

    actor = Actor.remote()
    assert ray.get(actor.answer.remote()) == 1
    assert isinstance(failure_of(actor.leave.remote()), RayActorError)
    if restarts:
        wait_until(lambda: len(journal.lines()) == 2, what="the actor to restart")
    else:
        with pytest.raises(ActorDiedError):
            ray.get(actor.answer.remote())
        assert len(journal.lines()) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_021_a_keyboard_interrupt_of_an_actor_is_a_cancelled_call(threads: int) -> None:
    @ray.remote(max_concurrency=threads)
    class Actor:
        def interrupt(self) -> None:
            raise KeyboardInterrupt

    actor = Actor.remote()
    with pytest.raises(TaskCancelledError):
        ray.get(actor.interrupt.remote())


def test_021_a_cancelled_error_of_an_async_actor_is_a_cancelled_call() -> None:
    @ray.remote
    class Actor:
        async def give_up(self) -> None:
            raise asyncio.CancelledError

        async def answer(self) -> int:
            return 1

    actor = Actor.remote()
    with pytest.raises(TaskCancelledError):
        ray.get(actor.give_up.remote())
    assert ray.get(actor.answer.remote()) == 1


def test_022_sys_exit_in_an_actor_is_an_actor_error() -> None:
    @ray.remote
    class Actor:
        def leave(self) -> None:
            sys.exit(0)

        def answer(self) -> int:
            return 1

    actor = Actor.remote()
    assert isinstance(failure_of(actor.leave.remote()), RayActorError)
    assert isinstance(failure_of(actor.answer.remote()), RayActorError)


def test_023_the_text_names_the_function_and_its_process() -> None:
    @ray.remote
    def division(divisor: int) -> float:
        print(os.getpid())
        return 1 / divisor

    text = without_colour(str(failure_of(division.remote(0))))
    assert re.match(r"ray::.*division\(\) \(pid=\d+, ip=[^)]+\)", text), text
    assert "return 1 / divisor" in text
    assert text.rstrip().endswith("ZeroDivisionError: division by zero")


def test_023_the_text_hides_our_own_frames() -> None:
    @ray.remote
    def fail() -> None:
        raise ValueError("only the user's lines matter")

    text = str(failure_of(fail.remote()))
    assert str(Path(ray.__file__).parent) not in text, text
    assert text.count("  File ") == 1, text


def test_023_the_text_chains_through_nested_tasks() -> None:
    @ray.remote
    def inner_function() -> None:
        raise ValueError("at the bottom")

    @ray.remote
    def outer_function() -> None:
        ray.get(inner_function.remote())

    error = failure_of(outer_function.remote())
    text = without_colour(str(error))
    assert isinstance(error, ValueError)
    assert re.search(r"ray::.*outer_function\(\)", text), text
    assert re.search(r"ray::.*inner_function\(\)", text), text
    assert "at the bottom" in text


def test_023_the_text_of_an_actors_error_names_the_actor() -> None:
    @ray.remote
    class Account:
        def __repr__(self) -> str:
            return "Account number 7"

        def take(self) -> None:
            raise ValueError("not enough")

        def own_id(self) -> str:
            return str(ray.get_runtime_context().get_actor_id())

    account = Account.remote()
    text = without_colour(str(failure_of(account.take.remote())))
    assert re.match(r"ray::.*Account.*take\(\) \(pid=\d+", text), text
    assert f"actor_id={ray.get(account.own_id.remote())}" in text
    assert "repr=Account number 7" in text


def test_023_the_original_cause_stays_in_the_text() -> None:
    @ray.remote
    def translate() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("translated") from error

    text = str(failure_of(translate.remote()))
    assert "KeyError: 'missing'" in text and "ValueError: translated" in text


@pytest.mark.differs_from_ray("Ray shows the frames of its own worker")
def test_023_what_redray_refuses_of_a_result_hides_our_own_frames() -> None:
    @ray.remote(num_returns=2)
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    @ray.remote
    def lock() -> Any:
        return threading.Lock()

    for ref, said in ((three.remote()[1], "num_returns=2"), (lock.remote(), "lock")):
        error = failure_of(ref)
        assert isinstance(error, RayTaskError)
        assert said in str(error)
        assert "  File " not in str(error) and "Traceback" not in str(error), error


def test_023_a_results_own_failure_to_pickle_shows_the_users_frames() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("in the user's __reduce__")

    @ray.remote
    def give() -> Any:
        return Refuses()

    text = str(failure_of(give.remote()))
    assert "in the user's __reduce__" in text and "__reduce__" in text
    assert str(Path(ray.__file__).parent) not in text, text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11")
def test_018_notes_are_read_at_the_error() -> None:
    @ray.remote
    def fail() -> None:
        error: Any = ValueError("no")
        error.add_note("more of it")
        raise error

    with pytest.raises(ValueError, match="more of it") as caught:
        ray.get(fail.remote())
    assert caught.value.__notes__ == ["more of it"]  # type: ignore[attr-defined, unused-ignore]
    assert not hasattr(ray.get(ray.put(ValueError())), "__notes__")
