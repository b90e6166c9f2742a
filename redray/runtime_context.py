"""What running code may know about itself. Ids are hexadecimal text, and None where there is nothing to name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redray.actor import ActorHandle
from redray.actor_shape import ActorShape
from redray.ids import ActorID, TaskID

if TYPE_CHECKING:
    from redray.current import Session
    from redray.ids import JobID, NodeID, WorkerID
    from redray.task_context import TaskContext


class RuntimeContext:
    """A view of the session, so what it answers depends on where it is asked: the task that runs now."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # ---- the process -------------------------------------------------------------------------------------------------
    def get_job_id(self) -> str:
        return self._session.job_id.hex()

    def get_node_id(self) -> str | None:
        """None for a driver on a machine without a node."""
        node_id = self._session.node_id
        return node_id.hex() if node_id is not None else None

    def get_worker_id(self) -> str:
        return self._session.worker_id.hex()

    @property
    def job_id(self) -> JobID:
        return self._session.job_id

    @property
    def node_id(self) -> NodeID | None:
        return self._session.node_id

    @property
    def worker_id(self) -> WorkerID:
        return self._session.worker_id

    @property
    def task_id(self) -> TaskID | None:
        found = self.get_task_id()
        return TaskID.from_hex(found) if found else None

    @property
    def actor_id(self) -> ActorID | None:
        found = self.get_actor_id()
        return ActorID.from_hex(found) if found else None

    @property
    def namespace(self) -> str:
        return self._session.namespace

    @property
    def gcs_address(self) -> str:
        """The address of the cluster's Redis, without its password."""
        return str(self._session.address_info.get("address") or "")

    def get_session_name(self) -> str:
        return self._session_directory().rpartition("/")[2]

    def get_temp_dir(self) -> str:
        return self._session_directory().rpartition("/")[0]

    def _session_directory(self) -> str:
        return str(self._session.address_info.get("session_dir") or "").rstrip("/")

    def get_node_labels(self) -> dict[str, str]:
        """The labels of this node."""
        here = self.get_node_id()
        for node in self._session.nodes():
            if node["NodeID"] == here:
                return dict(node.get("Labels") or {})
        return {}

    # ---- the task ----------------------------------------------------------------------------------------------------
    def get_task_id(self) -> str | None:
        context = self._session.task_context()
        return context.task if context is not None else None

    def get_task_name(self) -> str | None:
        """The option `name`, or what `get_task_function_name` says."""
        context = self._session.task_context()
        return context.name if context is not None else None

    def get_task_function_name(self) -> str | None:
        """`module.f`, or `module.Class.method`; the module of a script is the name of its file."""
        context = self._session.task_context()
        return context.function_name if context is not None else None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task or actor holds, name to quantity: {"CPU": 1.0} for a plain task, {} for a default actor.

        Raises:
            AssertionError: in a driver, as in Ray.
        """
        return self._in_worker().assigned_resources()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The accelerators that the task or actor holds: {"GPU": ["0"]}, with an empty list for none."""
        context = self._session.task_context()
        return {"GPU": [str(gpu) for gpu in context.gpus] if context is not None else []}

    def get_placement_group_id(self) -> str | None:
        """Of the group that the task or actor runs in."""
        return self._option("placement_group") or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        return bool(self._option("capture_child_tasks"))

    def is_canceled(self) -> bool:
        """Whether somebody asked to cancel the running call: for methods of sync and threaded actors to look at.

        Raises:
            RuntimeError: in a driver, and in an async actor, whose calls are cancelled by asyncio.
        """
        context = self._session.task_context()
        if context is None:
            raise RuntimeError("is_canceled() is for a task or an actor's method: a driver is not cancelled.")
        if context.creation is not None and context.creation.options.get("is_async"):
            raise RuntimeError("is_canceled() is not for async actors: their calls get asyncio.CancelledError instead.")
        return context.cancelled

    # ---- the actor ---------------------------------------------------------------------------------------------------
    def get_actor_id(self) -> str | None:
        context = self._session.task_context()
        return context.actor or None if context is not None else None

    def get_actor_name(self) -> str | None:
        """None outside an actor, "" for an actor without a name."""
        context = self._session.task_context()
        return context.actor_name if context is not None and context.actor else None

    @property
    def current_actor(self) -> ActorHandle:
        """A handle to the actor that asks. Raises RuntimeError outside an actor."""
        actor_id = self.actor_id
        if actor_id is None:
            raise RuntimeError("current_actor is available in an actor only.")
        found = self._session.describe_actor(actor_id)
        if found is None:
            raise RuntimeError(f"The cluster does not know the actor {actor_id.hex()} any more.")
        return ActorHandle(found.actor_id, ActorShape(found.class_name, found.methods))

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor was restarted before. False in a plain task.

        Raises:
            AssertionError: in a driver, as in Ray.
        """
        return self._in_worker().is_restarted

    # ---- the environment ---------------------------------------------------------------------------------------------
    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment of the task or actor; in a driver that of its job."""
        from redray.runtime_env import RuntimeEnv

        return RuntimeEnv(**self._session.runtime_env, _validate=False)

    def get_runtime_env_string(self) -> str:
        """`runtime_env` as JSON."""
        import json

        return json.dumps(self.runtime_env, sort_keys=True)

    def get(self) -> dict[str, Any]:
        """What exists here of job_id, node_id, namespace, task_id and actor_id, as ids and not as text."""
        found = {
            "job_id": self._session.job_id,
            "node_id": self._session.node_id,
            "namespace": self.namespace,
            "task_id": self.task_id,
            "actor_id": self.actor_id,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _in_worker(self) -> TaskContext:
        context = self._session.task_context()
        assert context is not None, "This method is only available in a task or an actor, not in a driver."
        return context

    def _option(self, name: str) -> Any:
        """Of the actor's creation in an actor, else of the task."""
        context = self._session.task_context()
        if context is None:
            return None
        options: Mapping[str, Any] = (context.creation or context.head).options
        return options.get(name)
