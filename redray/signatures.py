"""Does a call fit a function? Asked at every `.remote()`, so the usual answer costs two comparisons.

`inspect.Signature.bind` takes 5 us, and importing inspect takes longer than importing the rest of the API. So what the
check needs is read off the code object once, and only a function that claims another signature than its own code
(`__wrapped__`, `__signature__`) goes through inspect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x4, 0x8, 0x20, 0x80, 0x200
_ANY = sys.maxsize


class Signature(NamedTuple):
    """A call of n positional arguments and no keywords fits exactly if `low <= n <= high`."""

    low: int
    high: int
    names: tuple[str, ...] = ()  # of the parameters that may be given by position
    positional_only: int = 0  # how many of them cannot be given by name
    required: int = 0  # how many of them have no default
    keywords: tuple[str, ...] = ()  # of keyword-only parameters
    required_keywords: tuple[str, ...] = ()
    more_keywords: bool = False  # **kwargs

    def check(self, given: int, keywords: Mapping[str, Any], what: str) -> None:
        """Raises TypeError if a call of `what` with so many positional and these keyword arguments does not fit."""
        if given > self.high:
            raise TypeError(f"{what}: too many positional arguments ({given}, at most {self.high})")
        by_name = self.names[self.positional_only :]
        for name in keywords:
            if name in by_name:
                if self.names.index(name) < given:
                    raise TypeError(f"{what}: multiple values for argument '{name}'")
            elif name in self.names and not self.more_keywords:
                raise TypeError(f"{what}: '{name}' parameter is positional only, but was passed as a keyword")
            elif name not in self.keywords and not self.more_keywords:
                raise TypeError(f"{what}: got an unexpected keyword argument '{name}'")
        for position, name in enumerate(self.names[given : self.required], given):
            if name not in keywords or position < self.positional_only:
                raise TypeError(f"{what}: missing a required argument: '{name}'")
        for name in self.required_keywords:
            if name not in keywords:
                raise TypeError(f"{what}: missing a required argument: '{name}'")


ANYTHING = Signature(0, _ANY, more_keywords=True)
"""Of what cannot be looked into, such as a class written in C: the worker will find out."""


def of_function(function: Any, bound: int = 0) -> Signature:
    """The signature of `function` without its first `bound` parameters (`self`)."""
    if hasattr(function, "__wrapped__") or hasattr(function, "__signature__"):
        return _of_claim(function, bound)
    if not isinstance(function, FunctionType):
        return ANYTHING
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return _make(
        names[bound:],
        max(code.co_posonlyargcount - bound, 0),
        max(len(names) - len(function.__defaults__ or ()) - bound, 0),
        keywords,
        tuple(name for name in keywords if name not in (function.__kwdefaults__ or ())),
        bool(code.co_flags & _VARARGS),
        bool(code.co_flags & _VARKEYWORDS),
    )


def _make(
    names: tuple[str, ...],
    positional_only: int,
    required: int,
    keywords: tuple[str, ...],
    required_keywords: tuple[str, ...],
    more_arguments: bool,
    more_keywords: bool,
) -> Signature:
    low = _ANY if required_keywords else required
    high = _ANY if more_arguments else len(names)
    return Signature(low, high, names, positional_only, required, keywords, required_keywords, more_keywords)


def _of_claim(function: Any, bound: int) -> Signature:
    import inspect

    try:
        parameters = list(inspect.signature(function).parameters.values())[bound:]
    except (TypeError, ValueError):  # the claim is no signature
        return ANYTHING
    kinds = [parameter.kind for parameter in parameters]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return _make(
        tuple(p.name for p in positional),
        kinds.count(inspect.Parameter.POSITIONAL_ONLY),
        sum(p.default is p.empty for p in positional),
        tuple(p.name for p in keywords),
        tuple(p.name for p in keywords if p.default is p.empty),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
    )


def of_class(cls: type) -> Signature:
    """The signature of making an instance."""
    if any("__call__" in vars(metaclass) for metaclass in type.mro(type(cls))[:-2]):  # a metaclass decides
        return ANYTHING
    made_by: Any = cls.__new__
    set_up_by: Any = cls.__init__  # type: ignore[misc]
    if set_up_by is not object.__init__:
        return of_function(set_up_by, bound=1)
    return of_function(made_by, bound=1) if made_by is not object.__new__ else Signature(0, 0)


def methods_of(cls: type) -> dict[str, tuple[Callable[..., Any], Signature]]:
    """Everything callable that `cls` and its bases define, `object` left out: name -> function, signature."""
    found: dict[str, tuple[Callable[..., Any], Signature]] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for name, member in vars(owner).items():
            if isinstance(member, staticmethod):
                found[name] = member.__func__, of_function(member.__func__)
            elif isinstance(member, classmethod):
                found[name] = member.__func__, of_function(member.__func__, bound=1)
            elif callable(member) and not isinstance(member, type):
                found[name] = member, of_function(member, bound=1)
            else:
                found.pop(name, None)  # an attribute that hides a base's method
    return found


def _flags(function: Any) -> int:
    while type(function).__name__ in ("partial", "partialmethod"):  # functools', as inspect sees them
        function = function.func
    return getattr(getattr(function, "__code__", None), "co_flags", 0)


def is_generator(function: Any) -> bool:
    """Whether it uses `yield`, async or not."""
    return bool(_flags(function) & (_GENERATOR | _ASYNC_GENERATOR))


def is_async(function: Any) -> bool:
    """Whether it is `async def`, with `yield` or without."""
    return bool(_flags(function) & (_COROUTINE | _ASYNC_GENERATOR))
