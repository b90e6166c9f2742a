"""How far ahead a worker may be given work: pure arithmetic on measured run times."""

from __future__ import annotations

AHEAD_US = 5_000  # a worker is given about so much work at a time
MOST_AHEAD = 256
ONE_AHEAD_US = 10_000  # runs that take so long on average may have one behind them, if the cluster has more than enough
_WEIGHT = 8


class RunTimes:
    """How long each function runs. The peak rises at once and falls slowly, because a wrong "short" delays everything
    queued behind; the mean says whether a worker would wait for its next run about as long as it works on it."""

    def __init__(self) -> None:
        self._us: dict[str, tuple[int, int]] = {}  # function -> peak, mean

    def record(self, function: str, run_us: int) -> None:
        known = self._us.get(function)
        if known is None:
            self._us[function] = (run_us, run_us)
            return
        peak, mean = known
        self._us[function] = (max(run_us, peak - (peak - run_us) // _WEIGHT), mean + (run_us - mean) // _WEIGHT)

    def ahead(self, function: str, is_plenty: bool = False) -> int:
        """How many runs of this function a worker may have at once: 1 until one was measured. `is_plenty`: more is
        ready than there is room for, so that nobody else would have started it meanwhile. Then a single run may wait
        behind one that is short on average; should that one turn out slow, it is taken back."""
        known = self._us.get(function)
        if known is None:
            return 1
        peak, mean = known
        least = 2 if is_plenty and mean <= ONE_AHEAD_US else 1
        return max(least, min(MOST_AHEAD, AHEAD_US // max(peak, 1)))
