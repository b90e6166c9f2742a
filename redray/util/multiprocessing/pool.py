"""`Pool`, with the interface of `multiprocessing.Pool`."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from redray import api
from redray.util.multiprocessing.crew import Chunk, Crew, grouped
from redray.util.multiprocessing.results import AsyncResult, ResultIterator

Callback = Callable[[Any], Any]

_CHUNKS_EACH = 4  # of a map, per process: large enough to be worth a call, small enough to even out


class Pool:
    """Processes that work off calls. They are actors, so they may be on other machines.

    Args:
        processes: how many; None: as many as the cluster has CPUs.
        initializer, initargs: called in each process when it starts.
        maxtasksperchild: a process is replaced after so many calls of `apply`, or chunks of the others.
        context: for compatibility, ignored.
        ray_address: the cluster to join, if this program has joined none; see `redray.init`.
        ray_remote_args: options of the actors, such as `{"num_cpus": 1}`; without them they hold no resources.

    Raises:
        ValueError: fewer than one process, or more than the cluster has CPUs.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if context is not None:
            logging.getLogger("redray").warning("The 'context' of a Pool is ignored: its processes are actors.")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild < 1):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = _count(processes, ray_address)
        self._crew = Crew(self._processes, initializer, initargs or (), maxtasksperchild, ray_remote_args or {})
        self._closed = False
        self._finalizer = weakref.finalize(self, Crew.close, self._crew)  # a forgotten pool still does its work

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- one call ----------------------------------------------------------------------------------------------------
    def apply(
        self, func: Callable[..., Any], args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
    ) -> Any:
        """`func(*args, **kwargs)` in one of the processes."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        self._check_running()
        result = AsyncResult(1, True, callback, error_callback)
        calls = [(tuple(args or ()), dict(kwargs or {}))]
        self._crew.submit(Chunk(func, calls, lambda results: result.deliver(0, results)))
        return result

    # ---- many calls --------------------------------------------------------------------------------------------------
    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """`[func(item) for item in iterable]`; `chunksize` items travel to a process together."""
        return list(self.map_async(func, iterable, chunksize).get())

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        return self._map_async(func, [(item,) for item in iterable], chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """`[func(*items) for items in iterable]`."""
        return list(self.starmap_async(func, iterable, chunksize=chunksize).get())

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        chunksize: int | None = None,
    ) -> AsyncResult:
        return self._map_async(func, [tuple(items) for items in iterable], chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        calls: list[tuple[Any, ...]],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        self._check_running()
        size = (
            _check_chunksize(chunksize) if chunksize is not None else -(-len(calls) // (_CHUNKS_EACH * self._processes))
        )
        chunks = list(grouped([(args, {}) for args in calls], max(1, size)))
        result = AsyncResult(len(chunks), False, callback, error_callback)
        shared = [api.put(func)] if chunks else []
        for index, chunk in enumerate(chunks):
            self._crew.submit(Chunk(shared, chunk, lambda results, index=index: result.deliver(index, results)))  # type: ignore[misc]
        return result

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> ResultIterator:
        """An iterator of the results, in order. `iterable` is read as results are taken."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> ResultIterator:
        """As `imap`, in the order in which results come."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def _imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, ordered: bool
    ) -> ResultIterator:
        self._check_running()
        groups = iter(
            grouped(iterable if hasattr(iterable, "__next__") else iter(iterable), _check_chunksize(chunksize))
        )
        shared = [api.put(func)]
        crew = self._crew

        def submit(deliver: Callable[[Any], None]) -> bool:
            group = next(groups, None)
            if group is not None:
                crew.submit(Chunk(shared, [((item,), {}) for item in group], deliver))
            return group is not None

        return ResultIterator(submit, 2 * self._processes, ordered)

    # ---- the end -----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Take no more calls. Those that were made are done."""
        self._closed = True
        self._finalizer()

    def terminate(self) -> None:
        """End the processes at once; what is not done fails with RayActorError."""
        self._closed = True
        self._finalizer.detach()
        self._crew.terminate()

    def join(self) -> None:
        """Wait until the processes have ended. Raises ValueError before `close` or `terminate`."""
        if not self._closed:
            raise ValueError("Pool is still running")
        self._crew.join()

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("Pool not running")


def _check_chunksize(chunksize: int | None) -> int:
    if chunksize is None:
        return 1
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")
    return chunksize


def _count(processes: int | None, address: str | None) -> int:
    """How many processes, in a cluster that is joined, or begun, if that has not happened."""
    if processes is not None and processes <= 0:
        raise ValueError("Processes in the pool must be >0.")
    if not api.is_initialized():
        address = address or os.environ.get("REDRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if address is None and processes is not None:
            api.init("local", num_cpus=processes)
        else:
            api.init(address)
    cpus = int(api.cluster_resources().get("CPU", 0))
    if processes is None:
        return max(1, cpus)
    if processes > cpus:
        raise ValueError(
            f"Tried to start a pool with {processes} processes on an existing cluster, but there are only {cpus} CPUs"
            " in it."
        )
    return processes
