"""Values that need help to travel: custom serializers, and the report on what cannot be sent. Spec lines 4, 5 and 9."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import redray as ray
from redray.util import deregister_serializer, inspect_serializability, register_serializer

pytestmark = pytest.mark.usefixtures("cluster")


class Connection:
    """Holds what cannot be pickled."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.lock = threading.Lock()


def pack(connection: Connection) -> str:
    return connection.address


def unpack(address: str) -> Connection:
    return Connection(address)


@pytest.fixture
def registered() -> Iterator[None]:
    register_serializer(Connection, serializer=pack, deserializer=unpack)
    yield
    deregister_serializer(Connection)


@ray.remote
def address_of(connection: Connection) -> str:
    return connection.address


def test_a_registered_class_travels(registered: None) -> None:
    here = Connection("here")
    assert ray.get(ray.put(here)).address == "here"
    assert ray.get(address_of.remote(here)) == "here"
    assert ray.get(address_of.remote(connection=Connection("there"))) == "there"
    nested = ray.get(ray.put([{"deep": here}, here]))
    assert nested[0]["deep"] is nested[1], "one object stays one object"


def test_a_function_may_capture_it(registered: None) -> None:
    captured = Connection("captured")

    @ray.remote
    def read() -> str:
        return captured.address

    assert ray.get(read.remote()) == "captured"
    assert ray.cloudpickle.loads(ray.cloudpickle.dumps(captured)).address == "captured"


def test_a_worker_registers_for_what_it_returns() -> None:
    @ray.remote
    def make(does_register: bool) -> Connection:
        if does_register:
            ray.util.register_serializer(Connection, serializer=pack, deserializer=unpack)
        try:
            return Connection("made there")
        finally:
            if not does_register:
                ray.util.deregister_serializer(Connection)

    with pytest.raises(TypeError, match="lock"):
        ray.get(make.remote(False))
    assert ray.get(make.remote(True)).address == "made there"


def test_registering_again_replaces_and_deregistering_ends(registered: None) -> None:
    register_serializer(Connection, serializer=lambda value: value.address.upper(), deserializer=unpack)
    assert ray.get(address_of.remote(Connection("x"))) == "X"
    deregister_serializer(Connection)
    with pytest.raises(TypeError):
        address_of.remote(Connection("x"))
    deregister_serializer(Connection)  # once more is no error


@pytest.mark.differs_from_ray("Ray takes anything")
def test_what_is_registered_is_checked() -> None:
    wrong: Any = Connection("x")
    with pytest.raises(TypeError, match="class"):
        register_serializer(wrong, serializer=pack, deserializer=unpack)
    with pytest.raises(TypeError, match="deserializer"):
        register_serializer(Connection, serializer=pack, deserializer=wrong)
    with pytest.raises(TypeError, match="class"):
        deregister_serializer(wrong)


# ---- the report ------------------------------------------------------------------------------------------------------
lock = threading.Lock()


def test_005_inspect_serializability_of_what_can_be_sent() -> None:
    report = io.StringIO()
    assert inspect_serializability([1, {"a": "b"}], name="fine", print_file=report) == (True, set())
    assert "Checking Serializability" in report.getvalue() and "FAIL" not in report.getvalue()


def test_005_inspect_serializability_names_the_captured_variable() -> None:
    def uses_the_lock() -> Any:
        return lock

    report = io.StringIO()
    fine, failures = inspect_serializability(uses_the_lock, name="the_function", print_file=report)
    assert not fine
    (failure,) = failures
    assert (failure.name, failure.obj, failure.parent) == ("lock", lock, uses_the_lock)
    assert "the_function" in repr(failure) and "FailTuple(lock" in report.getvalue()


def test_005_inspect_serializability_follows_attributes() -> None:
    class Model:
        def __init__(self) -> None:
            self.weights = [1.0]
            self.client = Connection("x")

    fine, failures = inspect_serializability(Model(), print_file=io.StringIO())
    (failure,) = failures
    assert not fine and failure.name == "lock" and isinstance(failure.parent, Connection)
    assert inspect_serializability(lock, name="alone", print_file=io.StringIO())[0] is False


def test_005_the_error_of_a_call_says_which_argument() -> None:
    with pytest.raises(TypeError, match=r"Could not serialize the argument.*1.*lock"):
        two.remote(1, [lock])
    with pytest.raises(TypeError, match=r"Could not serialize the argument.*lock"):
        two.remote(1, second=Connection("x"))


@ray.remote
def two(first: Any, second: Any) -> None: ...


# ---- line 4 ----------------------------------------------------------------------------------------------------------
@ray.remote
def total(*parts: bytes, **named: bytes) -> int:
    return sum(map(len, parts)) + sum(map(len, named.values()))


@pytest.mark.parametrize("count", [50, 150])
def test_004_many_small_arguments_of_one_call_are_capped(count: int) -> None:
    parts = [bytes([number]) * 90_000 for number in range(count)]  # 13.5 MB, each below what is put by itself
    assert ray.get(total.remote(*parts, last=b"x" * 90_000)) == 90_000 * (count + 1)


@pytest.mark.skipif(ray.__name__ != "redray", reason="looks inside")
def test_004_what_is_too_much_for_one_call_is_put() -> None:
    from redray.session import current_or_none

    session: Any = current_or_none()
    payload, waits_for, _, puts = session._pack_arguments(tuple(bytes([n]) * 90_000 for n in range(150)), {})
    assert len(payload) <= 10 * 2**20 and len(waits_for) == len(puts) and puts
    payload, waits_for, _, puts = session._pack_arguments((b"x" * 200_000, b"y" * 1000), {})
    assert len(puts) == 1 and len(payload) < 2000
