"""A gang of actors that start together or not at all: placement groups, their bundles and their end."""

import time

import ray
from ray.util.placement_group import (
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote(num_cpus=1)
class Member:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size
        self.group = []

    def meet(self, group):
        self.group = group
        return len(group)

    def value(self):
        return (self.rank + 1) ** 2

    def all_reduce(self):
        return sum(ray.get([member.value.remote() for at, member in enumerate(self.group) if at != self.rank])) + (
            self.value_here()
        )

    def value_here(self):
        return (self.rank + 1) ** 2

    def in_group(self):
        return get_current_placement_group() is not None


@ray.remote(num_cpus=1)
def inside():
    return get_current_placement_group() is not None


def last_error(member):
    """Of the first call that fails: some may still come through."""
    while True:
        try:
            ray.get(member.value.remote(), timeout=60)
        except ray.exceptions.RayActorError as error:
            return error


def strategy(group, index):
    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)


def main():
    group = placement_group([{"CPU": 1}] * 3, strategy="PACK", name="gang")
    ray.get(group.ready(), timeout=60)
    print("bundles", group.bundle_count, group.bundle_specs)
    while ray.available_resources().get("CPU") != 1:  # what is shown follows a moment later
        time.sleep(0.05)
    print("one CPU is left")

    placed = [Member.options(scheduling_strategy=strategy(group, rank), max_concurrency=4) for rank in range(3)]
    members = [member.remote(rank, 3) for rank, member in enumerate(placed)]
    print("met", ray.get([member.meet.remote(members) for member in members]))
    print("sums", ray.get([member.all_reduce.remote() for member in members]))
    print("in a group", ray.get([member.in_group.remote() for member in members]), ray.get(inside.remote()))

    too_big = placement_group([{"CPU": 3}])
    print("a second gang waits:", too_big.wait(timeout_seconds=0.5))
    remove_placement_group(group)
    print("removed:", isinstance(last_error(members[0]), ray.exceptions.ActorDiedError))
    print("then it starts:", too_big.wait(timeout_seconds=60))
    print("states", sorted(entry["state"] for entry in placement_group_table().values()))
    for bad in ([], [{"CPU": 0}], [{}]):
        try:
            placement_group(bad)
        except ValueError:
            print("refused", bad)


if __name__ == "__main__":
    ray.init(num_cpus=4, log_to_driver=False)
    main()
