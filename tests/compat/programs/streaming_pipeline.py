"""Generators: producers that stream, consumers that take items while they are made, errors at the end."""

import asyncio

import ray


@ray.remote
def numbers(count):
    for number in range(count):
        yield number


@ray.remote
def squares(stream):
    for number in stream:
        yield number * number


@ray.remote
def fails_after(count):
    for number in range(count):
        yield number
    raise RuntimeError("no more")


@ray.remote(num_returns=3)
def three():
    yield "a"
    yield "b"
    yield "c"


@ray.remote
class Source:
    def __init__(self):
        self.made = 0

    def stream(self, count):
        for _ in range(count):
            self.made += 1
            yield self.made

    @ray.method(num_returns="streaming")
    def named(self, names):
        for name in names:
            yield name.upper()


@ray.remote
class AsyncSource:
    async def stream(self, count):
        for number in range(count):
            await asyncio.sleep(0.01)
            yield number + 0.5


@ray.remote
def double(value):
    return 2 * value


async def consume():
    return [await ref async for ref in AsyncSource.remote().stream.remote(4)]


def main():
    print("numbers", [ray.get(ref) for ref in numbers.remote(5)])
    print("piped", ray.get([double.remote(ref) for ref in numbers.remote(6)]))
    print("squares", [ray.get(ref) for ref in squares.remote([1, 2, 3])])
    source = Source.remote()
    print("actor", [ray.get(ref) for ref in source.stream.remote(3)], [ray.get(ref) for ref in source.stream.remote(2)])
    print("method", [ray.get(ref) for ref in source.named.remote(["x", "y"])])
    print("static", ray.get(three.remote()))
    print("async", asyncio.run(consume()))

    got = []
    for ref in fails_after.remote(2):
        try:
            got.append(ray.get(ref))
        except RuntimeError as error:
            got.append(f"{type(error).__name__} {isinstance(error, ray.exceptions.RayTaskError)}")
    print("error", got)

    pending, taken = [numbers.remote(4), numbers.remote(3)], []
    while pending:
        [ready], _ = ray.wait(pending, num_returns=1)
        try:
            taken.append(ray.get(next(ready)))
        except StopIteration:
            pending.remove(ready)
    print("two at once", sorted(taken))
    generator = numbers.remote(1)
    print(type(generator).__name__, ray.get(next(generator)), next(generator, "end"))


if __name__ == "__main__":
    ray.init(num_cpus=4, log_to_driver=False)
    main()
