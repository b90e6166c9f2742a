"""Evolution strategies on a toy game: rollout actors try perturbed policies, the driver follows what paid."""

import numpy as np
import ray

ACTORS, PAIRS, GENERATIONS = 3, 12, 15


@ray.remote
class Rollout:
    def __init__(self, target):
        self.target = np.asarray(target)

    def play(self, policy, seed):
        noise = np.random.default_rng(seed).normal(size=policy.shape)
        up, down = self.reward(policy + 0.1 * noise), self.reward(policy - 0.1 * noise)
        return seed, (up - down) * noise

    def reward(self, policy):
        return -float(((policy - self.target) ** 2).sum())


def main():
    target = [1.0, -2.0, 0.5, 3.0]
    actors = [Rollout.remote(target) for _ in range(ACTORS)]
    policy = np.zeros(len(target))
    for generation in range(GENERATIONS):
        ref = ray.put(policy)
        seeds = range(generation * PAIRS, (generation + 1) * PAIRS)
        plays = [actors[seed % ACTORS].play.remote(ref, seed) for seed in seeds]
        gradients = dict(ray.get(plays))
        policy = policy + sum(gradients[seed] for seed in seeds) / PAIRS
        if generation % 5 == 4:
            print("generation", generation + 1, "policy", policy.round(2) + 0.0)
    print("error", f"{np.abs(policy - target).max():.3f}")


if __name__ == "__main__":
    with ray.init(num_cpus=ACTORS) as context:
        print("address is there:", bool(context.address_info["address"]))
        main()
    print("initialized:", ray.is_initialized())
