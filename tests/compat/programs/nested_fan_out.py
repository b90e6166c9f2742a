"""Tasks that start tasks, deeper than there are CPUs: a worker that waits gives its CPU to what it waits for."""

import ray


@ray.remote
def fib(n):
    if n < 2:
        return n
    return sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@ray.remote
def merge_sort(values):
    if len(values) <= 4:
        return sorted(values)
    middle = len(values) // 2
    left, right = ray.get([merge_sort.remote(values[:middle]), merge_sort.remote(values[middle:])])
    merged = []
    while left and right:
        merged.append(left.pop(0) if left[0] <= right[0] else right.pop(0))
    return merged + left + right


@ray.remote
def fan_out(width, depth):
    """Returns refs, unfetched: a ref in a value travels as a ref."""
    if depth == 0:
        return 1
    return [fan_out.remote(width, depth - 1) for _ in range(width)]


def count(ref):
    value = ray.get(ref)
    return value if isinstance(value, int) else sum(map(count, value))


@ray.remote
class Boss:
    def __init__(self):
        self.helpers = [Helper.remote(number) for number in range(3)]

    def ask(self, question):
        return ray.get([helper.answer.remote(question) for helper in self.helpers])


@ray.remote
class Helper:
    def __init__(self, number):
        self.number = number

    def answer(self, question):
        return ray.get(fib.remote(question + self.number))


if __name__ == "__main__":
    ray.init(num_cpus=2)
    print("fib", ray.get([fib.remote(n) for n in range(8)]))
    values = [(7 * at) % 31 for at in range(31)]
    print("sorted", ray.get(merge_sort.remote(values)) == sorted(values))
    print("leaves", count(fan_out.remote(3, 3)))
    print("boss", ray.get(Boss.remote().ask.remote(3)))
