"""What running code may ask about itself: the runtime context of section 9."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

import redray as ray
from tests.helpers import wait_until

pytestmark = pytest.mark.usefixtures("cluster")

ON_ONE_NODE = True


def look() -> dict[str, Any]:
    context = ray.get_runtime_context()
    return {
        "job_id": context.get_job_id(),
        "node_id": context.get_node_id(),
        "worker_id": context.get_worker_id(),
        "task_id": context.get_task_id(),
        "task_name": context.get_task_name(),
        "function_name": context.get_task_function_name(),
        "actor_id": context.get_actor_id(),
        "actor_name": context.get_actor_name(),
        "namespace": context.namespace,
        "resources": context.get_assigned_resources(),
        "accelerators": context.get_accelerator_ids(),
        "was_reconstructed": context.was_current_actor_reconstructed,
        "placement_group": context.get_placement_group_id(),
        "captures": context.should_capture_child_tasks_in_placement_group,
        "runtime_env": context.runtime_env,
        "runtime_env_text": context.get_runtime_env_string(),
        "labels": context.get_node_labels(),
        "session": context.get_session_name(),
        "temp_dir": context.get_temp_dir(),
        "address": context.gcs_address,
    }


@ray.remote
def task() -> dict[str, Any]:
    return look()


@ray.remote
class Actor:
    def __init__(self) -> None:
        self.in_init = look()

    def look(self) -> dict[str, Any]:
        return look()

    def initial(self) -> dict[str, Any]:
        return self.in_init

    def current(self) -> Any:
        return ray.get_runtime_context().current_actor

    def crash(self) -> None:
        os._exit(1)


def is_hexadecimal(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789abcdef")


def test_the_driver_has_a_job_and_no_task() -> None:
    context = ray.get_runtime_context()
    assert is_hexadecimal(context.get_job_id()) and is_hexadecimal(context.get_worker_id())
    assert context.get_node_id() in {node["NodeID"] for node in ray.nodes()}
    for get in (context.get_task_id, context.get_actor_id, context.get_task_name, context.get_actor_name):
        assert get() is None
    assert context.get_task_function_name() is None and context.get_placement_group_id() is None
    assert context.namespace and context.runtime_env == {}
    assert context.get_accelerator_ids()["GPU"] == []
    with pytest.raises(AssertionError):
        context.get_assigned_resources()
    with pytest.raises(AssertionError):
        context.was_current_actor_reconstructed  # noqa: B018
    with pytest.raises(RuntimeError):
        context.current_actor  # noqa: B018


@pytest.mark.one_node("the driver's node is the task's")
@pytest.mark.differs_from_ray("in a task, Ray's was_current_actor_reconstructed raises AttributeError")
def test_a_task_knows_its_ids_and_names() -> None:
    ref = task.remote()
    seen = ray.get(ref)
    context = ray.get_runtime_context()
    assert seen["job_id"] == context.get_job_id() and seen["node_id"] == context.get_node_id()
    assert seen["worker_id"] != context.get_worker_id()
    assert seen["task_id"] == ref.task_id().hex() and is_hexadecimal(seen["task_id"])
    assert (seen["task_name"], seen["function_name"]) == ("task", f"{__name__}.task")
    assert seen["actor_id"] is None and seen["actor_name"] is None
    assert seen["namespace"] == context.namespace
    assert seen["resources"] == {"CPU": 1}
    assert not seen["was_reconstructed"] and seen["placement_group"] is None and not seen["captures"]
    assert seen["runtime_env"] == {} and json.loads(seen["runtime_env_text"]) == {}
    assert seen["address"] == context.gcs_address


@pytest.mark.differs_from_ray("in a task, Ray's was_current_actor_reconstructed raises AttributeError")
def test_a_task_can_be_named_and_hold_more() -> None:
    seen = ray.get(task.options(name="named", num_cpus=2, num_gpus=1, resources={"disk": 1}).remote())
    assert (seen["task_name"], seen["function_name"]) == ("named", f"{__name__}.task")
    assert seen["resources"] == {"CPU": 2, "GPU": 1, "disk": 1}
    assert len(seen["accelerators"]["GPU"]) == 1


def test_an_actor_knows_itself_in_every_call() -> None:
    actor = Actor.options(name="known").remote()
    seen, initial = ray.get([actor.look.remote(), actor.initial.remote()])
    for each in (seen, initial):
        assert each["actor_id"] == actor._actor_id.hex() and each["actor_name"] == "known"
        assert each["resources"] == {} and not each["was_reconstructed"]
    assert seen["task_id"] != initial["task_id"]
    assert (seen["task_name"], initial["task_name"]) == ("Actor.look", "Actor.__init__")
    assert seen["function_name"] == f"{__name__}.Actor.look"
    assert ray.get(actor.current.remote()) == actor
    assert ray.get(actor.look.options(name="this one").remote())["task_name"] == "this one"


def test_an_actor_without_a_name_has_an_empty_one() -> None:
    assert ray.get(Actor.remote().look.remote())["actor_name"] == ""


def test_an_actor_that_was_restarted_knows_it() -> None:
    actor = Actor.options(max_restarts=1, max_task_retries=-1).remote()
    assert not ray.get(actor.look.remote())["was_reconstructed"]
    actor.crash.options(max_task_retries=0).remote()
    wait_until(lambda: ray.get(actor.look.remote())["was_reconstructed"], what="the actor to be restarted")
    assert ray.get(actor.initial.remote())["was_reconstructed"]


def test_nobody_but_an_actor_has_a_current_actor() -> None:
    @ray.remote
    def ask() -> Any:
        return ray.get_runtime_context().current_actor

    with pytest.raises(RuntimeError):
        ray.get(ask.remote())


def test_ids_as_ids(cluster: Any) -> None:
    def find() -> tuple[Any, ...]:
        context = ray.get_runtime_context()
        return context.get(), context.job_id, context.node_id, context.task_id, context.actor_id, context.worker_id

    context = ray.get_runtime_context()
    found, job, node, task, actor, worker = ray.get(ray.remote(find).remote())
    assert isinstance(job, ray.JobID) and isinstance(node, ray.NodeID) and isinstance(task, ray.TaskID)
    assert isinstance(worker, ray.WorkerID) and actor is None
    assert found == {"job_id": job, "node_id": node, "task_id": task, "namespace": context.namespace}
    assert job == context.job_id and job.hex() == context.get_job_id() and context.task_id is None


def test_a_nested_function_has_its_plain_name(cluster: Any) -> None:
    def nested() -> str | None:
        return ray.get_runtime_context().get_task_function_name()

    assert str(ray.get(ray.remote(nested).remote())).endswith(".nested")
    assert "<locals>" not in str(ray.get(ray.remote(nested).remote()))
