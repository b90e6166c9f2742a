"""Sums in a tree: tasks whose arguments are other tasks' results; once by hand, once by a task that calls itself."""

import ray


@ray.remote
def make(index):
    return [index * 10 + offset for offset in range(10)]


@ray.remote
def total(values):
    return sum(values)


@ray.remote
def add(left, right=0):
    return left + right


@ray.remote
def tree_sum(refs):
    """The refs arrive unresolved, because they are in a list."""
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    if len(refs) == 1:
        return ray.get(refs[0])
    middle = len(refs) // 2
    return sum(ray.get([tree_sum.remote(refs[:middle]), tree_sum.remote(refs[middle:])]))


def reduce_by_pairs(refs):
    levels = 0
    while len(refs) > 1:
        pairs = [refs[at : at + 2] for at in range(0, len(refs), 2)]
        refs = [add.remote(*pair) for pair in pairs]
        levels += 1
    return ray.get(refs[0]), levels


if __name__ == "__main__":
    ray.init(num_cpus=2)
    leaves = [total.remote(make.remote(index)) for index in range(21)]
    print("leaves", ray.get(leaves)[:4], "...")
    value, levels = reduce_by_pairs(leaves)
    print("by pairs", value, "in", levels, "levels")
    print("recursive", ray.get(tree_sum.remote(leaves)))
    print("expected", sum(range(210)))
    ray.shutdown()
