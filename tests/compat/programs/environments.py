"""Runtime environments: variables of a job, a task and an actor, and a folder that travels along."""

import os
import tempfile

import ray


@ray.remote
def read(*names):
    return [os.environ.get(name) for name in names]


@ray.remote
def nested():
    return ray.get(read.options(runtime_env={"env_vars": {"INNER": "i"}}).remote("JOB", "TASK", "INNER"))


@ray.remote
class Reader:
    def read(self, *names):
        return [os.environ.get(name) for name in names]


@ray.remote
def use_folder():
    import shop_prices

    with open("note.txt") as file:
        return shop_prices.price("tea"), file.read()


def main():
    print("job", ray.get(read.remote("JOB")))
    print("task", ray.get(read.options(runtime_env={"env_vars": {"TASK": "t"}}).remote("JOB", "TASK")))
    print("override", ray.get(read.options(runtime_env={"env_vars": {"JOB": "other"}}).remote("JOB")))
    print("inherited", ray.get(nested.options(runtime_env={"env_vars": {"TASK": "t"}}).remote()))
    actor = Reader.options(runtime_env={"env_vars": {"ACTOR": "a"}}).remote()
    print("actor", ray.get(actor.read.remote("JOB", "ACTOR")))
    print("folder", ray.get(use_folder.remote()))
    print("elsewhere", os.environ.get("JOB"), ray.get_runtime_context().runtime_env["env_vars"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "shop_prices.py"), "w") as file:
            file.write("def price(item):\n    return len(item)\n")
        with open(os.path.join(folder, "note.txt"), "w") as file:
            file.write("hello")
        ray.init(num_cpus=2, runtime_env={"env_vars": {"JOB": "j"}, "working_dir": folder})
        main()
        ray.shutdown()
