"""Block matrix multiplication: large arrays in shared memory, read without a copy and read-only."""

import numpy as np
import ray

SIZE, BLOCK = 600, 200


@ray.remote
def multiply_add(total, left, right):
    return total + left @ right


@ray.remote
def describe(array, nested):
    inner = ray.get(nested[0])
    return array.flags.writeable, inner.shape, float(inner.sum())


@ray.remote
def same_object(values):
    return values[0] is values[1], values[0] is values[2]


def blocks_of(matrix):
    count = SIZE // BLOCK
    return [
        [ray.put(matrix[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]) for j in range(count)]
        for i in range(count)
    ]


def main():
    random = np.random.default_rng(7)
    left, right = random.integers(0, 10, (2, SIZE, SIZE)).astype(np.float64)
    a, b = blocks_of(left), blocks_of(right)
    count = SIZE // BLOCK
    zero = ray.put(np.zeros((BLOCK, BLOCK)))
    product = [[zero] * count for _ in range(count)]
    for i in range(count):
        for j in range(count):
            for k in range(count):
                product[i][j] = multiply_add.remote(product[i][j], a[i][k], b[k][j])
    result = np.block([[ray.get(ref) for ref in row] for row in product])
    print("equal:", bool((result == left @ right).all()), "trace", int(np.trace(result)))

    big = np.arange(1_000_000, dtype=np.int64)
    ref = ray.put(big)
    got = ray.get(ref)
    print("writeable:", got.flags.writeable, "copied:", np.shares_memory(got, big), "sum", int(got.sum()))
    again = ray.get(ref)
    print("one memory:", got.__array_interface__["data"][0] == again.__array_interface__["data"][0])
    del ref, again
    print("still valid:", int(got[-1]))
    print("in a task:", ray.get(describe.remote(ray.put(big), [ray.put(np.ones(300_000))])))
    small = np.ones(2)
    print("identity:", ray.get(same_object.remote([small, small, np.ones(2)])))
    try:
        got[0] = 1
    except ValueError:
        print("cannot be written")


if __name__ == "__main__":
    ray.init(num_cpus=4, object_store_memory=200 * 1024 * 1024)
    main()
