"""What `.remote()` of a function asks of the session, and what it refuses before asking."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import redray
from redray import cloudpickle, remote_function
from redray.ids import FunctionID
from redray.refs import ObjectRef
from tests.unit.fake_session import FakeSession, empty_slot, fake_session


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with fake_session() as session:
        yield session


@redray.remote
def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


def test_a_call_reaches_the_session(session: FakeSession) -> None:
    ref = add.remote(1, b=2)
    assert isinstance(ref, ObjectRef)
    ((_, function, args, kwargs, options),) = session.calls
    assert cloudpickle.loads(function.pickled)(2, 3) == 5
    assert isinstance(function.id, FunctionID) and function.name == "add"
    assert (args, kwargs, options.name, options.demand) == ((1,), {"b": 2}, "add", "CPU:1")


def test_it_looks_like_the_function() -> None:
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)  # type: ignore[attr-defined]


def test_007_the_function_is_pickled_once_per_session() -> None:
    values = ["first"]

    @redray.remote
    def read() -> str:
        return values[0]

    with fake_session() as session:
        read.remote()
        values[0] = "second"
        read.remote()
        read.options(name="other").remote()
    with fake_session() as later:
        read.remote()
    exports = [call[1] for call in session.calls]
    assert len({export.id for export in exports}) == 1
    assert cloudpickle.loads(exports[0].pickled)() == "first"
    assert cloudpickle.loads(later.calls[0][1].pickled)() == "second"


def test_008_a_function_of_the_same_source_is_another_function(session: FakeSession) -> None:
    def define(value: int) -> Any:
        @redray.remote
        def same() -> int:
            return value

        return same

    for value in (1, 2):
        define(value).remote()
    first, second = (call[1] for call in session.calls)
    assert first.id != second.id and cloudpickle.loads(second.pickled)() == 2


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1, 2, 3), {}), ((1,), {"c": 1}), ((1,), {"a": 1})])
def test_006_a_call_that_does_not_fit_is_refused(session: FakeSession, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match="^add: "):
        add.remote(*args, **kwargs)
    assert not session.calls


@pytest.mark.parametrize("count", [0, 2, 3])
def test_014_the_number_of_refs(session: FakeSession, count: int) -> None:
    found: Any = add.options(num_returns=count).remote(1)
    assert found is None if count == 0 else len(found) == count


def test_017_a_generator_gives_one_generator_of_refs(session: FakeSession) -> None:
    @redray.remote
    def items() -> Iterator[int]:
        yield 1

    assert items.remote() == "the generator"
    assert len(items.options(num_returns=2).remote()) == 2
    with pytest.raises(ValueError, match="yield"):
        add.options(num_returns="streaming")


def test_013_options_leave_the_original(session: FakeSession) -> None:
    other = add.options(num_cpus=3, name="other")
    other.options(num_cpus=4).remote(1)
    other.remote(1)
    add.remote(1)
    add._remote((1,), {"b": 2}, num_cpus=5)
    assert [call[4].demand for call in session.calls] == ["CPU:4", "CPU:3", "CPU:1", "CPU:5"]
    assert [call[4].name for call in session.calls] == ["other", "other", "add", "add"]
    with pytest.raises(ValueError, match="max_calls"):
        add.options(max_calls=1)


def test_010_a_direct_call_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"add\.remote\(\)"):
        add(1)


def test_010_async_functions_are_refused() -> None:
    async def coroutine() -> None: ...

    async def generator() -> Any:
        yield

    for function in (coroutine, generator):
        with pytest.raises(ValueError, match="async"):
            redray.remote(function)


@pytest.mark.parametrize("apply", [lambda: redray.remote(), lambda: redray.remote(len, num_cpus=1)])
def test_011_the_decorator_is_bare_or_has_keywords(apply: Any) -> None:
    with pytest.raises(AssertionError, match=r"(?s)without parentheses.*'num_cpus'"):
        apply()


@pytest.mark.parametrize("target", [3, None, len, "f", add])
def test_011_the_decorator_takes_functions_and_classes(target: Any) -> None:
    """What can be called says that it is no function; anything else was not meant to be decorated at all."""
    with pytest.raises(TypeError if callable(target) else AssertionError):
        redray.remote(target)
    with pytest.raises(TypeError, match="function or a class"):
        redray.remote(num_cpus=1)(target)


def test_009_a_large_function_warns_and_a_larger_one_is_refused(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote_function, "_WARN_BYTES", 2_000)
    monkeypatch.setattr(remote_function, "_MOST_BYTES", 20_000)

    def define(ballast: bytes) -> Any:
        def heavy() -> int:
            return len(ballast)

        return redray.remote(heavy)

    define(b"").remote()
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "redray"):
        define(bytes(10_000)).remote()
    assert "heavy" in caplog.text and "large" in caplog.text
    with pytest.raises(ValueError, match="(?i)heavy.*large.*MiB"):
        define(bytes(30_000)).remote()
    assert len(session.calls) == 2


def test_005_a_function_that_cannot_be_pickled_says_why(session: FakeSession) -> None:
    lock = threading.Lock()

    @redray.remote
    def locked() -> None:
        with lock:
            pass

    with pytest.raises(TypeError, match="(?i)serialize the function locked.*lock"):
        locked.remote()


def test_a_remote_function_travels_inside_others(session: FakeSession) -> None:
    @redray.remote(num_cpus=2)
    def recursive(depth: int) -> Any:
        return recursive.remote(depth - 1) if depth else add.remote(1)

    again = cloudpickle.loads(cloudpickle.dumps(recursive))
    again.remote(1)
    cloudpickle.loads(session.calls[0][1].pickled)(1)
    assert [call[4].demand for call in session.calls] == ["CPU:2", "CPU:2"]
    assert pickle.loads(cloudpickle.dumps(add))._function(1, 2) == 3


def test_without_a_session_one_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    with empty_slot() as slot:
        session = FakeSession()

        def begin() -> FakeSession:
            slot.install(session)
            return session

        monkeypatch.setattr(redray.current, "_begin", begin)  # type: ignore[attr-defined]
        add.remote(1)
        add.remote(2)
    assert len(session.calls) == 2
