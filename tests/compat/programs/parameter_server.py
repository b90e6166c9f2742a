"""Linear regression by a parameter server: workers compute gradients on their own rows, synchronously, then not."""

import numpy as np
import ray

WORKERS, ROUNDS, RATE = 3, 60, 0.1
TRUTH = np.array([2.0, -1.0, 0.5])


@ray.remote
class ParameterServer:
    def __init__(self, size):
        self.weights = np.zeros(size)
        self.updates = 0

    def apply(self, *gradients):
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        self.updates += 1
        return self.weights

    def read(self):
        return self.weights

    def count(self):
        return self.updates


@ray.remote
class Worker:
    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.x = random.normal(size=(200, len(TRUTH)))
        self.y = self.x @ TRUTH

    def gradient(self, weights):
        return 2 * self.x.T @ (self.x @ weights - self.y) / len(self.y)


def synchronous(workers):
    server = ParameterServer.remote(len(TRUTH))
    weights = server.read.remote()
    for _ in range(ROUNDS):
        weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in workers])
    return ray.get(weights), ray.get(server.count.remote())


def asynchronous(workers):
    server = ParameterServer.remote(len(TRUTH))
    weights = server.read.remote()
    working = {worker.gradient.remote(weights): worker for worker in workers}
    for _ in range(ROUNDS * len(workers)):
        [ready], _ = ray.wait(list(working))
        worker = working.pop(ready)
        working[worker.gradient.remote(server.apply.remote(ready))] = worker
    return ray.get(server.read.remote()), ray.get(server.count.remote())


if __name__ == "__main__":
    ray.init(num_cpus=4)
    workers = [Worker.remote(seed) for seed in range(WORKERS)]
    for mode in (synchronous, asynchronous):
        weights, updates = mode(workers)
        print(f"{mode.__name__}: {updates} updates, weights {weights.round(3) + 0.0}")
