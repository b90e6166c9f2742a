"""Runtime environments: section 7 of the spec, and line 96. Those of a job are in test_runtime_env_jobs.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.runtime_env import RuntimeEnv
from tests.helpers import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@ray.remote
def process() -> int:
    return os.getpid()


@ray.remote
class Keeper:
    def variables(self, *names: str) -> list[str | None]:
        return [os.environ.get(name) for name in names]

    def environment(self) -> dict[str, Any]:
        return dict(ray.get_runtime_context().runtime_env)

    def start(self, *names: str) -> list[str | None]:
        found: list[str | None] = ray.get(variables.remote(*names))
        return found


def in_env(**variables: str) -> dict[str, Any]:
    return {"env_vars": variables}


def test_env_vars_of_a_task_are_those_of_no_other() -> None:
    assert ray.get(variables.options(runtime_env=in_env(COLOUR="red")).remote("COLOUR")) == ["red"]
    assert ray.get(variables.options(runtime_env=in_env(COLOUR="blue")).remote("COLOUR")) == ["blue"]
    assert ray.get([variables.remote("COLOUR") for _ in range(8)]) == [[None]] * 8


def test_env_vars_of_an_actor_reach_its_methods_and_its_tasks() -> None:
    keeper = Keeper.options(runtime_env=RuntimeEnv(env_vars={"COLOUR": "green"})).remote()
    assert ray.get(keeper.variables.remote("COLOUR")) == ["green"]
    assert ray.get(keeper.start.remote("COLOUR")) == ["green"]
    assert ray.get(keeper.environment.remote()) == in_env(COLOUR="green")


def test_the_decorator_takes_an_environment() -> None:
    @ray.remote(runtime_env={"env_vars": {"COLOUR": "white"}})
    def colour() -> str:
        return os.environ["COLOUR"]

    assert ray.get(colour.remote()) == "white"
    assert ray.get(colour.options(runtime_env=in_env(COLOUR="black")).remote()) == "black"


def test_variables_are_set_before_the_function_is_loaded() -> None:
    """A library reads its variables when it is imported, which unpickling a function may do."""

    class ReadsWhenLoaded:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.getenv, ("COLOUR",)

    captured = ReadsWhenLoaded()

    @ray.remote(runtime_env={"env_vars": {"COLOUR": "early"}})
    def colour() -> Any:
        return captured

    assert ray.get(colour.remote()) == "early"


def test_a_variable_may_name_others() -> None:
    env = in_env(HERE="${HOME}/x:${NO_SUCH_VARIABLE}:$HOME")
    home = os.environ["HOME"]
    assert ray.get(variables.options(runtime_env=env).remote("HERE")) == [f"{home}/x::{home}"]


def test_pythonpath_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "only_on_pythonpath.py").write_text("ANSWER = 42\n")

    @ray.remote(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    def answer() -> int:
        import only_on_pythonpath  # type: ignore[import-not-found]

        return int(only_on_pythonpath.ANSWER)

    assert ray.get(answer.remote()) == 42


def test_a_worker_serves_one_environment() -> None:
    coloured = process.options(runtime_env=in_env(COLOUR="red"))
    of_it = {ray.get(coloured.remote()) for _ in range(4)}
    assert len(of_it) <= len(ray.nodes()), "the second task of an environment needs no new process"
    assert not of_it & set(ray.get([process.remote() for _ in range(4)]))


def test_many_environments_at_once() -> None:
    """More environments than CPUs, and than workers that stay: each gets its turn."""
    asked = [variables.options(runtime_env=in_env(NUMBER=str(i % 7))).remote("NUMBER") for i in range(70)]
    assert ray.get(asked, timeout=60) == [[str(i % 7)] for i in range(70)]


def test_096_variables_merge_and_a_child_overrides() -> None:
    @ray.remote(runtime_env={"env_vars": {"A": "a", "B": "b"}})
    def parent() -> list[Any]:
        child = variables.options(runtime_env=in_env(B="new", C="c"))
        return [ray.get(variables.remote("A", "B")), ray.get(child.remote("A", "B", "C")), context()]

    def context() -> Any:
        return json.loads(ray.get_runtime_context().get_runtime_env_string())

    assert ray.get(parent.remote()) == [["a", "b"], ["a", "new", "c"], in_env(A="a", B="b")]


def test_096_other_fields_are_replaced() -> None:
    from redray.runtime_env import merged

    parent = {"pip": {"packages": ["requests", "chess"]}, "working_dir": "a", "env_vars": {"A": "a", "B": "b"}}
    child = {"pip": {"packages": ["torch"]}, "env_vars": {"B": "new", "C": "c"}}
    expected = {**child, "working_dir": "a", "env_vars": {"A": "a", "B": "new", "C": "c"}}
    assert merged(parent, child) == expected
    assert merged(parent, {"uv": {"packages": ["torch"]}}).keys() == {"uv", "working_dir", "env_vars"}


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"env_vars": {"A": 1}}, TypeError),
    ({"env_vars": {1: "A"}}, TypeError),
    ({"env_vars": ["A"]}, TypeError),
    ({"env_vars": {"A=B": "1"}}, ValueError),
    ({"working_dir": 3}, TypeError),
    ({"working_dir": "/no/such/directory"}, ValueError),
    ({"working_dir": __file__}, ValueError),
    ({"working_dir": "https://example.com/x.zip"}, ValueError),
    ({"py_modules": "module"}, TypeError),
    ({"py_modules": [3]}, TypeError),
    ({"py_modules": ["/no/such/module"]}, ValueError),
    ({"excludes": "*.txt"}, TypeError),
    ({"pip": 3}, TypeError),
    ({"pip": [3]}, TypeError),
    ({"pip": "/no/such/requirements.txt"}, ValueError),
    ({"pip": {"pip_check": True}}, ValueError),
    ({"pip": {"packages": ["a"], "no_such_field": 1}}, ValueError),
    ({"pip": {"packages": ["a"], "pip_check": "yes"}}, TypeError),
    ({"uv": 3}, TypeError),
    ({"pip": ["a"], "uv": ["a"]}, ValueError),
    ({"conda": {"dependencies": ["a"]}}, ValueError),
    ({"config": 3}, TypeError),
    ({"config": {"setup_timeout_seconds": 0}}, ValueError),
    ({"config": {"setup_timeout_seconds": "1"}}, TypeError),
    ({"config": {"eager_install": 1}}, TypeError),
    ({"worker_process_setup_hook": 3}, TypeError),
    ({"conda": "an-environment"}, ValueError),
    ({"py_executable": "python3.12"}, ValueError),
    ({"container": {"image": "x"}}, ValueError),
    ({"image_uri": "x"}, ValueError),
    ({"no_such_field": 1}, ValueError),
]


@pytest.mark.differs_from_ray("unknown fields and much that cannot work are refused at the call")
@pytest.mark.parametrize(("env", "error"), BAD, ids=lambda value: str(value)[:40])
def test_a_mistake_is_an_error_at_the_call(env: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        RuntimeEnv(**env)
    with pytest.raises(error):
        variables.options(runtime_env=env)
    with pytest.raises(error):
        Keeper.options(runtime_env=env).remote()
    with pytest.raises(error):
        ray.remote(runtime_env=env)(lambda: None)


def test_a_dictionary_may_be_changed_after_the_call() -> None:
    env = in_env(COLOUR="red")
    red = variables.options(runtime_env=env)
    env["env_vars"]["COLOUR"] = "blue"
    assert ray.get(red.remote("COLOUR")) == ["red"]


def test_an_empty_environment_says_nothing() -> None:
    @ray.remote(runtime_env={"env_vars": {"A": "a"}})
    def parent() -> Any:
        return ray.get([variables.options(runtime_env=env).remote("A") for env in ({}, None, {"env_vars": {}})])

    assert ray.get(parent.remote()) == [["a"]] * 3


def test_the_hook_runs_in_each_worker_before_its_first_task() -> None:
    def hook() -> None:
        os.environ["HOOKED"] = str(int(os.environ.get("HOOKED", "0")) + 1)

    hooked = variables.options(runtime_env={"worker_process_setup_hook": hook, "env_vars": {"A": "a"}})
    assert ray.get([hooked.remote("HOOKED", "A") for _ in range(4)]) == [["1", "a"]] * 4
    keeper = Keeper.options(runtime_env={"worker_process_setup_hook": hook}).remote()
    assert ray.get(keeper.environment.remote()) == {"worker_process_setup_hook": "hook"}


def test_a_hook_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("import os\ndef set_up():\n    os.environ['HOOKED'] = 'by name'\n")
    env = {"worker_process_setup_hook": "hooks.set_up", "env_vars": {"PYTHONPATH": str(tmp_path)}}
    assert ray.get(variables.options(runtime_env=env).remote("HOOKED")) == ["by name"]


def test_a_hook_that_fails_fails_its_tasks_and_nothing_else() -> None:
    def hook() -> None:
        raise KeyError("not today")

    env = {"worker_process_setup_hook": hook}
    for _ in range(2):
        with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="not today"):
            ray.get(variables.options(runtime_env=env).remote("A"))
    keeper = Keeper.options(runtime_env=env).remote()
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="not today"):
        ray.get(keeper.variables.remote("A"))
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(keeper.variables.remote("A"))
    assert ray.get(variables.remote("A")) == [None]


def test_workers_of_an_environment_leave_when_they_are_not_needed() -> None:
    @ray.remote
    def pids() -> list[str]:
        with open(f"/proc/{os.getppid()}/task/{os.getppid()}/children") as file:
            return file.read().split()

    ray.get([variables.options(runtime_env=in_env(NUMBER=str(i))).remote("NUMBER") for i in range(6)])
    wait_until(lambda: len(ray.get(pids.remote())) <= 3, what="all workers but those of the CPUs to leave")


def test_the_class_is_a_dictionary() -> None:
    env = RuntimeEnv(env_vars={"A": "a"}, pip=["requests"])
    assert env == {"env_vars": {"A": "a"}, "pip": {"packages": ["requests"], "pip_check": False}}
    assert json.loads(json.dumps(env)) == env == RuntimeEnv.deserialize(env.serialize())
    env["working_dir"] = os.path.dirname(__file__)
    assert env["working_dir"] == os.path.dirname(__file__)
    with pytest.raises(TypeError):
        env["env_vars"] = {"A": 1}
    copied = env.to_dict()
    copied["env_vars"]["A"] = "b"
    assert env["env_vars"] == {"A": "a"} and type(copied) is dict


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_variable_is_only_seen_in_its_environment() -> None:
    """Not in the node, nor in the template that all workers are forked from."""

    @ray.remote(runtime_env={"env_vars": {"CANARY": "x"}})
    def parent_sees() -> bool:
        with open(f"/proc/{os.getppid()}/environ") as file:
            return "CANARY" in file.read()

    assert not ray.get(parent_sees.remote())


def test_099_without_gpus_cuda_visible_devices_is_left_alone() -> None:
    name = "CUDA_VISIBLE_DEVICES"
    assert ray.get(variables.options(num_gpus=1).remote(name))[0] in ("0", "1")
    assert ray.get([variables.remote(name) for _ in range(4)]) == [[os.environ.get(name)]] * 4
    assert ray.get(variables.options(num_gpus=0).remote(name)) == [os.environ.get(name)]
    assert ray.get(variables.options(runtime_env=in_env(CUDA_VISIBLE_DEVICES="7")).remote(name)) == ["7"]


def test_098_threads_that_an_environment_sets_stay() -> None:
    asked = variables.options(runtime_env=in_env(OMP_NUM_THREADS="7"))
    assert ray.get(asked.remote("OMP_NUM_THREADS")) == ["7"]
