"""Actor classes, handles and methods: what they ask of the session, and what they refuse before asking."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import redray
from redray import cloudpickle, refs
from redray.actor import ActorClassInheritanceException, ActorHandle, ActorMethod
from redray.exceptions import ActorAlreadyExistsError, ActorHandleNotFoundError
from redray.exit import ActorExitRequested, ThisProcess
from redray.spec import STREAMING
from tests.unit.fake_session import FakeSession, fake_session


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with fake_session() as session:
        yield session


class Keeper(refs.RefKeeper):
    def __init__(self) -> None:
        self.counted: list[bytes] = []
        self.pinned: list[bytes] = []

    def count(self, object_id: bytes) -> None:
        self.counted.append(object_id)

    def pin(self, object_id: bytes) -> None:
        self.pinned.append(object_id)


@pytest.fixture
def keeper(session: FakeSession) -> Iterator[Keeper]:
    keeper = Keeper()
    gc.collect()
    refs.dropped.clear()
    refs.set_keeper(keeper)
    yield keeper
    refs.set_keeper(refs.RefKeeper())


@redray.remote
class Counter:
    """Counts."""

    step = 1

    def __init__(self, start: int = 0, *, name: str = "") -> None:
        self.value = start

    def add(self, by: int, times: int = 1) -> int:
        self.value += by * times
        return self.value

    @redray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.value, self.value

    @redray.method
    def bare(self) -> None: ...

    @redray.method(num_returns=0)
    @staticmethod
    def fixed(x: int) -> int:
        return x

    def items(self) -> Iterator[int]:
        yield self.value


def test_making_an_actor_reaches_the_session(session: FakeSession) -> None:
    handle = Counter.remote(5, name="x")
    assert isinstance(handle, ActorHandle)
    ((_, cls, args, kwargs, options),) = session.calls
    assert cloudpickle.loads(cls.pickled)(3).add(1) == 4
    assert (cls.name, args, kwargs) == ("Counter", (5,), {"name": "x"})
    assert (options.demand_to_place, options.demand_held, options.is_async) == ("CPU:1", "-", False)


def test_the_class_is_exported_once_per_session(session: FakeSession) -> None:
    for made in (Counter, Counter, Counter.options(num_cpus=1)):
        made.remote()
    assert len({id(call[1]) for call in session.calls}) == 1
    with fake_session() as later:
        Counter.remote()
        assert later.calls[0][1] is not session.calls[0][1]


def test_006_arguments_are_checked(session: FakeSession) -> None:
    for args, kwargs in [((1, 2), {}), ((), {"end": 1})]:
        with pytest.raises(TypeError, match="^Counter: "):
            Counter.remote(*args, **kwargs)
    handle = Counter.remote()
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"by": 2})]:
        with pytest.raises(TypeError, match=r"^Counter\.add: "):
            handle.add.remote(*args, **kwargs)
    assert len(session.calls) == 1


def test_a_call_reaches_the_session(session: FakeSession) -> None:
    handle = Counter.remote()
    assert isinstance(handle.add.remote(1, times=2), redray.ObjectRef)
    assert session.calls[1][1:5] == (handle._actor_id, "add", (1,), {"times": 2})
    assert len(handle.pair.remote()) == 2
    assert handle.fixed.remote(1) is None
    assert handle.items.remote() == "the generator"
    assert session.calls[-1][5].num_returns == STREAMING


def test_013_options_of_a_method_leave_the_original(session: FakeSession) -> None:
    handle = Counter.remote()
    assert len(handle.add.options(num_returns=3).remote(1)) == 3
    assert isinstance(handle.add.remote(1), redray.ObjectRef)
    assert isinstance(handle.pair._remote(num_returns=1), redray.ObjectRef)
    with pytest.raises(ValueError, match="num_cpus"):
        handle.add.options(num_cpus=1)


def test_what_an_actor_sets_for_its_methods_travels_with_its_handle(session: FakeSession) -> None:
    handle = Counter.options(max_task_retries=3, max_pending_calls=7).remote()
    cloudpickle.loads(cloudpickle.dumps(handle)).add.remote(1)
    options = session.calls[-1][5]
    assert (options.max_task_retries, options.max_pending_calls) == (3, 7)


def test_every_actor_understands_these(session: FakeSession) -> None:
    handle = Counter.remote()
    handle.__ray_ready__.remote()
    handle.__ray_call__.remote(lambda actor, x: x, 3)
    handle.__ray_terminate__.remote()
    assert [call[2] for call in session.calls[1:]] == ["__ray_ready__", "__ray_call__", "__ray_terminate__"]
    with pytest.raises(TypeError):
        handle.__ray_call__.remote()


def test_077_an_unknown_method_is_an_attribute_error(session: FakeSession) -> None:
    handle = Counter.remote()
    with pytest.raises(AttributeError, match="subtract"):
        _ = handle.subtract
    assert {"add", "pair", "__ray_ready__"} <= set(dir(handle))


def test_010_direct_calls_say_what_to_write(session: FakeSession) -> None:
    with pytest.raises(TypeError, match=r"Counter\.remote\(\)"):
        Counter()
    with pytest.raises(TypeError, match=r"handle\.add\.remote\(\)"):
        Counter.remote().add(1)


def test_077_an_actor_class_is_no_base_class() -> None:
    with pytest.raises(ActorClassInheritanceException, match="Inherit from the plain class"):

        class Derived(Counter):  # type: ignore[misc, valid-type]
            pass


def test_077_attributes_of_the_class_are_there() -> None:
    assert Counter.step == 1 and Counter.fixed(3) == 3
    assert (Counter.__name__, Counter.__doc__) == ("Counter", "Counts.")
    with pytest.raises(AttributeError):
        _ = Counter.missing


def test_an_async_method_makes_an_async_actor(session: FakeSession) -> None:
    class Base:
        async def method(self) -> None: ...

    class Derived(Base):
        pass

    redray.remote(Derived).remote()
    assert (session.calls[0][4].is_async, session.calls[0][4].max_concurrency) == (True, 1000)


def test_077_handles_compare_and_hash_by_actor(session: FakeSession) -> None:
    one, two = Counter.remote(), Counter.remote()
    again = cloudpickle.loads(cloudpickle.dumps(one))
    assert again == one and hash(again) == hash(one) and again is not one
    assert one != two and one != 3 and len({one, two, again}) == 2


def test_076_a_method_keeps_its_handle(session: FakeSession, keeper: Keeper) -> None:
    method = Counter.remote().add
    assert isinstance(method, ActorMethod) and not refs.dropped
    del method
    assert len(refs.dropped) == 1


def test_handles_are_counted_like_refs(session: FakeSession, keeper: Keeper) -> None:
    handle = Counter.remote()
    assert keeper.counted == [], "the session counts the first one itself"
    hold = refs.handle_id(handle._actor_id)
    with refs.collecting() as found:
        packed = cloudpickle.dumps([handle, handle])
    assert list(found) == [hold] and not keeper.pinned
    again = cloudpickle.loads(packed)
    assert keeper.counted == [hold]
    cloudpickle.dumps(handle)
    assert keeper.pinned == [hold]
    del again, handle
    assert list(refs.dropped) == [hold, hold]


def test_074_names(session: FakeSession) -> None:
    Counter.options(name="one").remote()
    with pytest.raises(ActorAlreadyExistsError):
        Counter.options(name="one").remote()
    Counter.options(name="one", namespace="there").remote()
    assert set(session.named) == {("one", "here"), ("one", "there")}
    for name, error in (("", ValueError), (7, TypeError)):
        with pytest.raises(error):
            Counter.options(name=name)


def test_075_get_if_exists_finds_or_makes(session: FakeSession) -> None:
    first = Counter.options(name="one", get_if_exists=True).remote()
    assert Counter.options(name="one", get_if_exists=True).remote() == first
    assert len(session.calls) == 1


def test_075_the_loser_of_the_race_gets_the_winners_handle(session: FakeSession) -> None:
    winner = Counter.options(name="one").remote()
    description = session.named["one", "here"]
    answers = iter([None, description])
    session.lookup_actor = lambda name, namespace: next(answers)  # type: ignore[method-assign]
    assert Counter.options(name="one", get_if_exists=True).remote() == winner


def test_077_a_handle_from_an_old_session_is_refused(session: FakeSession) -> None:
    handle = Counter.remote()
    with fake_session() as later:
        for use in (lambda: handle.add.remote(1), lambda: redray.kill(handle)):
            with pytest.raises(ActorHandleNotFoundError, match="shut down"):
                use()
        assert not later.calls


@pytest.mark.parametrize("given", [{"foo": 3}, {"num_cpus": 1}])
def test_the_method_decorator_refuses_unknown_options(given: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="num_returns"):
        redray.method(**given)


def test_the_method_decorator_is_for_methods() -> None:
    with pytest.raises(AssertionError, match="bare or with keyword"):
        redray.method(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        redray.method(num_returns=2)(3)  # type: ignore[type-var]


def test_a_method_names_a_concurrency_group_that_exists() -> None:
    class Grouped:
        @redray.method(concurrency_group="io")
        def read(self) -> None: ...

    redray.remote(concurrency_groups={"io": 2})(Grouped)
    with pytest.raises(ValueError, match="'io'"):
        redray.remote(Grouped)


def test_078_exit_actor_is_for_actors(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThisProcess, "hosts_actor", False)
    for context in (None, SimpleNamespace(actor="")):
        session.context = context
        with pytest.raises(TypeError, match="outside an actor"):
            redray.actor.exit_actor()
    session.context = SimpleNamespace(actor="ab", exits=False)
    with pytest.raises(ActorExitRequested):
        redray.actor.exit_actor()
    assert session.context.exits
    session.context = None  # a thread that one of the actor's methods has started
    monkeypatch.setattr(ThisProcess, "hosts_actor", True)
    monkeypatch.setattr(ThisProcess, "must_end", False)
    with pytest.raises(SystemExit):
        redray.actor.exit_actor()
    assert ThisProcess.must_end
