"""Resources: custom and fractional ones, GPU ids, what a task sees of its share, what waits for want of them."""

import os
import time

import ray


@ray.remote
def share():
    context = ray.get_runtime_context()
    return context.get_assigned_resources()


@ray.remote(num_gpus=1)
def gpu():
    return len(ray.get_gpu_ids()), os.environ["CUDA_VISIBLE_DEVICES"].count(",")


@ray.remote(num_gpus=0.5)
class HalfGpu:
    def ids(self):
        return ray.get_gpu_ids()


@ray.remote
def threads():
    return os.environ.get("OMP_NUM_THREADS")


@ray.remote
class Default:
    def share(self):
        return ray.get_runtime_context().get_assigned_resources()


def main():
    total = ray.cluster_resources()
    print("total", {name: total[name] for name in ("CPU", "GPU", "disk")})
    print("default", ray.get(share.remote()))
    print("fraction", sorted(ray.get(share.options(num_cpus=0.25, resources={"disk": 1.5}).remote()).items()))
    print("none", ray.get(share.options(num_cpus=0).remote()))
    print("gpu", ray.get(gpu.remote()))
    halves = [HalfGpu.remote() for _ in range(4)]
    ids = ray.get([half.ids.remote() for half in halves])
    print("shared", sorted(len(found) for found in ids), sorted(id for found in ids for id in found))
    while "GPU" in ray.available_resources():  # what is shown follows a moment later
        time.sleep(0.05)
    print("all taken")
    waiting = gpu.remote()
    print("waits", ray.wait([waiting], timeout=0.5)[0] == [])
    del halves
    print("then runs", ray.get(waiting, timeout=60))
    print("threads", ray.get([threads.remote(), threads.options(num_cpus=3).remote()]))
    actors = [Default.remote(), Default.options(num_cpus=2).remote()]
    print("actors", ray.get([actor.share.remote() for actor in actors]))
    impossible = share.options(resources={"unheard of": 1}).remote()
    print("infeasible", ray.wait([impossible], timeout=0.5)[0] == [])
    for bad in (dict(resources={"CPU": 1}), dict(num_gpus=1.5), dict(num_cpus="two")):
        try:
            share.options(**bad).remote()
        except (ValueError, TypeError) as error:
            print("refused", bad, type(error).__name__)


if __name__ == "__main__":
    os.environ.pop("OMP_NUM_THREADS", None)
    ray.init(num_cpus=4, num_gpus=2, resources={"disk": 2})
    main()
