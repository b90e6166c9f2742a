"""Train a linear model with a parameter server: one actor holds the weights, four workers hold the data.

In each of 80 steps every worker computes the gradient of the squared error on its quarter of 4,000 made-up points, and
the server moves the weights against the mean of the four. The driver only passes refs on: it queues all steps at once
and no gradient or weight ever comes to it. Prints `step S: error E` for every 20th step, E falling each time, and then
`found [2.00, -1.00, 0.50], made with [2.00, -1.00, 0.50]`, the same to within 0.01.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import redray

Array = npt.NDArray[np.float64]

TRUTH = np.array([2.0, -1.0, 0.5])
WORKERS, POINTS, STEPS = 4, 1000, 80


@redray.remote
class Server:
    """Holds the weights."""

    def __init__(self) -> None:
        self._weights = np.zeros(len(TRUTH))

    def weights(self) -> Array:
        """The weights as they are."""
        return self._weights

    def step(self, *gradients: Array) -> Array:
        """Move against the mean gradient; return the new weights."""
        self._weights = self._weights - 0.05 * np.mean(gradients, axis=0)
        return self._weights


@redray.remote
class Worker:
    """Holds its share of the points: y = x . TRUTH plus a little noise."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._x = random.normal(size=(POINTS, len(TRUTH)))
        self._y = self._x @ TRUTH + random.normal(scale=0.1, size=POINTS)

    def gradient(self, weights: Array) -> Array:
        """The gradient of the mean squared error at these weights."""
        return 2 * self._x.T @ (self._x @ weights - self._y) / POINTS

    def error(self, weights: Array) -> float:
        """The mean squared error at these weights."""
        return float(np.mean((self._x @ weights - self._y) ** 2))


def main() -> None:
    """Queue all steps, then print how it went."""
    redray.init(num_cpus=4)
    server, workers = Server.remote(), [Worker.remote(seed) for seed in range(WORKERS)]
    weights, errors = server.weights.remote(), {}
    for step in range(1, STEPS + 1):
        weights = server.step.remote(*[worker.gradient.remote(weights) for worker in workers])
        if step % 20 == 0:
            errors[step] = [worker.error.remote(weights) for worker in workers]
    for step, refs in errors.items():
        print(f"step {step}: error {np.mean(redray.get(refs)):.5f}")
    found, made = (", ".join(f"{value:.2f}" for value in values) for values in (redray.get(weights), TRUTH))
    print(f"found [{found}], made with [{made}]")


if __name__ == "__main__":
    main()
