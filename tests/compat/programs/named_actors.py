"""Named and detached actors, looked up by one driver after another on the same cluster."""

import ray
from ray.cluster_utils import Cluster
from ray.util import list_named_actors


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value


def first_driver(address):
    ray.init(address=address, namespace="shop")
    kept = Counter.options(name="kept", lifetime="detached").remote(10)
    ended = Counter.options(name="ended").remote()
    print("first", ray.get([kept.add.remote(), ended.add.remote()]), sorted(list_named_actors()))
    try:
        Counter.options(name="kept").remote()
    except ValueError as error:
        print("taken:", isinstance(error, ray.exceptions.ActorAlreadyExistsError))
    same = Counter.options(name="kept", get_if_exists=True).remote(99)
    print("same", same == kept, ray.get(same.add.remote()))
    ray.shutdown()


def second_driver(address):
    ray.init(address=address, namespace="shop")
    kept = ray.get_actor("kept")
    print("second", ray.get(kept.add.remote(5)), list_named_actors())
    try:
        ray.get_actor("ended")
    except ValueError:
        print("ended with its driver")
    ray.shutdown()


def third_driver(address):
    ray.init(address=address)
    try:
        ray.get_actor("kept")
    except ValueError:
        print("another namespace")
    print("all", list_named_actors(all_namespaces=True))
    kept = ray.get_actor("kept", namespace="shop")
    print("third", ray.get(kept.add.remote()))
    ray.kill(kept)
    while list_named_actors(all_namespaces=True):
        pass
    try:
        ray.get(kept.add.remote())
    except ray.exceptions.RayActorError as error:
        print("killed:", "ray.kill" in str(error))
    ray.shutdown()


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for driver in (first_driver, second_driver, third_driver):
        driver(cluster.address)
    cluster.shutdown()
