"""Four counters as actors: each is a process of its own that keeps a number.

Counter k counts in steps of k, ten times. Prints
  `first counter: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]`, one caller's calls run in the order in which they were made;
  `all four: [10, 20, 30, 40]`, every counter kept its own number;
  `after a task counted too: [11, 22, 33, 44]`, a task was given the handles and used the same actors;
  `processes: 4`, they ran in as many processes.
"""

from __future__ import annotations

import os

import redray
from redray.actor import ActorHandle


@redray.remote
class Counter:
    """A number that grows by the same step each time."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._count = 0

    def increment(self) -> int:
        """Count one step; return the number reached."""
        self._count += self._step
        return self._count

    def process(self) -> int:
        """The id of the process this counter lives in."""
        return os.getpid()


@redray.remote
def count_elsewhere(counters: list[ActorHandle]) -> list[int]:
    """Count once with each counter, from inside a task."""
    return redray.get([counter.increment.remote() for counter in counters])


def main() -> None:
    """Make four counters and count."""
    redray.init(num_cpus=4)
    counters = [Counter.remote(step) for step in (1, 2, 3, 4)]
    counts = [redray.get([counter.increment.remote() for _ in range(10)]) for counter in counters]
    print(f"first counter: {counts[0]}")
    print(f"all four: {[count[-1] for count in counts]}")
    print(f"after a task counted too: {redray.get(count_elsewhere.remote(counters))}")
    print(f"processes: {len(set(redray.get([counter.process.remote() for counter in counters])))}")


if __name__ == "__main__":
    main()
