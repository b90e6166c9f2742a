"""The part of serialization that needs cloudpickle, imported when the first value needs it.

Functions and classes of `__main__`, lambdas and closures are pickled by value, since no other process can import them.
"""

from __future__ import annotations

import collections
import inspect
import io
import pickle
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from redray import cloudpickle, reducers, refs

Dumped = tuple[bytes, list[memoryview], list[bytes]]


def dump(value: Any) -> Dumped:
    """(pickle stream, raw buffers, ids of the refs inside). Raises TypeError if the value cannot be pickled."""
    try:
        return _dump(value)
    except MemoryError:
        raise
    except Exception as error:
        path, cause = _culprit(value, error)
        raise TypeError(f"Cannot pickle {path}: {_one_line(cause)}") from error


def failure(value: Any) -> Exception | None:
    """What pickling it alone raises."""
    try:
        _dump(value)
    except Exception as error:
        return error
    return None


def _dump(value: Any) -> Dumped:
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as stream, refs.collecting() as found:
        _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
        return stream.getvalue(), [buffer.raw() for buffer in buffers], list(found)


def _reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    raw = pickle.PickleBuffer(view if view.contiguous else view.tobytes())
    return _remake_memoryview, (raw, view.format, view.shape)


def _remake_memoryview(raw: Any, kind: str, shape: tuple[int, ...]) -> memoryview:
    flat: Any = memoryview(raw).cast("B")
    view: memoryview = flat.cast(kind, shape) if len(shape) != 1 and 0 not in shape else flat.cast(kind)
    return view


class _Pickler(cloudpickle.CloudPickler):
    """cloudpickle's, plus memoryviews that stay views, behind the serializers which the user registered."""

    dispatch_table = collections.ChainMap(
        reducers.registered, {memoryview: _reduce_memoryview}, cloudpickle.CloudPickler.dispatch_table
    )


def _culprit(value: Any, error: Exception, path: str = "", depth: int = 4) -> tuple[str, Exception]:
    """Follow the first part that cannot be pickled on its own, a few steps down: `['model'].lock` says most."""
    for step, part in parts(value) if depth else ():
        inner = failure(part)
        if inner is not None:
            return _culprit(part, inner, path + step, depth - 1)
    kind = (
        f"function {value.__name__!r}"
        if isinstance(value, FunctionType)
        else f"a value of type {type(value).__name__!r}"
    )
    return (f"{kind} (at {path.lstrip('.')})" if path else kind), error


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, with the step that leads to each: `.lock`, `[0]`, `['model']`."""
    if isinstance(value, dict):
        yield from ((f"[{key!r:.40}]", part) for key, part in list(value.items())[:1000])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", part) for index, part in enumerate(list(value)[:1000]))
    elif isinstance(value, FunctionType):
        scope = inspect.getclosurevars(value)
        yield from ((f".{name}", part) for name, part in [*scope.nonlocals.items(), *scope.globals.items()])
    elif isinstance(getattr(value, "__dict__", None), dict):
        yield from ((f".{name}", part) for name, part in list(vars(value).items())[:1000])


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else text + "."
