"""Values in the order in which they become ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from redray import api
from redray.refs import ObjectRef
from redray.remote_function import RemoteFunction

if TYPE_CHECKING:
    from redray.actor import ActorMethod


def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool = False, **kwargs: Any
) -> Iterator[Any]:
    """The values of `refs`, each as soon as it is ready.

    Args:
        chunk_size: how many ready values are fetched together at most.
        yield_obj_refs: give the refs instead of the values.
        kwargs: for `redray.wait`, such as `fetch_local=False`; `timeout` is how long one look waits.

    Raises:
        ValueError: `chunk_size` below 1, or `num_returns` given.
        RayError: what `redray.get` raises for a value that failed, when its turn comes.
    """
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")
    return _completed(list(refs), chunk_size, yield_obj_refs, kwargs)


def _completed(
    pending: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, options: dict[str, Any]
) -> Iterator[Any]:
    while pending:
        ready, _ = api.wait(pending, **{**options, "num_returns": 1})
        if not ready:
            continue
        most = min(chunk_size, len(pending))
        ready, pending = api.wait(pending, **{**options, "num_returns": most, "timeout": 0})
        if yield_obj_refs:
            yield from ready
        else:
            while ready:
                yield api.get(ready.pop(0))


def map_unordered(
    fn: RemoteFunction | ActorMethod,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """`fn.remote(item)` for each item; the results as they become ready.

    Args:
        backpressure_size: how many tasks are under way at once; None: all. `items` is read as results are taken.
        chunk_size, yield_obj_refs, kwargs: as of `as_completed`.

    Raises:
        ValueError: `chunk_size` below 1, or `backpressure_size` below `chunk_size`.
    """
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if backpressure_size is not None and backpressure_size < chunk_size:
        raise ValueError("backpressure_size must be larger than or equal to chunk_size")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")
    return _mapped(fn, iter(items), backpressure_size, yield_obj_refs, kwargs)


def _mapped(
    fn: Any, items: Iterator[Any], most: int | None, yield_obj_refs: bool, options: dict[str, Any]
) -> Iterator[Any]:
    pending: list[ObjectRef[Any]] = [fn.remote(item) for item in islice(items, most)]
    while pending:
        ready, pending = api.wait(pending, **{**options, "num_returns": 1})
        pending += [fn.remote(item) for item in islice(items, len(ready))]
        for ref in ready:
            yield ref if yield_obj_refs else api.get(ref)
