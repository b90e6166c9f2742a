"""Arguments and submission: spec lines 1 to 6."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.exceptions import RayTaskError
from tests.helpers import Journal, Signal

pytestmark = pytest.mark.usefixtures("cluster")


def test_001_top_level_refs_arrive_as_values() -> None:
    @ray.remote
    def describe(first: object, *, second: object) -> list[object]:
        return [first, second]

    assert ray.get(describe.remote(ray.put("one"), second=ray.put("two"))) == ["one", "two"]


def test_001_refs_inside_containers_stay_refs_and_are_not_awaited(signal: Signal) -> None:
    @ray.remote
    def held_back() -> str:
        signal.wait()
        return "late"

    class Box:
        def __init__(self, ref: Any) -> None:
            self.ref = ref

    @ray.remote
    def kinds(in_list: list[Any], in_dict: dict[str, Any], in_object: Any) -> list[bool]:
        return [isinstance(ref, ray.ObjectRef) for ref in (in_list[0], in_dict["ref"], in_object.ref)]

    late = held_back.remote()
    assert ray.get(kinds.remote([late], {"ref": late}, Box(late))) == [True, True, True]
    assert ray.wait([late], timeout=0) == ([], [late])
    signal.set()
    assert ray.get(late) == "late"


def test_001_a_ref_taken_out_of_a_container_can_be_fetched_in_the_task() -> None:
    @ray.remote
    def open_it(refs: list[Any]) -> int:
        return sum(ray.get(refs))

    assert ray.get(open_it.remote([ray.put(20), ray.put(22)])) == 42


def test_002_actors_get_values_for_top_level_refs_too() -> None:
    @ray.remote
    class Keeper:
        def __init__(self, first: object, second: object = None, nested: list[Any] | None = None) -> None:
            self.seen = [first, second, isinstance((nested or [None])[0], ray.ObjectRef)]

        def given(self, extra: object, *, named: object, nested: list[Any]) -> list[object]:
            return [*self.seen, extra, named, isinstance(nested[0], ray.ObjectRef)]

    keeper = Keeper.remote(ray.put(1), second=ray.put(2), nested=[ray.put(3)])
    answer = keeper.given.remote(ray.put(4), named=ray.put(5), nested=[ray.put(6)])
    assert ray.get(answer) == [1, 2, True, 4, 5, True]


def test_002_an_actor_waits_for_the_refs_its_constructor_needs(signal: Signal) -> None:
    @ray.remote
    def late() -> str:
        signal.wait()
        return "ready"

    @ray.remote
    class Keeper:
        def __init__(self, value: object) -> None:
            self.value = value

        def read(self) -> object:
            return self.value

    answer = Keeper.remote(late.remote()).read.remote()
    assert ray.wait([answer], timeout=0) == ([], [answer])
    signal.set()
    assert ray.get(answer) == "ready"


def test_003_a_task_starts_only_when_all_its_refs_are_ready(signal: Signal, journal: Journal) -> None:
    @ray.remote
    def held_back() -> int:
        signal.wait()
        return 2

    @ray.remote
    def add(left: int, right: int) -> int:
        journal.add("started")
        return left + right

    @ray.remote
    def neighbour() -> None:
        pass

    total = add.remote(ray.put(1), held_back.remote())
    # Tasks submitted later on the second CPU go past it: they would have run behind it had it been startable.
    for _ in range(3):
        ray.get(neighbour.remote())
    assert journal.lines() == []
    signal.set()
    assert ray.get(total) == 3
    assert journal.lines() == ["started"]


def test_003_a_failed_dependency_fails_the_task_without_running_it(journal: Journal) -> None:
    @ray.remote
    def fail() -> None:
        raise ZeroDivisionError("first in the chain")

    @ray.remote
    def use(value: object) -> None:
        journal.add("ran")

    middle = use.remote(fail.remote())
    last = use.remote(middle)
    for ref in (middle, last):
        with pytest.raises(ZeroDivisionError, match="first in the chain") as caught:
            ray.get(ref)
        assert isinstance(caught.value, RayTaskError)
    assert journal.lines() == []


def test_003_a_failed_dependency_fails_an_actor_call_and_the_actor_lives_on() -> None:
    @ray.remote
    def fail() -> None:
        raise ZeroDivisionError("no value")

    @ray.remote
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def count(self, value: object = None) -> int:
            self.calls += 1
            return self.calls

    counter = Counter.remote()
    with pytest.raises(ZeroDivisionError):
        ray.get(counter.count.remote(fail.remote()))
    assert ray.get(counter.count.remote()) == 1


@pytest.mark.parametrize("size", [0, 1, 4 * 1024, 100 * 1024 - 200, 100 * 1024 + 1, 3 * 1024 * 1024])
def test_004_arguments_and_results_of_every_size_arrive_whole(size: int) -> None:
    @ray.remote
    def echo(data: bytes, array: Any) -> tuple[bytes, Any]:
        return data, array

    data = np.random.default_rng(size).bytes(size)
    array = np.frombuffer(data, dtype=np.uint8)
    back, array_back = ray.get(echo.remote(data, array))
    assert back == data
    np.testing.assert_array_equal(array_back, array)


def test_004_many_inlined_arguments_go_past_the_cap_of_one_call() -> None:
    @ray.remote
    def total(*parts: bytes, **named: bytes) -> int:
        return sum(map(len, parts)) + sum(map(len, named.values()))

    part = bytes(90 * 1024)
    arguments = [part] * 120  # 10.5 MiB, each of them small enough to travel inside the call
    assert ray.get(total.remote(*arguments, last=part)) == 121 * len(part)


def test_004_a_big_argument_is_shared_memory_in_the_task() -> None:
    @ray.remote
    def is_writeable(array: Any) -> bool:
        return bool(array.flags.writeable)

    assert ray.get(is_writeable.remote(np.zeros(1_000_000))) is False


@ray.remote
def takes_anything(*args: object, **kwargs: object) -> None:
    pass


@ray.remote
class TakesAnything:
    def __init__(self, *args: object) -> None:
        pass

    def method(self, *args: object) -> str:
        return "alive"


def test_005_an_unserializable_argument_is_a_type_error_in_the_caller() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="(?is)(pickle|serializ).*lock"):
        takes_anything.remote(lock)
    with pytest.raises(TypeError, match="(?is)(pickle|serializ).*lock"):
        takes_anything.remote(key=[1, {"nested": lock}])
    with pytest.raises(TypeError, match="(?is)(pickle|serializ).*lock"):
        TakesAnything.remote(lock)
    actor = TakesAnything.remote()
    with pytest.raises(TypeError, match="(?is)(pickle|serializ).*lock"):
        actor.method.remote(lock)
    assert ray.get(actor.method.remote()) == "alive"


def test_005_the_report_names_what_cannot_be_serialized() -> None:
    class Holder:
        def __init__(self) -> None:
            self.unlikely_attribute_name = threading.Lock()

    with pytest.raises(TypeError, match="unlikely_attribute_name|Holder"):
        takes_anything.remote(Holder())


@ray.remote
def two(first: int, second: int = 0) -> int:
    return first + second


@ray.remote
class Two:
    def __init__(self, first: int, second: int = 0) -> None:
        self.sum = first + second

    def method(self, first: int, *, keyword: int) -> int:
        return first + keyword


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1, 2, 3), {}), ((1,), {"unknown": 2}), ((1,), {"first": 2})])
def test_006_a_call_that_does_not_fit_the_signature_fails_at_remote(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        two.remote(*args, **kwargs)
    with pytest.raises(TypeError):
        Two.remote(*args, **kwargs)


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1,), {}), ((1, 2), {"keyword": 3}), ((1,), {"key": 3})])
def test_006_a_method_call_that_does_not_fit_fails_at_remote(args: Any, kwargs: Any) -> None:
    actor = Two.remote(1)
    with pytest.raises(TypeError):
        actor.method.remote(*args, **kwargs)
    assert ray.get(actor.method.remote(1, keyword=2)) == 3
