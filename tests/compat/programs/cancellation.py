"""Cancelling: what waits, what runs, what a task has started; what is done already; async actor calls."""

import asyncio
import os
import tempfile
import time

import ray
from ray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError


def touch(path):
    open(path, "w").close()


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.01)


@ray.remote
def hold(started):
    touch(started)
    while True:
        time.sleep(0.01)


@ray.remote
def never(path):
    touch(path)


@ray.remote
def parent(started):
    return ray.get(hold.remote(started))


@ray.remote
def after(value):
    return value


@ray.remote
class Sleeper:
    async def sleep(self, started):
        touch(started)
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            touch(started + ".cancelled")
            raise

    async def ping(self):
        return "pong"


def outcome(ref):
    try:
        return ray.get(ref, timeout=60)
    except (TaskCancelledError, RayTaskError, WorkerCrashedError) as error:
        return "cancelled" if isinstance(error, TaskCancelledError) else type(error).__name__


def main(folder):
    path = lambda name: os.path.join(folder, name)  # noqa: E731
    running = hold.remote(path("running"))
    await_file(path("running"))
    waiting, dependent = never.remote(path("never")), after.remote(running)
    ray.cancel(waiting)
    print("waiting:", outcome(waiting), "ran:", os.path.exists(path("never")))
    ray.cancel(running)
    print("running:", outcome(running), "what waits for it fails:", outcome(dependent) != "value")

    forced = hold.remote(path("forced"))
    await_file(path("forced"))
    ray.cancel(forced, force=True)
    print("forced:", outcome(forced) in ("cancelled", "WorkerCrashedError"))

    family = parent.remote(path("child"))
    await_file(path("child"))
    ray.cancel(family, recursive=True)
    print("family:", outcome(family))

    done = after.remote(3)
    ray.get(done)
    ray.cancel(done)
    print("done:", outcome(done))

    sleeper = Sleeper.remote()
    sleep = sleeper.sleep.remote(path("sleep"))
    await_file(path("sleep"))
    ray.cancel(sleep)
    print("async call:", outcome(sleep))
    await_file(path("sleep.cancelled"))
    print("the actor lives:", outcome(sleeper.ping.remote()))
    for bad in (1, sleeper):
        try:
            ray.cancel(bad)
        except TypeError:
            print("refused", type(bad).__name__)


if __name__ == "__main__":
    ray.init(num_cpus=1, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
