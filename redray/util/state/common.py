"""The rows of the state API. A field can be read as an attribute or as an item: `row.state`, `row["state"]`.

Fields marked as detail are there with `detail=True` and in `get_...`, and left out otherwise.
"""

# ruff: noqa: RUF009  (detail() is dataclasses.field(), under a shorter name)
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_LIMIT = 10_000


def detail(default: Any = None) -> Any:
    return field(default=default, metadata={"detail": True})


@dataclass
class StateSchema:
    """A row, with the read-only half of a dict's interface."""

    @classmethod
    def columns(cls) -> set[str]:
        return {column.name for column in dataclasses.fields(cls)}

    list_columns = columns

    @classmethod
    def base_columns(cls) -> set[str]:
        return {column.name for column in dataclasses.fields(cls) if not column.metadata.get("detail")}

    @classmethod
    def detail_columns(cls) -> set[str]:
        return cls.columns()

    def asdict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __getitem__(self, key: str) -> Any:
        if key not in self.columns():
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default) if key in self.columns() else default

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.columns()

    def keys(self) -> list[str]:
        return [column.name for column in dataclasses.fields(self)]

    def values(self) -> list[Any]:
        return [self[name] for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.keys()]


@dataclass
class ActorState(StateSchema):
    """`state` is DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD."""

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str
    node_id: str | None
    pid: int | None
    ray_namespace: str
    serialized_runtime_env: str | None = detail()
    required_resources: dict[str, float] | None = detail()
    death_cause: dict[str, Any] | None = detail()
    is_detached: bool | None = detail()
    placement_group_id: str | None = detail()
    repr_name: str | None = detail()
    num_restarts: int | None = detail()
    num_restarts_due_to_lineage_reconstruction: int | None = detail()
    num_restarts_due_to_node_preemption: int | None = detail()
    call_site: str | None = detail()
    label_selector: dict[str, str] | None = detail()
    fallback_strategy: list[dict[str, Any]] | None = detail()


@dataclass
class TaskState(StateSchema):
    """`state` is PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, FINISHED or FAILED; `type`
    NORMAL_TASK, ACTOR_CREATION_TASK or ACTOR_TASK. Times are in ms since the epoch."""

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str
    node_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    language: str | None = detail()
    required_resources: dict[str, float] | None = detail()
    runtime_env_info: dict[str, Any] | None = detail()
    placement_group_id: str | None = detail()
    events: list[dict[str, Any]] | None = detail()
    profiling_data: dict[str, Any] | None = detail()
    creation_time_ms: int | None = detail()
    start_time_ms: int | None = detail()
    end_time_ms: int | None = detail()
    task_log_info: dict[str, Any] | None = detail()
    error_message: str | None = detail()
    is_debugger_paused: bool | None = detail()
    call_site: str | None = detail()
    label_selector: dict[str, str] | None = detail()
    fallback_strategy: list[dict[str, Any]] | None = detail()


@dataclass
class ObjectState(StateSchema):
    """One row per value. `pid`, `ip` and `type` are of the process that put it, or called the task that returns it."""

    object_id: str
    object_size: int
    task_status: str
    attempt_number: int
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str


@dataclass
class NodeState(StateSchema):
    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: str | None
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str]
    start_time_ms: int | None = detail()
    end_time_ms: int | None = detail()


@dataclass
class JobState(StateSchema):
    """A driver's job, or one submitted with `redray.job_submission`."""

    type: str
    job_id: str | None
    submission_id: str | None
    driver_info: dict[str, Any] | None
    status: str
    entrypoint: str
    message: str | None
    error_type: str | None
    start_time: int | None
    end_time: int | None
    metadata: dict[str, str]
    runtime_env: dict[str, Any]
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


@dataclass
class WorkerState(StateSchema):
    """A process: `worker_type` is WORKER or DRIVER."""

    worker_id: str
    is_alive: bool
    worker_type: str
    exit_type: str | None
    node_id: str
    ip: str
    pid: int
    exit_detail: str | None = detail()
    worker_launch_time_ms: int | None = detail()
    worker_launched_time_ms: int | None = detail()
    start_time_ms: int | None = detail()
    end_time_ms: int | None = detail()
    debugger_port: int | None = detail()
    num_paused_threads: int | None = detail()


@dataclass
class PlacementGroupState(StateSchema):
    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
    bundles: list[dict[str, Any]] | None = detail()
    is_detached: bool | None = detail()
    stats: dict[str, Any] | None = detail()
    topology_strategy: dict[str, Any] | None = detail()
    topology_assignments: dict[str, Any] | None = detail()


@dataclass
class RuntimeEnvState(StateSchema):
    runtime_env: dict[str, Any]
    success: bool
    creation_time_ms: float | None
    node_id: str
    ref_cnt: int | None = detail()
    error: str | None = detail()
