"""Errors across tasks and actors: their classes, causes and texts."""

import re

import ray
from ray.exceptions import RayActorError, RayTaskError


class ShopError(Exception):
    def __init__(self, item, left):
        super().__init__(item, left)
        self.item, self.left = item, left

    def __str__(self):
        return f"{self.item}: {self.left} left"


@ray.remote
def buy(item):
    raise ShopError(item, 3)


@ray.remote
def order(item):
    return ray.get(buy.remote(item))


@ray.remote
def identity(value):
    return value


@ray.remote
class Till:
    def __init__(self, fail=False):
        if fail:
            raise OSError("no paper")

    def pay(self, amount):
        return 100 / amount

    def __repr__(self):
        return "Till(1)"


def caught(call):
    try:
        return call()
    except Exception as error:
        return error


def main():
    error = caught(lambda: ray.get(buy.remote("tea")))
    print(type(error).__name__, isinstance(error, ShopError), isinstance(error, RayTaskError))
    print("attributes", error.item, error.left, type(error.cause).__name__)
    text = re.sub("\x1b.*?m", "", str(error))
    print("text", text.startswith("ray::buy()"), "ShopError: tea: 3 left" in text)

    nested = caught(lambda: ray.get(order.remote("milk")))
    print("nested", isinstance(nested, ShopError), "ray::order()" in str(nested), "ray::buy()" in str(nested))
    passed_on = caught(lambda: ray.get(identity.remote(buy.remote("salt"))))
    print("passed on", isinstance(passed_on, ShopError), isinstance(passed_on, RayTaskError))
    mixed = caught(lambda: ray.get([identity.remote(1), buy.remote("oil"), identity.remote(2)]))
    print("in a list", isinstance(mixed, ShopError))

    till = Till.remote()
    print("paid", ray.get(till.pay.remote(4)))
    divided = caught(lambda: ray.get(till.pay.remote(0)))
    print("actor", type(divided).__name__, "Till.pay()" in str(divided), "Till(1)" in str(divided))
    print("it goes on", ray.get(till.pay.remote(5)))

    broken = caught(lambda: ray.get(Till.remote(fail=True).pay.remote(1)))
    print("broken", type(broken).__name__, isinstance(broken, RayActorError), "no paper" in str(broken))
    for call in (
        lambda: buy.remote(),
        lambda: buy.remote("a", price=1),
        lambda: buy("tea"),
        lambda: till.pay(1),
        lambda: till.refund.remote(),
        lambda: ray.put(ray.put(1)),
        lambda: ray.get(3),
        lambda: buy.options(colour="red"),
        lambda: ray.remote(num_cpus=-1)(lambda: 1),
    ):
        print("at once", type(caught(call)).__name__)


if __name__ == "__main__":
    ray.init(num_cpus=2, log_to_driver=False)
    main()
