"""Async and threaded actors: calls that wait for each other, limits, concurrency groups, order."""

import asyncio
import threading
import time

import ray


@ray.remote
class Latch:
    """Everybody waits until the last one is there."""

    def __init__(self, size):
        self.missing = size
        self.event = asyncio.Event()

    async def arrive(self):
        self.missing -= 1
        if self.missing == 0:
            self.event.set()
        await self.event.wait()
        return "through"


@ray.remote(max_concurrency=3)
class Threads:
    def __init__(self):
        self.barrier = threading.Barrier(3)

    def meet(self):
        self.barrier.wait(timeout=60)
        return threading.current_thread() is not threading.main_thread()


@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Groups:
    def __init__(self):
        self.running = {"io": 0, "compute": 0}
        self.most = {"io": 0, "compute": 0}

    async def _work(self, group):
        self.running[group] += 1
        self.most[group] = max(self.most[group], self.running[group])
        await asyncio.sleep(0.02)
        self.running[group] -= 1

    @ray.method(concurrency_group="io")
    async def read(self):
        await self._work("io")

    @ray.method(concurrency_group="compute")
    async def compute(self):
        await self._work("compute")

    async def peaks(self):
        return self.most


@ray.remote
class Ordered:
    def __init__(self):
        self.seen = []

    def note(self, value):
        self.seen.append(value)

    def all(self):
        return self.seen


@ray.remote
def later(value):
    time.sleep(0.2)
    return value


@ray.remote
def caller(actor, name):
    for number in range(20):
        actor.note.remote((name, number))
    return ray.get(actor.all.remote())


def main():
    latch = Latch.remote(5)
    print("latch", ray.get([latch.arrive.remote() for _ in range(5)]))
    threads = Threads.remote()
    print("threads", ray.get([threads.meet.remote() for _ in range(3)]))
    groups = Groups.remote()
    ray.get([groups.read.remote() for _ in range(6)] + [groups.compute.remote() for _ in range(4)])
    print("peaks", ray.get(groups.peaks.remote()))

    ordered = Ordered.remote()
    for value in [later.remote("waits for its argument"), "ready", "ready, too"]:
        ordered.note.remote(value)
    print("order", ray.get(ordered.all.remote()))
    shared = Ordered.remote()
    seen = max(ray.get([caller.remote(shared, name) for name in "ab"]), key=len)
    orders = [[number for name, number in seen if name == one] for one in "ab"]
    print("each caller's own order:", all(order == sorted(order) for order in orders), max(map(len, orders)))


if __name__ == "__main__":
    ray.init(num_cpus=4)
    main()
