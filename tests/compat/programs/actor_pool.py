"""ActorPool: ordered and unordered maps, submit and get_next, workers that come and go."""

import time

import ray
from ray.util import ActorPool


@ray.remote
class Worker:
    def slow_square(self, number):
        time.sleep(0.02 * (number % 3))
        return number * number

    def fail(self, number):
        if number == 2:
            raise ValueError(f"not {number}")
        return number


def main():
    workers = [Worker.remote() for _ in range(2)]
    pool = ActorPool(workers)
    square = lambda worker, number: worker.slow_square.remote(number)  # noqa: E731
    print("map", list(pool.map(square, range(7))))
    print("unordered", sorted(pool.map_unordered(square, range(7))))

    for number in range(3):
        pool.submit(square, number)
    print("free", pool.has_free(), "next", pool.has_next())
    print("in order", [pool.get_next() for _ in range(3)], "next", pool.has_next())
    try:
        pool.get_next()
    except StopIteration:
        print("nothing is left")

    pool.push(Worker.remote())
    print("popped", pool.pop_idle() is not None)
    pool.submit(lambda worker, seconds: worker.slow_square.remote(seconds), 2)
    try:
        pool.get_next(timeout=0.001)
    except TimeoutError:
        print("too early")
    print("in the end", pool.get_next(timeout=60))

    for number in range(4):
        pool.submit(lambda worker, number: worker.fail.remote(number), number)
    outcomes = []
    while pool.has_next():
        try:
            outcomes.append(pool.get_next())
        except ValueError as error:
            outcomes.append(str(error).splitlines()[-1])
    print("outcomes", outcomes)


if __name__ == "__main__":
    ray.init(num_cpus=3)
    main()
