"""What comes back from a task: spec lines 14 to 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayTaskError
from tests.helpers import Driver, Signal

pytestmark = pytest.mark.usefixtures("cluster")


def test_014_no_returns_gives_none_and_still_runs(signal: Signal) -> None:
    @ray.remote(num_returns=0)
    def announce() -> None:
        signal.set()

    assert announce.remote() is None
    signal.wait()


def test_014_one_return_gives_a_ref_and_more_give_a_list() -> None:
    @ray.remote
    def numbers(count: int) -> Any:
        return tuple(range(count)) if count > 1 else 0

    assert isinstance(numbers.remote(1), ray.ObjectRef)
    refs = numbers.options(num_returns=3).remote(3)
    assert isinstance(refs, list) and len(refs) == 3
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    assert ray.get(refs) == [0, 1, 2]


def test_014_actor_methods_return_as_many_too(signal: Signal) -> None:
    @ray.remote
    class Actor:
        @ray.method(num_returns=2)
        def pair(self) -> tuple[str, str]:
            return "left", "right"

        @ray.method(num_returns=0)
        def announce(self) -> None:
            signal.set()

    actor = Actor.remote()
    left, right = actor.pair.remote()
    assert (ray.get(right), ray.get(left)) == ("right", "left")
    assert actor.announce.remote() is None
    signal.wait()


def test_014_a_value_that_nobody_receives_is_warned_about(tmp_path: Path, signal: Signal) -> None:
    driver = Driver(
        tmp_path,
        """
        import sys
        import redray as ray
        from tests.helpers import Signal
        ray.init("local", num_cpus=1, include_dashboard=False)
        @ray.remote(num_returns=0)
        def talkative():
            return "nobody hears this"
        assert talkative.remote() is None
        Signal(sys.argv[1]).wait()
        ray.shutdown()
        """,
        [signal.path],
    )
    driver.wait_for_output("num_returns")
    signal.set()
    driver.finish()


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_015_the_wrong_number_of_values_fails_every_ref(count: int) -> None:
    @ray.remote(num_returns=2)
    def miscounted() -> list[int]:
        return list(range(count))

    for ref in miscounted.remote():
        with pytest.raises(ValueError, match="2") as caught:
            ray.get(ref)
        assert isinstance(caught.value, RayTaskError)


def test_015_a_single_value_for_several_returns_fails_every_ref() -> None:
    @ray.remote(num_returns=2)
    def single() -> int:
        return 1

    for ref in single.remote():
        with pytest.raises((ValueError, TypeError)) as caught:
            ray.get(ref)
        assert isinstance(caught.value, RayTaskError)


def test_015_an_exception_surfaces_through_every_ref() -> None:
    @ray.remote(num_returns=3)
    def fail() -> None:
        raise KeyError("lost")

    for ref in fail.remote():
        with pytest.raises(KeyError, match="lost"):
            ray.get(ref)


def test_016_one_return_keeps_a_tuple_as_one_object() -> None:
    @ray.remote
    def pair() -> tuple[int, list[int]]:
        return 1, [2, 3]

    assert ray.get(pair.remote()) == (1, [2, 3])


def test_016_several_returns_may_be_any_sequence_and_refs_of_their_own() -> None:
    @ray.remote(num_returns=3)
    def parts() -> list[Any]:
        return [None, b"x" * 300_000, "small"]

    nothing, large, small = parts.remote()
    assert ray.get(small) == "small"
    assert ray.get(large) == b"x" * 300_000
    assert ray.get(nothing) is None


def test_016_a_result_may_hold_refs() -> None:
    @ray.remote
    def make() -> Any:
        return ray.put("inner")

    outer = make.remote()
    inner = ray.get(outer)
    assert isinstance(inner, ray.ObjectRef)
    assert ray.get(inner) == "inner"
