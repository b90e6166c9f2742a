"""How long to measure: every workload is warmed up once, then repeated until its time is used."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Plan:
    """What a round may spend. `seconds` bounds the measuring of one workload; one repetition is always finished."""

    seconds: float = 1.0
    cpus: int = 2
    queued: int = 10_000

    def rate(self, body: Callable[[], object], units: float = 1) -> float:
        """Units per second, when one call of `body` does `units` of them."""
        body()
        done, start = 0, perf_counter()
        while True:
            body()
            done += 1
            elapsed = perf_counter() - start
            if elapsed >= self.seconds:
                return units * done / elapsed

    def duration(self, body: Callable[[], object]) -> float:
        """Median seconds of one call."""
        body()
        each: list[float] = []
        while sum(each) < self.seconds:
            each.append(self.once(body))
        return statistics.median(each)

    def once(self, body: Callable[[], object]) -> float:
        """Seconds of a single call, for what a cache would serve the second time, or what takes too long."""
        start = perf_counter()
        body()
        return perf_counter() - start
