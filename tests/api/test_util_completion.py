"""`ray.util.as_completed` and `map_unordered`: results in the order in which they come."""

from __future__ import annotations

import itertools

import pytest

import redray as ray
from redray.util import as_completed, map_unordered
from tests.helpers import Signal


@ray.remote
def after(signal: Signal | None, value: int) -> int:
    if signal is not None:
        signal.wait()
    return value


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote(max_retries=0)
def fail() -> None:
    raise ValueError("on purpose")


def test_as_completed(cluster: None, signal: Signal) -> None:
    refs = [after.remote(signal, 0), after.remote(None, 1), after.remote(None, 2)]
    found = as_completed(refs)
    assert {next(found), next(found)} == {1, 2}
    signal.set()
    assert list(found) == [0]
    assert list(as_completed([])) == []


def test_refs_instead_of_values(cluster: None) -> None:
    refs = [square.remote(x) for x in range(25)]
    assert set(as_completed(refs, yield_obj_refs=True, chunk_size=4)) == set(refs)
    assert sorted(as_completed(refs, fetch_local=False, timeout=0.01)) == [x * x for x in range(25)]


def test_errors_come_in_their_turn(cluster: None) -> None:
    good = square.remote(2)
    ray.get(good)
    found = as_completed([good, fail.remote()])
    assert next(found) == 4
    with pytest.raises(ValueError, match="on purpose"):
        next(found)


def test_map_unordered(cluster: None) -> None:
    assert sorted(map_unordered(square, range(30))) == [x * x for x in range(30)]
    assert len(list(map_unordered(square, range(5), yield_obj_refs=True))) == 5
    assert list(map_unordered(square, [])) == []
    assert sorted(map_unordered(square, range(3), backpressure_size=None)) == [0, 1, 4]


def test_map_unordered_reads_as_results_are_taken(cluster: None) -> None:
    counted = itertools.count()
    results = map_unordered(square, counted, backpressure_size=10)
    assert len([next(results) for _ in range(5)]) == 5
    assert next(counted) <= 15


def test_map_unordered_over_an_actor(cluster: None) -> None:
    @ray.remote
    class Adder:
        def add(self, x: int) -> int:
            return x + 1

    adder = Adder.remote()
    assert sorted(map_unordered(adder.add, range(4))) == [1, 2, 3, 4]


def test_bad_arguments(cluster: None) -> None:
    for call in (
        lambda: as_completed([], chunk_size=0),
        lambda: as_completed([], num_returns=1),
        lambda: map_unordered(square, [], chunk_size=0),
        lambda: map_unordered(square, [], backpressure_size=5, chunk_size=10),
        lambda: map_unordered(square, [], num_returns=1),
    ):
        with pytest.raises(ValueError):
            call()
