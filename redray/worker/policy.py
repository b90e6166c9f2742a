"""How far ahead a worker may be given work: pure arithmetic on measured run times."""

from __future__ import annotations

AHEAD_US = 5_000  # a worker is given about so much work at a time
MOST_AHEAD = 256
_WEIGHT = 8


class RunTimes:
    """Smoothed run time of each function; rises at once, falls slowly,
    because a wrong "short" delays everything queued behind."""

    def __init__(self) -> None:
        self._us: dict[str, int] = {}

    def record(self, function: str, run_us: int) -> None:
        known = self._us.get(function)
        self._us[function] = run_us if known is None else max(run_us, known - (known - run_us) // _WEIGHT)

    def ahead(self, function: str) -> int:
        """How many runs of this function a worker may have at once: 1 until one was measured."""
        us = self._us.get(function)
        if us is None:
            return 1
        return max(1, min(MOST_AHEAD, AHEAD_US // max(us, 1)))
