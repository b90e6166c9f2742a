"""A program of several files: the functions and classes of a module beside it travel by name."""

import pickle

import ray
import ray.util
import shop_library
from ray import ObjectRef
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from shop_library import Cart, PriceError, price

Receipt = type("Receipt", (), {"__init__": lambda self, total: setattr(self, "total", total)})


@ray.remote
def make_receipt(cart):
    return Receipt(ray.get(cart.total.remote()))


@ray.remote
def uses_library(items):
    import shop_library as again

    return again.MARK, sum(ray.get([again.price.remote(item) for item in items])), shop_library is again


if __name__ == "__main__":
    ray.init(num_cpus=2)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    cart = Cart.options(scheduling_strategy=here).remote()
    ray.get([cart.put.remote(item) for item in ("tea", "coffee")])
    receipt = ray.get(make_receipt.remote(cart))
    print("receipt", type(receipt) is Receipt, receipt.total)
    print("library", ray.get(uses_library.remote(["milk", "bread"])))
    print("by name", ray.get(ray.remote(shop_library.plain).remote(4)))
    try:
        ray.get(price.remote(""))
    except PriceError as error:
        print("error", isinstance(error, RayTaskError), error.args)
    ref = price.remote("salt")
    copy = pickle.loads(pickle.dumps(ref))
    print("ref", copy == ref, isinstance(copy, ObjectRef), ray.get(copy), len({ref, copy}))
    handle = pickle.loads(pickle.dumps(cart))
    print("handle", handle == cart, ray.get(handle.total.remote()))
    print("ids", bytes.fromhex(ref.hex()) == ref.binary(), ref.is_nil())
    print("options", price.options(num_cpus=2) is not price, ray.get(price.options(name="named").remote("x")))
