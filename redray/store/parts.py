"""A long copy, made by several threads at once: one alone does not fill the memory bus."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_LEAST = 8 << 20  # bytes: below twice this, starting a thread costs more than it saves
_MOST_THREADS = 4  # more than these fill the bus on no machine measured, and would take cores from others
_UNIT = 4 << 20  # parts begin at multiples of this

Fill = Callable[[int, memoryview], None]


def in_parts(source: memoryview, fill: Fill) -> None:
    """Call `fill(position, part)` for consecutive parts of `source`, each in a thread of its own, and return when all
    of them have. Raises what the first failing one raised, and never while another still writes."""
    parts = _split(len(source))
    if len(parts) == 1:
        fill(0, source)
        return
    failures: list[BaseException] = []

    def run(start: int, stop: int) -> None:
        try:
            fill(start, source[start:stop])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=part, daemon=True) for part in parts[1:]]
    for thread in threads:
        thread.start()
    try:
        fill(0, source[: parts[0][1]])
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _split(size: int) -> list[tuple[int, int]]:
    count = min(size // _LEAST, _MOST_THREADS, _cores())
    if count < 2:
        return [(0, size)]
    step = -(-size // count // _UNIT) * _UNIT
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
