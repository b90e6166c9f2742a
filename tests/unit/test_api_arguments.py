"""The functions of the public API check what they are given before they ask the session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import redray
from redray.exceptions import RaySystemError
from redray.refs import ObjectRef
from redray.util import list_named_actors
from tests.unit.fake_session import FakeSession, fake_session


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with fake_session() as session:
        yield session


@redray.remote
class Actor:
    def method(self) -> None: ...


def refs(count: int) -> list[Any]:
    return [redray.put(number) for number in range(count)]


class Generator:
    is_ref_generator = True


def test_025_get_of_one_and_of_many(session: FakeSession) -> None:
    first, second = refs(2)
    assert redray.get(first) == 0
    assert redray.get([second, first, second], timeout=1) == [1, 0, 1]
    assert redray.get([]) == []
    assert [call[2] for call in session.calls] == [None, 1]
    redray.get(first, timeout=-1)
    assert session.calls[-1][2] is None


@pytest.mark.parametrize("value", [3, None, "ab", (1,), {"a": 1}, iter([])])
def test_025_get_of_another_type_is_a_value_error(session: FakeSession, value: Any) -> None:
    with pytest.raises(ValueError, match="ObjectRef or a list"):
        redray.get(value)


@pytest.mark.parametrize("value", [3, None, b"x" * 16])
def test_025_an_element_that_is_no_ref_is_a_type_error(session: FakeSession, value: Any) -> None:
    with pytest.raises(TypeError, match="ObjectRefs"):
        redray.get([*refs(1), value])


def test_028_get_of_a_generator_is_the_generator(session: FakeSession) -> None:
    generator: Any = Generator()
    assert redray.get(generator) is generator


def test_029_put_of_a_ref_is_a_type_error(session: FakeSession) -> None:
    (ref,) = refs(1)
    with pytest.raises(TypeError, match="list"):
        redray.put(ref)
    assert isinstance(redray.put([ref]), ObjectRef)


def test_030_wait_refuses_what_it_cannot_do(session: FakeSession) -> None:
    first, second = refs(2)
    bad: Any
    for bad in (first, (first,), {first}, [3], [first, b"x" * 16]):
        with pytest.raises(TypeError, match="list of ObjectRefs"):
            redray.wait(bad)
    for given in ({"num_returns": 0}, {"num_returns": 3}, {"timeout": -1}):
        with pytest.raises(ValueError, match=next(iter(given))):
            redray.wait([first, second], **given)
    with pytest.raises(ValueError, match="unique"):
        redray.wait([first, first])
    assert redray.wait([], num_returns=5) == ([], [])
    assert not session.calls


def test_031_wait_passes_on_what_it_was_told(session: FakeSession) -> None:
    first, second = refs(2)
    assert redray.wait([first, second], timeout=0.5, fetch_local=False) == ([first], [second])
    assert session.calls == [("wait", [first, second], 1, 0.5, False)]
    generator: Any = Generator()
    assert redray.wait([generator, first], num_returns=2) == ([generator, first], [])


@pytest.mark.parametrize("stranger", [3, None, "actor", b"x" * 12])
def test_055_kill_and_cancel_refuse_strangers(session: FakeSession, stranger: Any) -> None:
    with pytest.raises(ValueError, match="cancel"):
        redray.kill(stranger)
    with pytest.raises(TypeError, match="kill"):
        redray.cancel(stranger)


def test_055_kill_is_for_actors_and_cancel_for_refs(session: FakeSession) -> None:
    handle, (ref,) = Actor.remote(), refs(1)
    redray.kill(handle)
    redray.kill(handle, no_restart=False)
    redray.cancel(ref, force=True, recursive=False)
    assert session.calls[1:] == [
        ("kill", handle._actor_id, True),
        ("kill", handle._actor_id, False),
        ("cancel", ref, True, False),
    ]
    bad: Any = ref
    with pytest.raises(ValueError):
        redray.kill(bad)
    with pytest.raises(TypeError):
        redray.cancel(handle)


def test_074_get_actor(session: FakeSession) -> None:
    handle = Actor.options(name="one").remote()
    assert redray.get_actor("one") == redray.get_actor("one", namespace="here") == handle
    redray.get_actor("one").method.remote()
    nobody: Any
    for nobody in ("two", "", None):
        with pytest.raises(ValueError):
            redray.get_actor(nobody)
    with pytest.raises(ValueError, match="'one' in the namespace 'there'"):
        redray.get_actor("one", "there")
    with pytest.raises(ValueError):
        redray.get_actor("one", "")
    wrong: Any
    for wrong in (3, b"one"):
        with pytest.raises(TypeError):
            redray.get_actor(wrong)


def test_list_named_actors(session: FakeSession) -> None:
    kept = [Actor.options(name="one").remote(), Actor.options(name="two", namespace="there").remote()]
    assert list_named_actors() == ["one"]
    assert list_named_actors(all_namespaces=True) == [
        {"name": "one", "namespace": "here"},
        {"name": "two", "namespace": "there"},
    ]
    assert len(kept) == 2


def test_get_gpu_ids_are_those_of_the_task(session: FakeSession) -> None:
    assert redray.get_gpu_ids() == []
    session.context = SimpleNamespace(gpus=[1, 3])
    assert redray.get_gpu_ids() == [1, 3]


def test_timeline_where_the_session_has_one(session: FakeSession, tmp_path: Path) -> None:
    with pytest.raises(RaySystemError, match="timeline"):
        redray.timeline()
    events = [{"name": "f", "ph": "X"}]
    session.timeline = lambda: events  # type: ignore[attr-defined]
    assert redray.timeline() == events
    assert redray.timeline(str(tmp_path / "events.json")) is None
    assert json.loads((tmp_path / "events.json").read_text()) == events


def test_the_runtime_context_of_a_driver(session: FakeSession) -> None:
    context = redray.get_runtime_context()
    assert context.get_job_id() == session.job_id.hex() and context.get_worker_id() == session.worker_id.hex()
    assert context.get_node_id() == b"the-node".hex() and context.namespace == "here"
    assert (
        context.get_task_id() is context.get_actor_id() is context.get_task_name() is context.get_actor_name() is None
    )
    found = context.get()
    assert (found["job_id"].hex(), found["node_id"].hex()) == (context.get_job_id(), context.get_node_id())
    assert found["namespace"] == "here"
    assert context.runtime_env == {}
    for ask, error in (
        (lambda: context.current_actor, RuntimeError),
        (context.is_canceled, RuntimeError),
        (context.get_assigned_resources, AssertionError),
        (lambda: context.was_current_actor_reconstructed, AssertionError),
    ):
        with pytest.raises(error):
            ask()


def test_importing_redray_leaves_the_heavy_modules_alone() -> None:
    heavy = "numpy rich click asyncio redis hiredis msgspec inspect cloudpickle logging redray.session redray.store"
    script = f"import sys, redray; print([name for name in {heavy.split()!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in redray.__all__:
        assert getattr(redray, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = redray.no_such_name
