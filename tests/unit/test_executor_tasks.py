"""Plain tasks in a worker, without processes: arguments in, `Done` out."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redray.exceptions import RayError, RayTaskError, TaskCancelledError
from redray.gcs.schema import Outcome
from redray.messages import Cancel, Done, Exit, HandedBack, JobInfo, Run
from redray.spec import unpack_head
from redray.store import serialization
from redray.worker.executor import SHORT_US, Executor, Leave
from tests.unit.fake_host import EXIT, FakeHost, current, mark, payload, result, run


def execute(functions: dict[str, Any], *runs: Run, host: FakeHost | None = None) -> list[Done]:
    host = host or FakeHost()
    host.functions.update(functions)
    host.give(*runs, EXIT)
    Executor(host, mark()).serve()
    assert len(host.dones()) == len(runs)
    return host.dones()


@pytest.fixture(autouse=True)
def _interrupt_handler_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def packed(value: object) -> bytes:
    return serialization.pack(serialization.serialize(value))


# ---- arguments -------------------------------------------------------------------------------------------------------
def test_arguments_reach_the_function() -> None:
    (done,) = execute({"f": lambda a, b, c: (a, b, c)}, run("f", payload(1, "two", c=[3])))
    assert done.outcome == Outcome.VALUE
    assert result(done) == (1, "two", [3])


def test_001_ref_arguments_are_replaced_by_their_values() -> None:
    body = payload(None, 2, slots=[(0, 1), ("named", 0)], named=None)
    values = {"aa": packed("first"), "bb": packed("second")}
    (done,) = execute(
        {"f": lambda *args, **kwargs: (args, kwargs)}, run("f", body, values=values, waits_for=["aa", "bb"])
    )
    assert result(done) == (("second", 2), {"named": "first"})


def test_values_that_the_run_does_not_carry_are_asked_for() -> None:
    host = FakeHost()
    host.values["aa"] = (False, "fetched")
    (done,) = execute({"f": lambda a: a}, run("f", payload(None, slots=[(0, 0)]), waits_for=["aa"]), host=host)
    assert result(done) == "fetched"


def test_003_a_failed_dependency_is_the_result_and_the_body_never_runs() -> None:
    error = serialization.pack_error(RayTaskError.from_exception(ValueError("upstream"), "g", 1))
    called: list[object] = []
    work = run("f", payload(None, slots=[(0, 0)]), values={"aa": error}, waits_for=["aa"], num_returns=2)
    (done,) = execute({"f": called.append}, work)
    assert done.outcome == Outcome.ERROR
    assert called == []
    assert [type(result(done, i)) for i in (0, 1)] == [RayTaskError, RayTaskError]
    assert result(done).function_name == "g"


def test_a_failed_dependency_is_not_a_reason_to_retry() -> None:
    error = serialization.pack_error(RayTaskError.from_exception(ValueError("upstream"), "g", 1))
    work = run("f", payload(None, slots=[(0, 0)]), values={"aa": error}, waits_for=["aa"])
    work.spec = run("f", payload(None, slots=[(0, 0)]), waits_for=["aa"], options={"retry_exceptions": True}).spec
    (done,) = execute({"f": print}, work)
    assert done.outcome == Outcome.ERROR


def test_an_argument_that_cannot_be_unpickled_is_the_tasks_error() -> None:
    (done,) = execute({"f": print}, run("f", packed((("no slots",), {}))))
    assert done.outcome == Outcome.ERROR
    assert isinstance(result(done), RayTaskError)


def test_a_function_that_cannot_be_loaded_is_the_tasks_error() -> None:
    (done,) = execute({}, run("missing"))
    assert isinstance(result(done).cause, KeyError)


# ---- returns ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("returned", [(1, 2), [1, 2]])
def test_several_returns(returned: object) -> None:
    (done,) = execute({"f": lambda: returned}, run("f", num_returns=2))
    assert [result(done, 0), result(done, 1)] == [1, 2]


def test_a_generator_body_with_a_fixed_number_of_returns() -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    (done,) = execute({"f": count}, run("f", num_returns=3))
    assert [result(done, i) for i in range(3)] == [0, 1, 2]


def test_014_no_returns(capsys: pytest.CaptureFixture[str]) -> None:
    (done,) = execute({"f": lambda: 5}, run("f", num_returns=0))
    assert (done.outcome, done.returns) == (Outcome.VALUE, [])
    assert "f() has num_returns=0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("returned", "said"), [((1, 2, 3), "returned 3 values"), ((), "returned 0 values"), (7, "returned one int")]
)
def test_015_a_wrong_number_of_returns_fails_through_every_ref(returned: object, said: str) -> None:
    (done,) = execute({"f": lambda: returned}, run("f", num_returns=2))
    assert done.outcome == Outcome.ERROR
    for index in (0, 1):
        error = result(done, index)
        assert isinstance(error.cause, ValueError)
        assert said in str(error.cause)


def test_016_one_return_keeps_a_tuple() -> None:
    (done,) = execute({"f": lambda: (1, 2)}, run("f"))
    assert result(done) == (1, 2)


def test_017_streaming_needs_a_generator() -> None:
    """The error is an item, as one that the generator's body raises; so the stream's end is None."""
    (done,) = execute({"f": lambda: [1]}, run("f", num_returns=-1))
    assert result(done) is None
    assert isinstance(result(done, 1).cause, ValueError)


# ---- errors ----------------------------------------------------------------------------------------------------------
def test_018_an_exception_becomes_a_task_error_with_its_cause() -> None:
    def divide() -> float:
        return 1 / 0

    (done,) = execute({"f": divide}, run("f", name="divide"))
    error = result(done)
    assert done.outcome == Outcome.ERROR
    assert isinstance(error, RayTaskError)
    assert isinstance(error.cause, ZeroDivisionError)
    assert error.function_name == "divide"
    assert error.pid == os.getpid()
    assert "return 1 / 0" in str(error)


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not me")


def test_020_an_unpicklable_exception_arrives_as_text() -> None:
    def fail() -> None:
        raise Unpicklable("the reason")

    (done,) = execute({"f": fail}, run("f"))
    error = result(done)
    assert isinstance(error, RayError)
    assert "the reason" in str(error)


class Base(BaseException):
    pass


def test_021_other_base_exceptions_are_the_tasks_error() -> None:
    def fail() -> None:
        raise Base("low")

    (done,) = execute({"f": fail}, run("f"))
    assert isinstance(result(done).cause, Base)


class HostileText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class HostileInit(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("other arguments")


class HostileDel:
    def __del__(self) -> None:
        raise RuntimeError("in __del__")


def _recurse() -> None:
    _recurse()


def _raise(error: BaseException) -> None:
    raise error


HOSTILE: dict[str, Callable[[], object]] = {
    "exception whose __str__ raises": lambda: _raise(HostileText()),
    "exception whose __init__ wants more": lambda: _raise(HostileInit(1, 2)),
    "exception with an unpicklable argument": lambda: _raise(ValueError(threading.Lock())),
    "exception that is its own cause": lambda: _raise(_own_cause()),
    "endless recursion": _recurse,
    "result that cannot be pickled": threading.Lock,
    "result whose __reduce__ raises": lambda: Unpicklable(),
    "result that is a frame": lambda: sys._getframe(),
    "out of memory": lambda: _raise(MemoryError("pretended")),
    "StopIteration": lambda: _raise(StopIteration(1)),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "a string raised": lambda: _raise("text"),  # type: ignore[arg-type]
}


def _own_cause() -> Exception:
    error = ValueError("loop")
    error.__cause__ = error
    return error


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_code_gets_an_error_and_the_next_task_runs(what: str) -> None:
    failed, fine = execute({"f": HOSTILE[what], "g": lambda: "fine"}, run("f"), run("g"))
    assert failed.outcome == Outcome.ERROR
    assert isinstance(result(failed), RayError)
    assert result(fine) == "fine"


def test_an_unpicklable_result_is_a_type_error() -> None:
    (done,) = execute({"f": threading.Lock}, run("f"))
    assert isinstance(result(done).cause, TypeError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_result_whose_del_raises_harms_nobody() -> None:
    first, second = execute({"f": HostileDel, "g": lambda: 1}, run("f"), run("g"))
    assert (first.outcome, second.outcome) == (Outcome.VALUE, Outcome.VALUE)


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [
        (True, Outcome.RETRY),
        (False, Outcome.ERROR),
        (pickle.dumps((KeyError, ValueError)).hex(), Outcome.RETRY),
        (pickle.dumps((KeyError,)).hex(), Outcome.ERROR),
        ("no pickle", Outcome.ERROR),
    ],
)
def test_046_retry_exceptions(wanted: bool | str, outcome: str) -> None:
    (done,) = execute({"f": lambda: int("x")}, run("f", options={"retry_exceptions": wanted}))
    assert done.outcome == outcome
    assert isinstance(result(done).cause, ValueError)  # what the caller sees if no retries are left


@pytest.mark.parametrize(("code", "exits"), [(None, 0), (3, 3), (-1, 255), ("text", 1)])
def test_022_sys_exit_ends_the_worker_without_a_result(code: object, exits: int) -> None:
    host = FakeHost({"f": lambda: sys.exit(code), "g": lambda: 1})  # type: ignore[arg-type]
    host.give(run("g"), run("f"), run("g"))
    with pytest.raises(Leave) as leave:
        Executor(host, mark()).serve()
    host.flush()
    assert leave.value.code == exits
    assert len(host.dones()) == 1


def test_keyboard_interrupt_is_a_cancellation() -> None:
    (done,) = execute({"f": lambda: _raise(KeyboardInterrupt())}, run("f"))
    assert (done.outcome, done.returns) == (Outcome.CANCELLED, [])


# ---- cancel ----------------------------------------------------------------------------------------------------------
def test_a_task_cancelled_before_it_starts_does_not_run() -> None:
    called: list[int] = []
    host, slot = FakeHost({"f": lambda: called.append(1)}), mark()
    first, second = run("f", attempt=2), run("f")
    slot.cancel(unpack_head(first.spec).task, 2)
    host.give(first, second, EXIT)
    Executor(host, slot).serve()
    assert [done.outcome for done in host.dones()] == [Outcome.CANCELLED, Outcome.VALUE]
    assert called == [1]


def test_a_cancel_of_another_attempt_changes_nothing() -> None:
    host, slot = FakeHost({"f": lambda: 1}), mark()
    work = run("f", attempt=2)
    slot.cancel(unpack_head(work.spec).task, 1)
    host.give(work, Cancel(unpack_head(work.spec).task), EXIT)
    Executor(host, slot).serve()
    assert host.dones()[0].outcome == Outcome.VALUE


# ---- order, marks, batches -------------------------------------------------------------------------------------------
def test_the_mark_names_the_run_before_user_code_runs() -> None:
    slot, seen = mark(), []
    host = FakeHost({"f": lambda: seen.append(slot.started())})
    work = run("f", attempt=3)
    host.give(work, EXIT)
    assert slot.started() == 0
    Executor(host, slot).serve()
    assert seen == [work.serial]


def test_a_revoked_run_is_handed_back_and_the_next_one_runs() -> None:
    slot, ran = mark(), []
    host = FakeHost({"f": ran.append})
    first, second, third, fourth = (run("f", payload(number)) for number in range(4))
    host.give(first, second, third, fourth, EXIT)
    host.functions["f"] = lambda number: (ran.append(number), slot.revoke(third.serial) if number == 0 else None)
    Executor(host, slot).serve()
    assert ran == [0, 3]
    assert [message for message in host.sent if isinstance(message, HandedBack)] == [
        HandedBack([second.serial]),
        HandedBack([third.serial]),
    ]
    assert slot.started() == fourth.serial


def test_a_revoked_run_is_marked_before_it_is_handed_back() -> None:
    """The node may see a revoked run as started, never a started one as revoked."""
    slot, order = mark(), []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            if name in ("start", "revoked"):
                order.append(name)
            return getattr(slot, name)

    host = FakeHost({"f": lambda: order.append("user code")})
    host.give(run("f"), EXIT)
    Executor(host, Watched()).serve()  # type: ignore[arg-type]
    assert order[:2] == ["start", "revoked"]
    assert order.index("revoked") < order.index("user code")


def test_results_of_short_tasks_are_sent_together() -> None:
    host = FakeHost()
    execute({"f": lambda: None}, *[run("f") for _ in range(200)], host=host)
    assert max(host.batches) > 1


def test_a_result_does_not_wait_for_a_task_that_is_known_to_be_long() -> None:
    host = FakeHost()
    sent_before: list[int] = []

    def long() -> None:
        sent_before.append(len(host.sent))
        time.sleep(2 * SHORT_US / 1e6)

    host.functions = {"short": lambda: None, "long": long}
    host.give(run("long"), *[run("short") for _ in range(5)], run("long"), EXIT)
    Executor(host, mark()).serve()
    assert sent_before == [0, 6]


def test_a_result_does_not_wait_for_a_task_that_was_short_before() -> None:
    host = FakeHost()
    released = []

    def sometimes(wait: bool) -> None:
        if wait:
            host.wait_for(lambda: len(host.sent) >= 51, timeout=10)
            released.append(True)

    host.functions = {"f": sometimes}
    host.give(*[run("f", payload(False)) for _ in range(51)], run("f", payload(True)), EXIT)
    Executor(host, mark()).serve()
    assert released == [True]
    assert [done.outcome for done in host.dones()] == [Outcome.VALUE] * 52


def test_max_calls_hands_the_rest_back_and_leaves() -> None:
    host = FakeHost({"f": lambda: 1})
    works = [run("f", options={"max_calls": 2}) for _ in range(4)]
    host.give(*works)
    with pytest.raises(Leave) as leave:
        Executor(host, mark()).serve()
    host.flush()
    assert leave.value.code == 0
    assert len(host.dones()) == 2
    assert host.sent[-1] == HandedBack([work.serial for work in works[2:]])


# ---- context and environment -----------------------------------------------------------------------------------------
def test_064_the_context_names_what_runs() -> None:
    seen: list[Any] = []

    def look() -> None:
        context = current.get()
        assert context is not None
        seen.append((context.name, context.attempt, context.gpus, context.assigned_resources()))

    work = run("f", attempt=4, name="shown", demand="CPU:0.5,GPU:1", gpus=[2])
    execute({"f": look}, work)
    assert seen == [("shown", 4, [2], {"CPU": 0.5, "GPU": 1.0})]
    assert current.get() is None


def test_gpus_are_made_visible_and_left_alone_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    read = {"f": lambda: os.environ["CUDA_VISIBLE_DEVICES"]}
    assert [result(done) for done in execute(read, run("f"), run("f", gpus=[3, 1]))] == ["all", "3,1"]


def test_098_omp_threads_follow_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    read = {"f": lambda: os.environ["OMP_NUM_THREADS"]}
    dones = execute(read, run("f", demand="CPU:2.5"), run("f", demand="CPU:0.5"), run("f", demand="-"))
    assert [result(done) for done in dones] == ["2", "1", "1"]


def test_098_omp_threads_that_are_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (done,) = execute({"f": lambda: os.environ["OMP_NUM_THREADS"]}, run("f", demand="CPU:2"))
    assert result(done) == "7"


def test_097_a_job_brings_its_path_and_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", ["/already/there", *sys.path])
    config = {"sys_path": [str(tmp_path), "/nowhere/at/all"], "cwd": str(tmp_path)}
    host = FakeHost({"f": lambda: (sys.path[0], "/nowhere/at/all" in sys.path, sys.path[1], os.getcwd())})
    host.give(JobInfo("00" * 8, config), run("f"), EXIT)
    Executor(host, mark()).serve()
    assert result(host.dones()[0]) == (str(tmp_path), False, "/already/there", str(tmp_path))


def test_a_call_for_an_actor_that_does_not_live_here_fails() -> None:
    (done,) = execute({}, run("method", kind=2, actor="ab" * 12))
    assert "does not live in this process" in str(result(done))


def test_exit_ends_the_loop() -> None:
    host = FakeHost()
    host.give(Exit("done"))
    Executor(host, mark()).serve()
    assert host.sent == []


def test_cancelled_error_of_a_nested_get_is_an_ordinary_error() -> None:
    (done,) = execute({"f": lambda: _raise(TaskCancelledError("ab"))}, run("f"))
    assert done.outcome == Outcome.ERROR
