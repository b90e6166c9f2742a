"""Values survive the trip, buffers are not copied on the way back, and what cannot travel says so."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import threading
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redray import exceptions, refs
from redray.store import serialization
from redray.store.serialization import (
    CorruptedValueError,
    deserialize,
    is_error,
    load,
    pack,
    pack_error,
    serialize,
    write,
)


def round_trip(value: Any) -> Any:
    return deserialize(pack(serialize(value)))


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class PicklesOnce:
    """Says no to the first pickler, for any reason: the second one decides."""

    def __reduce__(self) -> Any:
        raise ValueError("this one never pickles")


ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
TREES = st.recursive(ATOMS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner))


@given(TREES)
def test_plain_data_survives(value: Any) -> None:
    assert round_trip(value) == value


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 4095,
        b"x" * 4096,
        bytearray(b"y" * 100_000),
        {"deep": [(Point(1, b"z" * 5000), {2, 3})]},
        Point,
        Ellipsis,
        range(10),
        [None] * 100,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    result = round_trip(value)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "value", [memoryview(b"a" * 9), memoryview(numpy.arange(12.0).reshape(3, 4)), memoryview(b"abcd")[::2]]
)
def test_memoryviews_stay_views(value: memoryview) -> None:
    (result,) = round_trip([value])
    assert isinstance(result, memoryview)
    assert result.tolist() == value.tolist()
    assert result.format == value.format


ARRAYS = {
    "small": numpy.arange(3),
    "large": numpy.arange(100_000.0),
    "fortran": numpy.asfortranarray(numpy.arange(24).reshape(4, 6)),
    "slice": numpy.arange(10_000).reshape(100, 100)[::2, ::3],
    "empty": numpy.zeros((0, 4)),
    "scalar": numpy.array(7),
    "structured": numpy.zeros(5, dtype=[("a", "i4"), ("b", "f8")]),
    "objects": numpy.array([1, "two", None], dtype=object),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_whole(name: str) -> None:
    array = ARRAYS[name]
    result = round_trip(array)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert numpy.array_equal(result, array)


@pytest.mark.parametrize("size", [1, 200, 100_000])
def test_arrays_are_read_only_views_of_the_packed_memory(size: int) -> None:
    serialized = serialize({"a": numpy.arange(size), "b": numpy.ones(size)})
    memory = bytearray(serialized.size)
    assert write(serialized, memoryview(memory)) == serialized.size
    result = deserialize(memory)
    for array in result.values():
        assert not array.flags.writeable
        assert numpy.shares_memory(array, numpy.frombuffer(memory, dtype=numpy.uint8))


def test_large_buffers_start_on_a_cache_line() -> None:
    serialized = serialize([numpy.arange(3), b"?" * 77, numpy.arange(1000), numpy.arange(2000)])
    starts = [start for start, piece in serialization.pieces(serialized) if len(piece) >= 8000]
    assert len(starts) == 2
    assert all(start % 64 == 0 for start in starts)


def test_serialize_copies_no_large_buffer() -> None:
    array = numpy.arange(100_000)
    (buffer,) = serialize([array]).buffers
    assert numpy.shares_memory(numpy.frombuffer(buffer, dtype=numpy.uint8), array)


def test_identity_inside_one_value_is_kept() -> None:
    shared = [1]
    assert len({id(item) for item in round_trip([shared] * 99)}) == 1
    loop: list[Any] = [object]
    loop.append(loop)
    result = round_trip(loop)
    assert result[1] is result


def test_lambdas_and_closures_go_by_value() -> None:
    base = 40
    assert round_trip(lambda: base + 2)() == 42


def test_classes_of_main_go_by_value_and_plain_data_never_imports_cloudpickle() -> None:
    script = textwrap.dedent("""
        import sys
        from redray.store.serialization import deserialize, pack, serialize
        class Mine:
            def __init__(self): self.x = 5
        for value in (1, "a", [(1, 2.0), {"k": None}], b"b" * 10_000, ValueError("v"), range(3), [[1]] * 1000):
            pack(serialize(value))
        assert "cloudpickle" not in sys.modules
        packed = pack(serialize([Mine()]))
        del Mine
        assert deserialize(packed)[0].x == 5
        assert "numpy" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_refs_inside_are_found_once_each_in_order() -> None:
    ids = [bytes([number]) * 16 for number in range(1, 4)]
    first, second, third = map(refs.ObjectRef, ids)
    serialized = serialize({"b": [second, first], "a": (second, third), "array": numpy.arange(10)})
    assert serialized.contains == [ids[1], ids[0], ids[2]]
    assert deserialize(pack(serialized))["b"] == [second, first]
    assert serialize([lambda: 1, third]).contains == [ids[2]], "the second pickler's pass counts too"
    assert serialize(first).contains == [ids[0]]
    assert serialize(bytes(first)).contains == []


