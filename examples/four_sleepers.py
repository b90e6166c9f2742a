"""Four tasks that sleep a second each, on four CPUs.

Prints `4 tasks of 1 s each: [0, 1, 2, 3] in X s`, where X is little more than 1 and not 4: they sleep side by side.
"""

from __future__ import annotations

import argparse
import time

import redray


@redray.remote
def sleep(number: int, seconds: float) -> int:
    """Sleep, then return the number it was given."""
    time.sleep(seconds)
    return number


def main() -> None:
    """Run the four tasks and time them."""
    parser = argparse.ArgumentParser(description="Four tasks that sleep side by side on four CPUs.")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each sleeps (default: 1)")
    seconds = parser.parse_args().seconds

    redray.init(num_cpus=4)
    began = time.perf_counter()
    numbers = redray.get([sleep.remote(number, seconds) for number in range(4)])
    print(f"4 tasks of {seconds:g} s each: {numbers} in {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
