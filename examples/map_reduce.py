"""Map-reduce with two ways to reduce: one after another, and as a tree.

Sixteen map tasks square the numbers 0 to 15; reduce tasks add two numbers at a time and take a tenth of a second each.
Prints `squares: [0, 1, 4, ..., 225]`, then `simple: 1240 in X s, 15 steps one after another` and `tree: 1240 in Y s,
4 levels side by side`. Both take 15 additions; X is at least 1.5, Y is at least 0.4 and less than half of X.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import redray
from redray import ObjectRef

ADDING = 0.1  # seconds
Reduction = Callable[[list[ObjectRef]], tuple[ObjectRef, int]]


@redray.remote
def square(number: int) -> int:
    """The map step."""
    return number * number


@redray.remote
def add(left: int, right: int) -> int:
    """The reduce step, made slow enough to see what depends on what."""
    time.sleep(ADDING)
    return left + right


def simple(values: list[ObjectRef]) -> tuple[ObjectRef, int]:
    """Add to a running total: (the total, additions that wait for each other)."""
    total, *rest = values
    for value in rest:
        total = add.remote(total, value)
    return total, len(rest)


def tree(values: list[ObjectRef]) -> tuple[ObjectRef, int]:
    """Add neighbours until one is left: (the total, levels of additions that wait for each other)."""
    levels = 0
    while len(values) > 1:
        odd = values[len(values) // 2 * 2 :]
        values = [add.remote(left, right) for left, right in zip(values[::2], values[1::2], strict=False)] + odd
        levels += 1
    return values[0], levels


def timed(
    reduce: Callable[[list[ObjectRef]], tuple[ObjectRef, int]], values: list[ObjectRef]
) -> tuple[int, float, int]:
    """(total, seconds, additions that wait for each other) of one way to reduce."""
    began = time.perf_counter()
    total, deep = reduce(values)
    return redray.get(total), time.perf_counter() - began, deep


def main() -> None:
    """Map once, reduce twice."""
    redray.init(num_cpus=8)
    squares = [square.remote(number) for number in range(16)]
    print(f"squares: {redray.get(squares)}")
    print("simple: {} in {:.2f} s, {} steps one after another".format(*timed(simple, squares)))
    print("tree: {} in {:.2f} s, {} levels side by side".format(*timed(tree, squares)))


if __name__ == "__main__":
    main()
