"""Values kept in the cluster: put them once, refer to them many times.

Prints six lines:
  `put 80 MB`, an array of 10 million numbers, which the node keeps in shared memory;
  `4 tasks add it up: [49999995000000.0, ...]`, four times the sum of 0 to 9,999,999: they got the ref, read the value;
  `got in X ms`, the time of a get, which maps the array and copies nothing;
  `read-only: True`, since all processes share what get returns;
  `as an argument: ndarray`, a ref given to a task directly arrives as its value;
  `inside a list: ObjectRef`, a ref inside another value arrives as the ref it is.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import redray


@redray.remote
def total(numbers: npt.NDArray[np.float64]) -> float:
    """The sum of an array."""
    return float(numbers.sum())


@redray.remote
def kind(value: Any) -> str:
    """The type of what arrived, or of the first thing in the list that arrived."""
    return type(value[0] if isinstance(value, list) else value).__name__


def main() -> None:
    """Put one array and use it in five ways."""
    redray.init(num_cpus=4)
    numbers = np.arange(10_000_000, dtype=np.float64)
    ref = redray.put(numbers)
    print(f"put {numbers.nbytes / 1e6:.0f} MB")
    print(f"4 tasks add it up: {redray.get([total.remote(ref) for _ in range(4)])}")

    began = time.perf_counter()
    same = redray.get(ref)
    print(f"got in {(time.perf_counter() - began) * 1e3:.1f} ms")
    print(f"read-only: {not same.flags.writeable}")

    print(f"as an argument: {redray.get(kind.remote(ref))}")
    print(f"inside a list: {redray.get(kind.remote([ref]))}")


if __name__ == "__main__":
    main()
