"""A graph of matrix tasks: results of tasks are the arguments of others, and only the last one is fetched.

Eight tasks make a matrix that turns the plane by 45 degrees; seven multiply them, in pairs, pairs of pairs, and so on.
Eight such turns are a full one, so their product is the identity. Prints, each followed by a matrix of 2 x 2,
`8 turns of 45 degrees:` and the identity, `times zeros:` and zeros, then `multiplied by 8 tasks, 4 levels deep`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import redray

Matrix = npt.NDArray[np.float64]


@redray.remote
def zeros(rows: int, columns: int) -> Matrix:
    """A matrix of zeros."""
    return np.zeros((rows, columns))


@redray.remote
def turn(degrees: float) -> Matrix:
    """The matrix that turns the plane by an angle."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@redray.remote
def multiply(left: Matrix, right: Matrix) -> Matrix:
    """The product of two matrices."""
    return left @ right


def main() -> None:
    """Build the whole graph without waiting for any of it; then fetch two results."""
    redray.init(num_cpus=4)
    level = [turn.remote(45) for _ in range(8)]
    tasks = levels = 0
    while len(level) > 1:
        level = [multiply.remote(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        tasks, levels = tasks + len(level), levels + 1
    nothing = multiply.remote(level[0], zeros.remote(2, 2))

    product, empty = redray.get([level[0], nothing])
    print(f"8 turns of 45 degrees:\n{np.abs(product).round(12)}")
    print(f"times zeros:\n{empty}")
    print(f"multiplied by {tasks + 1} tasks, {levels + 1} levels deep")


if __name__ == "__main__":
    main()
