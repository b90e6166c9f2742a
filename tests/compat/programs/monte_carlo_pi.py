"""Pi by throwing darts, asynchronously: an actor gathers progress while the tasks run."""

import random
import time

import ray

ray.init(num_cpus=4)

TASKS, DARTS, REPORTS = 8, 20_000, 4


@ray.remote
class Progress:
    def __init__(self, total):
        self.total = total
        self.thrown = {}

    def report(self, task, thrown):
        self.thrown[task] = thrown

    def share(self):
        return sum(self.thrown.values()) / self.total


@ray.remote
def throw(task, progress):
    source = random.Random(task)
    inside = 0
    for dart in range(1, DARTS + 1):
        inside += source.random() ** 2 + source.random() ** 2 <= 1
        if dart % (DARTS // REPORTS) == 0:
            progress.report.remote(task, dart)
    return inside


progress = Progress.remote(TASKS * DARTS)
results = [throw.remote(task, progress) for task in range(TASKS)]

seen, share = [0.0], 0.0
while share < 1:
    share = ray.get(progress.share.remote())
    seen.append(share)
    time.sleep(0.01)
print("progress only grows:", seen == sorted(seen), "up to", seen[-1])

pi = 4 * sum(ray.get(results)) / (TASKS * DARTS)
print(f"pi is about {pi:.5f}")
