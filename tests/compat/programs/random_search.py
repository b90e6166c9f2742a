"""Random search with early stopping: trials are actors that report, the worse half is killed at each rung."""

import random

import ray


@ray.remote(num_cpus=0.5)
class Trial:
    def __init__(self, config):
        self.config = config
        self.x = 10.0

    def train(self, steps):
        for _ in range(steps):
            self.x -= self.config["rate"] * 2 * self.x
        return abs(self.x)


def main():
    source = random.Random(3)
    configs = {f"trial-{number}": {"rate": round(source.uniform(0.001, 0.6), 3)} for number in range(8)}
    trials = {name: Trial.remote(config) for name, config in configs.items()}
    rung = 0
    while len(trials) > 1:
        refs = {trial.train.remote(3): name for name, trial in trials.items()}
        losses, pending = {}, list(refs)
        while pending:
            ready, pending = ray.wait(pending)
            losses[refs[ready[0]]] = ray.get(ready[0])
        ranked = sorted(losses, key=losses.get)
        for name in ranked[len(ranked) // 2 :]:
            ray.kill(trials.pop(name))
        rung += 1
        print("rung", rung, "keeps", [(name, configs[name]["rate"]) for name in ranked[: len(ranked) // 2]])
    [(name, trial)] = trials.items()
    print("best", name, f"{ray.get(trial.train.remote(1)):.6f}")


if __name__ == "__main__":
    ray.init(num_cpus=4)
    main()
