"""Estimate pi by throwing points at a square, and watch an actor keep track of the progress.

Sixteen tasks throw a million points each, in ten rounds, and tell a progress actor after every round. Prints
`P % of 16,000,000 points` whenever the driver asked and the number had grown, `100 %` at the end, and then
`pi is about 3.14...`, within 0.002 of pi and the same digits in every run: each task draws from a seed of its own.
"""

from __future__ import annotations

import argparse

import numpy as np

import redray
from redray.actor import ActorHandle

TASKS, ROUNDS = 16, 10


@redray.remote
class Progress:
    """Knows how many points each task has thrown."""

    def __init__(self) -> None:
        self._thrown: dict[int, int] = {}

    def report(self, task: int, thrown: int) -> None:
        """A task says how far it is. Said twice, after a retry for instance, it still counts once."""
        self._thrown[task] = thrown

    def thrown(self) -> int:
        """Points thrown by all tasks so far."""
        return sum(self._thrown.values())


@redray.remote
def throw(task: int, points: int, progress: ActorHandle) -> int:
    """Throw points at the unit square; return how many fell into the quarter of a circle in it."""
    random, inside = np.random.default_rng(task), 0
    for thrown in range(points // ROUNDS, points + 1, points // ROUNDS):
        x, y = random.random((2, points // ROUNDS))
        inside += int(np.count_nonzero(x * x + y * y < 1))
        reported = progress.report.remote(task, thrown)
    redray.get(reported)  # The actor has heard of the last round before the driver hears of the task.
    return inside


def main() -> None:
    """Throw, watch, estimate."""
    parser = argparse.ArgumentParser(description="Estimate pi, with a progress actor.")
    parser.add_argument("--points", type=int, default=1_000_000, help="for each of the 16 tasks (default: 1000000)")
    points = parser.parse_args().points // ROUNDS * ROUNDS

    redray.init(num_cpus=4)
    progress, seen = Progress.remote(), 0
    inside = [throw.remote(task, points, progress) for task in range(TASKS)]
    pending = inside
    while pending:
        _, pending = redray.wait(pending, num_returns=len(pending), timeout=0.1)
        thrown = redray.get(progress.thrown.remote())
        if thrown > seen:
            print(f"{thrown / (TASKS * points):.0%} of {TASKS * points:,} points".replace("%", " %"), flush=True)
            seen = thrown
    print(f"pi is about {4 * sum(redray.get(inside)) / (TASKS * points):.6f}")


if __name__ == "__main__":
    main()
