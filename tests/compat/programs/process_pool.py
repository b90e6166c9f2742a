"""multiprocessing.Pool's interface on actors."""

import os

import ray
from ray.util.multiprocessing import Pool, TimeoutError


def square(number):
    return number * number


def add(left, right):
    return left + right


def fail(number):
    raise ValueError(f"no {number}")


def remember(value):
    os.environ["REMEMBERED"] = str(value)


def recall(_):
    return os.environ["REMEMBERED"]


def sleep_long():
    import time

    time.sleep(30)


def main():
    with Pool(processes=2) as pool:
        print("map", pool.map(square, range(6)))
        print("chunks", pool.map(square, range(6), chunksize=4))
        print("starmap", pool.starmap(add, [(1, 2), (3, 4)]))
        print("apply", pool.apply(add, (5,), {"right": 6}))
        print("imap", list(pool.imap(square, range(5))))
        print("unordered", sorted(pool.imap_unordered(square, range(5), chunksize=2)))
        later = pool.map_async(square, range(4))
        print("later", later.get(timeout=60), later.ready(), later.successful())
        called = []
        pool.apply_async(square, (9,), callback=called.append).wait(timeout=60)
        failed = pool.apply_async(fail, (3,), error_callback=lambda error: called.append(type(error).__name__))
        failed.wait(timeout=60)
        print("failed", failed.ready(), failed.successful())
        try:
            pool.map(fail, [1])
        except ValueError as error:
            print("raised", str(error).splitlines()[-1])
        try:
            pool.apply_async(sleep_long).get(timeout=0.1)
        except TimeoutError:
            print("too slow")
        pool.terminate()
    with Pool(processes=2, initializer=remember, initargs=("yes",)) as pool:
        print("initialized", set(pool.map(recall, range(4))))
        pool.close()
        pool.join()
    try:
        pool.map(square, [1])
    except ValueError:
        print("closed")


if __name__ == "__main__":
    ray.init(num_cpus=4, log_to_driver=False)
    main()
