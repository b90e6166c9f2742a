"""Sends held-back results when the main thread is busy with a task that was expected to be short."""

from __future__ import annotations

import threading
from collections.abc import Callable

_TICK_S = 0.002
_IDLE_TICKS = 25


class FlushWatchdog:
    """A thread that lives only while results are being held back, so that a worker whose task forks is single
    threaded."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._held = False
        self._lives = False
        self._lock = threading.Lock()
        self._never = threading.Event()

    def hold(self) -> None:
        """Something is held back from now on: in a few milliseconds at most it is sent."""
        self._held = True
        if not self._lives:
            with self._lock:
                if not self._lives:
                    self._lives = True
                    threading.Thread(target=self._watch, name="redray-flush", daemon=True).start()

    def _watch(self) -> None:
        idle = 0
        while True:
            self._never.wait(_TICK_S)
            if self._held:
                self._held = False
                idle = 0
                self._flush()
                continue
            idle += 1
            if idle >= _IDLE_TICKS and self._retire():
                return

    def _retire(self) -> bool:
        with self._lock:
            self._lives = False
            if self._held:  # set between the last look and the line above, by a `hold` that still saw this thread alive
                self._lives = True
            return not self._lives
