"""What the rest of Python offers for the same work: each peer opens, gives the rows it can run, and closes."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

from benchmarks.measure import Plan
from benchmarks.workloads import BATCH, NUMBERS_IN_80_MB, NUMBERS_IN_100_MB

Rows = dict[str, Callable[[], float]]


def nothing(*_args: object) -> bytes:
    return b"ok"


def make(numbers: int) -> Any:
    import numpy

    return numpy.zeros(numbers)


@contextmanager
def pool(plan: Plan) -> Iterator[Rows]:
    with multiprocessing.Pool(plan.cpus) as workers:

        def batch(*arguments: object) -> None:
            for result in [workers.apply_async(nothing, arguments) for _ in range(BATCH)]:
                result.get()

        yield {
            "tasks_sync": lambda: plan.rate(lambda: workers.apply(nothing)),
            "tasks_async": lambda: plan.rate(batch, BATCH),
            "arguments_10kb": lambda: plan.rate(lambda: batch(b"x" * 10_000), BATCH),
            "large_returned": lambda: plan.duration(lambda: workers.apply(make, (NUMBERS_IN_100_MB,))[-1]),
        }


@contextmanager
def mpire(plan: Plan) -> Iterator[Rows]:
    # By name: a peer nobody has to install must not be a module the type checker looks for.
    with import_module("mpire").WorkerPool(n_jobs=plan.cpus) as workers:

        def batch() -> None:
            for result in [workers.apply_async(nothing) for _ in range(BATCH)]:
                result.get()

        yield {
            "tasks_sync": lambda: plan.rate(lambda: workers.apply(nothing)),
            "tasks_async": lambda: plan.rate(batch, BATCH),
        }


@contextmanager
def memcpy(plan: Plan) -> Iterator[Rows]:
    """A copy into shared memory that is mapped and touched already: as fast as a `put` can get with one thread."""
    import numpy

    source = numpy.ones(NUMBERS_IN_80_MB)
    mapping = mmap.mmap(-1, source.nbytes)

    def copy() -> float:
        target = numpy.frombuffer(mapping, dtype=source.dtype)
        return plan.rate(lambda: numpy.copyto(target, source), source.nbytes / 1e9)

    yield {"put_large": copy}
    mapping.close()


PEERS: dict[str, Callable[[Plan], AbstractContextManager[Rows]]] = {"pool": pool, "mpire": mpire, "memcpy": memcpy}
OFFERS = {
    "pool": ("tasks_sync", "tasks_async", "arguments_10kb", "large_returned"),
    "mpire": ("tasks_sync", "tasks_async"),
    "memcpy": ("put_large",),
}
