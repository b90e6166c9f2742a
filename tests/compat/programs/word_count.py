"""Map and reduce with a shuffle: each mapper returns one value per reducer (num_returns=N)."""

import zlib
from collections import Counter

import ray

TEXT = """
it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness
it was the epoch of belief it was the epoch of incredulity it was the season of light it was the season of darkness
it was the spring of hope it was the winter of despair we had everything before us we had nothing before us
"""
REDUCERS = 3


def bucket(word):
    return zlib.crc32(word.encode()) % REDUCERS


@ray.remote(num_returns=REDUCERS)
def count_words(line):
    counts = [Counter() for _ in range(REDUCERS)]
    for word in line.split():
        counts[bucket(word)][word] += 1
    return tuple(counts)


@ray.remote
def merge(*counts):
    return sum(counts, Counter())


@ray.remote(num_returns=2)
def wrong():
    return 1, 2, 3


@ray.remote(num_returns=0)
def nothing():
    pass


if __name__ == "__main__":
    ray.init(num_cpus=4)
    mapped = [count_words.remote(line) for line in TEXT.strip().splitlines()]
    merged = ray.get([merge.remote(*column) for column in zip(*mapped)])
    total = sum(merged, Counter())
    print("words", sum(total.values()), "distinct", len(total), "per reducer", [len(counts) for counts in merged])
    for word, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:5]:
        print(word, count)
    first, second = wrong.remote()
    for ref in (first, second):
        try:
            ray.get(ref)
        except ValueError as error:
            print("wrong number of values:", isinstance(error, ray.exceptions.RayTaskError))
    print("nothing:", nothing.remote())
