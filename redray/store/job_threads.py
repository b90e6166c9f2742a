"""A bounded number of daemon threads that do what would hold up a loop; each starts when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], object]


class JobThreads:
    """Jobs must not raise: whoever waits for one would never hear of it."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pending = 0
        self._lock = threading.Lock()

    def start(self, job: Job) -> None:
        with self._lock:
            self._pending += 1
            if self._pending > len(self._threads) < self._most:
                name = f"redray-{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """No more jobs: waiting ones are still done, then the threads end. Does not wait for them."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """After `close`: wait until the threads have ended, `timeout` seconds for each."""
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                with self._lock:
                    self._pending -= 1
