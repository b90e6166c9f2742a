"""A loop that keeps a bounded number of tasks in flight with ray.wait, and fetches results as they come."""

import time

import ray

LIMIT, ITEMS = 4, 24


@ray.remote
class Gauge:
    def __init__(self):
        self.now = self.most = 0

    def change(self, by):
        self.now += by
        self.most = max(self.most, self.now)
        return self.most


@ray.remote(num_cpus=0.25)
def process(item, gauge):
    ray.get(gauge.change.remote(1))
    time.sleep(0.01)
    ray.get(gauge.change.remote(-1))
    return item * item


@ray.remote
def sleep_long():
    time.sleep(30)


def main():
    gauge = Gauge.remote()
    in_flight, results = [], []
    for item in range(ITEMS):
        if len(in_flight) >= LIMIT:
            ready, in_flight = ray.wait(in_flight, num_returns=1)
            results += ray.get(ready)
        in_flight.append(process.remote(item, gauge))
    while in_flight:
        ready, in_flight = ray.wait(in_flight, num_returns=len(in_flight), timeout=0.05)
        results += ray.get(ready)
    print("results", sorted(results) == [item * item for item in range(ITEMS)])
    most = ray.get(gauge.change.remote(0))
    print("at most", LIMIT, "in flight:", 1 <= most <= LIMIT)

    slow = process.remote(7, gauge)
    ready, pending = ray.wait([slow], timeout=0)
    print("refs in", len(ready) + len(pending), "lists")
    try:
        ray.get(sleep_long.remote(), timeout=0.1)
    except ray.exceptions.GetTimeoutError as error:
        print("timeout", isinstance(error, TimeoutError))
    for bad in (dict(num_returns=2), dict(num_returns=0), dict(timeout=-1)):
        try:
            ray.wait([slow], **bad)
        except ValueError:
            print("refused", bad)
    print("the end", ray.get(slow), ray.wait([]))


if __name__ == "__main__":
    ray.init(num_cpus=2)
    main()
