"""The arity check says what the interpreter would say, before the call travels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redray import signatures


def plain(a: Any, b: Any = 1) -> None: ...
def nothing() -> None: ...
def positional(a: Any, b: Any, /, c: Any = 1) -> None: ...
def keywords(a: Any, *, b: Any, c: Any = 1) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def mixed(a: Any, /, b: Any, *args: Any, c: Any, **kwargs: Any) -> None: ...
def positional_default(a: Any = 1, /, **a_again: Any) -> None: ...


@functools.wraps(plain)
def wrapper(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [plain, nothing, positional, keywords, anything, mixed, positional_default, lambda x, y=2: None],
)
@given(count=st.integers(0, 5), names=st.sets(st.sampled_from("abcdxy")))
def test_006_a_call_fits_exactly_if_it_could_be_made(function: Callable[..., Any], count: int, names: set[str]) -> None:
    args, kwargs = (0,) * count, dict.fromkeys(names, 0)
    try:
        function(*args, **kwargs)
        fits = True
    except TypeError:
        fits = False
    signature = signatures.of_function(function)
    try:
        signature.check(count, kwargs, "function")
        found = True
    except TypeError as error:
        assert str(error).startswith("function: ")
        found = False
    assert found == fits
    if not kwargs:
        assert (signature.low <= count <= signature.high) == fits, "the quick check agrees"


def test_a_wrapper_has_the_signature_of_what_it_wraps() -> None:
    assert signatures.of_function(wrapper) == signatures.of_function(plain)
    wrapper.__signature__ = "nonsense"  # type: ignore[attr-defined]
    assert signatures.of_function(wrapper) == signatures.ANYTHING


class Base:
    def __init__(self, a: int, *, b: int = 1) -> None: ...
    def inherited(self, x: int) -> None: ...
    def hidden(self) -> None: ...


class Derived(Base):
    hidden = 3  # type: ignore[assignment]

    class Inner: ...

    @staticmethod
    def static(x: int) -> None: ...
    @classmethod
    def of_class(cls, x: int) -> None: ...
    def _private(self) -> None: ...
    async def coroutine(self) -> None: ...


def test_the_methods_of_a_class() -> None:
    methods = signatures.methods_of(Derived)
    assert {"inherited", "static", "of_class", "_private", "coroutine"} <= methods.keys()
    assert not {"hidden", "Inner", "__repr__"} & methods.keys()
    for name in ("inherited", "static", "of_class"):
        signature = methods[name][1]
        assert (signature.low, signature.high) == (1, 1), name


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        return super().__call__()


def test_the_signature_of_making_an_instance() -> None:
    made = signatures.of_class(Derived)
    assert (made.low, made.high, made.keywords) == (1, 1, ("b",))
    assert signatures.of_class(type("Empty", (), {}))[:2] == (0, 0)
    assert signatures.of_class(type("ByNew", (), {"__new__": lambda cls, x: object.__new__(cls)}))[:2] == (1, 1)
    for opaque in (type("OfC", (dict,), {}), Meta("ByMeta", (), {})):
        assert signatures.of_class(opaque) == signatures.ANYTHING


def test_what_kind_of_function_it_is() -> None:
    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    assert signatures.is_generator(generator) and signatures.is_generator(functools.partial(generator))
    assert signatures.is_generator(async_generator) and signatures.is_async(async_generator)
    assert signatures.is_async(Derived.coroutine) and not signatures.is_generator(Derived.coroutine)
    assert not signatures.is_generator(plain) and not signatures.is_async(len)
