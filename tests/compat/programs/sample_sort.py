"""A distributed sort: samples choose the borders, partitions are exchanged as refs, nothing passes the driver."""

import numpy as np
import ray

PARTS, ROWS = 4, 50_000


@ray.remote
def load(part):
    return np.random.default_rng(part).integers(0, 1_000_000, ROWS)


@ray.remote
def sample(values):
    return values[:: ROWS // 100]


@ray.remote(num_returns=PARTS)
def split(values, borders):
    order = np.sort(values)
    return np.split(order, np.searchsorted(order, borders))


@ray.remote
def merge(*runs):
    return np.sort(np.concatenate(runs))


@ray.remote
def facts(values, above):
    return len(values), bool((np.diff(values) >= 0).all()), int(values[0]) >= above, int(values[-1])


if __name__ == "__main__":
    ray.init(num_cpus=4, object_store_memory=150 * 1024 * 1024)
    parts = [load.remote(part) for part in range(PARTS)]
    samples = np.sort(np.concatenate(ray.get([sample.remote(part) for part in parts])))
    borders = samples[len(samples) // PARTS :: len(samples) // PARTS][: PARTS - 1]
    pieces = [split.remote(part, borders) for part in parts]
    merged = [merge.remote(*column) for column in zip(*pieces)]
    last, total = -1, 0
    for part in merged:
        rows, is_sorted, above, last = ray.get(facts.remote(part, last))
        total += rows
        print("rows", rows, "sorted", is_sorted, "above the part before", above, "up to", last)
    print("rows in all", total, "checksum", sum(int(values.sum()) for values in ray.get(merged)))
