"""A driver with an event loop: refs are awaited, gathered and wrapped in futures."""

import asyncio
import concurrent.futures
import time

import ray


@ray.remote
def work(number):
    time.sleep(0.01 * (5 - number))
    return number * 10


@ray.remote
def sleep_long():
    time.sleep(30)


@ray.remote
def fail():
    raise LookupError("gone")


@ray.remote
class Relay:
    """An async actor that awaits other refs."""

    async def total(self, refs):
        return sum(await asyncio.gather(*refs))

    async def first(self, refs):
        done, _ = await asyncio.wait([asyncio.wrap_future(ref.future()) for ref in refs])
        return sorted(future.result() for future in done)


async def main():
    print("await", await work.remote(1))
    print("gather", await asyncio.gather(*[work.remote(number) for number in range(4)]))
    done = [await future for future in asyncio.as_completed([work.remote(number) for number in range(3)])]
    print("as completed", sorted(done))
    try:
        await fail.remote()
    except LookupError as error:
        print("raised", type(error).__name__)
    try:
        await asyncio.wait_for(sleep_long.remote(), 0.1)
    except asyncio.TimeoutError:
        print("too slow")
    future = asyncio.wrap_future(work.remote(3).future())
    print("wrapped", await future)
    relay = Relay.remote()
    print("relay", await relay.total.remote([work.remote(number) for number in range(3)]))
    print("futures", await relay.first.remote([work.remote(number) for number in range(2)]))


if __name__ == "__main__":
    ray.init(num_cpus=4)
    asyncio.run(main())
    futures = [work.remote(number).future() for number in range(3)]
    print("concurrent", sorted(future.result() for future in concurrent.futures.as_completed(futures, timeout=60)))