def test_a_registered_reducer_wins() -> None:
    lock = threading.Lock()
    serialization.reducers[type(lock)] = lambda value: (threading.Lock, ())
    try:
        assert type(round_trip([lock, 1])[0]) is type(lock)
    finally:
        serialization.reducers.clear()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (threading.Lock(), "a value of type 'lock'"),
        ({"model": Point(1, [threading.Lock()])}, "['model'].y[0]"),
        ([1, PicklesOnce()], "[1]"),
        (PicklesOnce(), "never pickles"),
        ((generator for generator in "ab"), "generator"),
    ],
)
def test_what_cannot_be_pickled_is_named(value: Any, where: str) -> None:
    with pytest.raises(TypeError) as caught:
        serialize(value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_names_the_variable_at_fault() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"at lock"):
        serialize(lambda: lock)


def test_endless_nesting_is_a_type_error() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(TypeError, match="recursion"):
        serialize(nested)


def test_an_error_is_loaded_and_not_raised() -> None:
    packed = pack_error(ValueError("no", 3))
    assert is_error(packed)
    failed, error = load(packed)
    assert failed
    assert type(error) is ValueError
    assert error.args == ("no", 3)
    assert not is_error(pack(serialize(ValueError("just a value"))))


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("two arguments")


class Unprintable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")

    def __str__(self) -> str:
        raise RuntimeError("nor this")


@pytest.mark.parametrize(
    "error", [NeedsTwo(1, 2), ValueError(threading.Lock()), Unprintable()], ids=lambda e: type(e).__name__
)
def test_an_error_that_cannot_travel_is_quoted(error: Exception) -> None:
    failed, result = load(pack_error(error))
    assert failed
    assert isinstance(result, exceptions.UnserializableException)
    assert type(error).__name__ in str(result)


def test_system_errors_carry_a_name_and_a_text() -> None:
    packed = serialization.pack_system_error("ActorDiedError", "it is dead", actor_id="ab")
    failed, error = load(packed)
    assert failed and is_error(packed)
    assert isinstance(error, exceptions.ActorDiedError)
    assert str(error) == "it is dead"
    assert error.actor_id == "ab"
    assert load(b"S" + msgspec.msgpack.encode(["SystemExit", "from the future"]))[1].args == (
        "SystemExit: from the future",
    )


@pytest.mark.parametrize("packed", [b"", b"V", b"Q\0\0", b"S\0\0", b"S\x91\x01", b"V\1short", b"V\1" + b"\xff" * 40])
def test_bytes_that_are_no_value_are_refused(packed: bytes) -> None:
    with pytest.raises(CorruptedValueError):
        load(packed)


@given(st.integers(min_value=2, max_value=500))
def test_a_cut_value_is_never_a_wrong_value(keep: int) -> None:
    packed = pack(serialize([numpy.arange(20), numpy.arange(30)]))
    with pytest.raises(CorruptedValueError):
        load(packed[: min(keep, len(packed) - 1)])


def test_numbers_of_small_buffers_stay_compact() -> None:
    serialized = serialize([numpy.arange(2) for _ in range(1000)])
    assert len(serialized.buffers) == 1000
    assert serialized.size < 100 * 1000
    assert numpy.array_equal(deserialize(pack(serialized))[999], numpy.arange(2))
