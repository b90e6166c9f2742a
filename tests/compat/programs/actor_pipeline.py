"""A pipeline of actors: the stages pass refs on, a bounded queue feeds a consumer at the end."""

import ray
from ray.util.queue import Empty, Full, Queue


@ray.remote
class Tokenize:
    def run(self, line):
        return line.lower().replace(",", " ").split()


@ray.remote
class Count:
    def __init__(self):
        self.lines = 0

    def run(self, words):
        self.lines += 1
        return {word: words.count(word) for word in words}

    def seen(self):
        return self.lines


@ray.remote
class Format:
    def __init__(self, queue):
        self.queue = queue

    def run(self, number, counts):
        most = max(sorted(counts), key=counts.get)
        self.queue.put(f"{number}: {most} x{counts[most]}")


LINES = [
    "the cat and the hat",
    "a rose is a rose is a rose",
    "To be, or not to be",
    "row row row your boat",
    "never, never, never give up",
] * 3


def main():
    queue = Queue(maxsize=4)
    tokenize, count, form = Tokenize.remote(), Count.remote(), Format.remote(queue)
    for number, line in enumerate(LINES):
        form.run.remote(number, count.run.remote(tokenize.run.remote(line)))
    for _ in LINES:
        print(queue.get(timeout=60))
    print("lines", ray.get(count.seen.remote()), "left", queue.qsize(), queue.empty())
    try:
        queue.get(block=False)
    except Empty:
        print("empty")
    queue.put_nowait_batch([1, 2, 3, 4])
    try:
        queue.put("fifth", timeout=0.1)
    except Full:
        print("full")
    print(queue.get_nowait_batch(3), queue.size())


if __name__ == "__main__":
    ray.init(num_cpus=4)
    main()
