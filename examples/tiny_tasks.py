"""100,000 tasks of a tenth of a millisecond each, on four CPUs.

Prints `100,000 tasks of 0.1 ms in X s: Y tasks a second` and `the numbers they returned add up to 4,999,950,000`,
which is 0 + 1 + ... + 99,999: each task ran and none is missing.

The tasks are submitted in batches, two of them in flight: the CPUs always have work, and the driver never holds more
than two batches of refs, however many tasks there are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import redray

NAP = 0.0001  # seconds


@redray.remote
def tiny(number: int) -> int:
    """Almost nothing: what is left is the cost of a task."""
    time.sleep(NAP)
    return number


def run(tasks: int, batch: int) -> Iterator[int]:
    """The numbers returned by each batch, added up."""
    in_flight: list[redray.ObjectRef] = []
    for start in range(0, tasks, batch):
        submitted = [tiny.remote(number) for number in range(start, min(start + batch, tasks))]
        if in_flight:
            yield sum(redray.get(in_flight))
        in_flight = submitted
    yield sum(redray.get(in_flight))


def main() -> None:
    """Run and time all tasks."""
    parser = argparse.ArgumentParser(description="Many tiny tasks on four CPUs.")
    parser.add_argument("--tasks", type=int, default=100_000, help="how many (default: 100000)")
    parser.add_argument("--batch", type=int, default=5_000, help="how many to submit at a time (default: 5000)")
    args = parser.parse_args()

    redray.init(num_cpus=4)
    began = time.perf_counter()
    total = sum(run(args.tasks, args.batch))
    took = time.perf_counter() - began
    print(f"{args.tasks:,} tasks of {NAP * 1e3:g} ms in {took:.1f} s: {args.tasks / took:,.0f} tasks a second")
    print(f"the numbers they returned add up to {total:,}")


if __name__ == "__main__":
    main()
