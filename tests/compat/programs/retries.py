"""What is tried again: tasks whose worker dies, chosen exceptions, actors that restart; and what is not."""

import os
import tempfile

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError, WorkerCrashedError


def attempt(path):
    """How often this was called with `path`: processes die, so a file remembers."""
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


@ray.remote
def crash_until(path, last):
    tries = attempt(path)
    if tries < last:
        os._exit(1)
    return tries


@ray.remote
def raise_until(path, last, kind):
    tries = attempt(path)
    if tries < last:
        raise kind(f"attempt {tries}")
    return tries


@ray.remote(max_restarts=1, max_task_retries=-1)
class Phoenix:
    def __init__(self, path):
        self.life = attempt(path)
        self.calls = 0

    def call(self):
        self.calls += 1
        return self.life, self.calls

    def burn(self, path):
        if attempt(path) == 1:
            os._exit(1)
        return self.life


@ray.remote
class Mortal:
    def burn(self):
        os._exit(1)


def outcome(ref):
    try:
        return ray.get(ref, timeout=60)
    except (WorkerCrashedError, RayTaskError, RayActorError) as error:
        return type(error).__name__


def main(folder):
    path = lambda name: os.path.join(folder, name)  # noqa: E731
    print("crashes twice:", outcome(crash_until.remote(path("a"), 3)))
    print("no retries:", outcome(crash_until.options(max_retries=0).remote(path("b"), 2)))
    print("one retry too few:", outcome(crash_until.options(max_retries=1).remote(path("c"), 3)))
    print("attempts:", os.path.getsize(path("c")))
    print("exceptions are not retried:", outcome(raise_until.remote(path("d"), 2, ValueError)))
    retried = raise_until.options(retry_exceptions=True, max_retries=5)
    print("unless asked for:", outcome(retried.remote(path("e"), 4, ValueError)))
    listed = raise_until.options(retry_exceptions=[KeyError])
    print("of a kind:", outcome(listed.remote(path("f"), 2, KeyError)), outcome(listed.remote(path("g"), 2, OSError)))
    phoenix = Phoenix.remote(path("h"))
    print("first life:", ray.get([phoenix.call.remote() for _ in range(2)]))
    print("burns:", outcome(phoenix.burn.remote(path("i"))))
    print("second life:", ray.get(phoenix.call.remote()))
    print("no restart:", outcome(Mortal.remote().burn.remote()) == ActorDiedError.__name__)


if __name__ == "__main__":
    ray.init(num_cpus=2)
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
