"""From what Redis holds to the rows of the state API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from redray import group_view
from redray import spec as specs
from redray.gcs import schema
from redray.gcs.history import TaskEvent
from redray.gcs.inspect import Inspector, Row, quantities
from redray.gcs.submissions import Submission
from redray.util.state.common import (
    MAX_LIMIT,
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateSchema,
    TaskState,
    WorkerState,
)

ALL = 10 * MAX_LIMIT  # records that are looked at, however few of them a filter lets through

_TASK_STATES = {
    schema.TaskState.WAITING: "PENDING_ARGS_AVAIL",
    schema.TaskState.QUEUED: "PENDING_NODE_ASSIGNMENT",
    schema.TaskState.CLAIMED: "SUBMITTED_TO_WORKER",
    schema.TaskState.RUNNING: "RUNNING",
    schema.TaskState.FINISHED: "FINISHED",
    schema.TaskState.FAILED: "FAILED",
    schema.TaskState.CANCELLED: "FAILED",
}
_TASK_TYPES = {
    specs.TASK: "NORMAL_TASK",
    specs.ACTOR_CREATION: "ACTOR_CREATION_TASK",
    specs.ACTOR_CALL: "ACTOR_TASK",
}
_PID = ("state", "kind", "pid", "route", "job", "started")


# ---- actors ----------------------------------------------------------------------------------------------------------
_ACTOR = (
    "state", "class", "name", "namespace", "job", "node", "worker", "restarts", "cause", "detached", "init_failed",
)  # fmt: skip


def actors(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    rows = _records(inspector, "actor", _ACTOR, only)
    waiting = {
        row["id"]
        for row in inspector.records("task", _where(rows, state=schema.ActorState.PENDING), ("state",))
        if row["state"] == schema.TaskState.WAITING
    }
    pids = _processes(inspector, (row["worker"] for row in rows))
    heads = inspector.heads([row["id"] for row in rows]) if detail else {}
    return [_actor(row, pids, row["id"] in waiting, heads.get(row["id"])) for row in rows]


def _actor(row: Row, processes: dict[str, Row], is_waiting: bool, head: specs.TaskHead | None) -> ActorState:
    state = row["state"]
    if state == schema.ActorState.PENDING:
        state = "DEPENDENCIES_UNREADY" if is_waiting else "PENDING_CREATION"
    cause = {"actor_died_error_context": {"actor_id": row["id"], "error_message": row["cause"]}}
    return ActorState(
        actor_id=row["id"],
        class_name=row["class"],
        state=state,
        job_id=row["job"],
        name=row["name"],
        node_id=row["node"] or None,
        pid=int(processes.get(row["worker"], {}).get("pid") or 0) or None,
        ray_namespace=row["namespace"],
        serialized_runtime_env=head.options.get("runtime_env") or "{}" if head else None,
        required_resources=quantities(head.demand) if head else None,
        death_cause=cause if state == schema.ActorState.DEAD else None,
        is_detached=row["detached"] == "1",
        placement_group_id=head.options.get("placement_group") or None if head else None,
        repr_name="",
        num_restarts=int(row["restarts"] or 0),
        num_restarts_due_to_lineage_reconstruction=0,
        num_restarts_due_to_node_preemption=0,
    )


# ---- tasks -----------------------------------------------------------------------------------------------------------
_TASK = ("state", "name", "job", "node", "actor", "attempt", "kind")


def tasks(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    """Tasks that have not ended, those that have while somebody holds their value, and those that ended lately."""
    ended = {event.task: event for event in inspector.history()}
    rows = _records(inspector, "task", _TASK, only)
    heads = inspector.heads([row["id"] for row in rows])
    hosts = sorted({row["actor"] for row in rows if row["kind"] == str(specs.ACTOR_CALL)})
    classes = {row["id"]: row["class"] for row in inspector.records("actor", hosts, ("state", "class"))}
    found = [_task(row, heads.get(row["id"]), classes.get(row["actor"], "")) for row in rows]
    for task in found:
        event = ended.pop(task.task_id, None)
        if event is not None and event.attempt - 1 == task.attempt_number and task.state in ("FINISHED", "FAILED"):
            _add_history(task, event)
    wanted = ended.values() if only is None else [ended[id] for id in only if id in ended]
    return [*found, *map(_past_task, wanted)]


def _past_task(event: TaskEvent) -> TaskState:
    done = event.outcome == schema.Outcome.VALUE
    cancelled = event.outcome == schema.Outcome.CANCELLED
    task = TaskState(
        task_id=event.task,
        attempt_number=event.attempt - 1,
        name=event.name,
        state="FINISHED" if done else "FAILED",
        job_id=event.job,
        actor_id=event.actor or (event.task if event.kind == specs.ACTOR_CREATION else None),
        type=_TASK_TYPES[event.kind],
        func_or_class_name=event.name,
        parent_task_id=event.parent,
        node_id=event.node,
        worker_id=event.worker,
        worker_pid=event.pid,
        error_type=None if done else "TASK_CANCELLED" if cancelled else "TASK_EXECUTION_EXCEPTION",
        language="PYTHON",
    )
    _add_history(task, event)
    return task


def _add_history(task: TaskState, event: TaskEvent) -> None:
    task.node_id, task.worker_id, task.worker_pid = event.node, event.worker, event.pid
    task.parent_task_id = event.parent
    task.start_time_ms, task.end_time_ms = event.start_us // 1000, event.end_us // 1000


def full_name(kind: int, name: str, class_name: str) -> str:
    """`f`, `Class.__init__` or `Class.method`."""
    if kind == specs.ACTOR_CREATION:
        return f"{name}.__init__"
    return f"{class_name}.{name}" if class_name and "." not in name else name


def _task(row: Row, head: specs.TaskHead | None, class_name: str) -> TaskState:
    kind = int(row["kind"] or 0)
    name = full_name(kind, row["name"], class_name)
    error = {schema.TaskState.CANCELLED: "TASK_CANCELLED", schema.TaskState.FAILED: "TASK_EXECUTION_EXCEPTION"}
    return TaskState(
        task_id=row["id"],
        attempt_number=int(row["attempt"] or 1) - 1,
        name=name,
        state=_TASK_STATES[row["state"]],
        job_id=row["job"],
        actor_id=row["actor"] or (row["id"] if kind == specs.ACTOR_CREATION else None),
        type=_TASK_TYPES[kind],
        func_or_class_name=str(head.options.get("function_name") or name) if head else name,
        parent_task_id=head.parent if head else "",
        node_id=row["node"] or None,
        worker_id=None,
        worker_pid=None,
        error_type=error.get(row["state"]),
        language="PYTHON",
        required_resources=quantities(head.demand) if head else None,
        placement_group_id=head.options.get("placement_group") or None if head else None,
        runtime_env_info=json.loads(head.options.get("runtime_env") or "null") if head else None,
    )


# ---- objects ---------------------------------------------------------------------------------------------------------
def objects(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    rows = [row for row in inspector.objects(ALL) if only is None or row["id"] in only]
    makers = _processes(inspector, (row["id"][:16] for row in rows))
    hosts = {row["id"]: row["host"] for row in inspector.table("node", ("state", "host"), ALL)}
    return [_object(row, makers.get(row["id"][:16], {}), hosts) for row in rows]


def _object(row: Row, maker: Row, hosts: dict[str, str]) -> ObjectState:
    done = row["state"] in (schema.ObjectState.READY, schema.TaskState.FINISHED)
    return ObjectState(
        object_id=row["id"],
        object_size=int(row["size"]),
        task_status="FINISHED" if done else _TASK_STATES.get(row["state"], "NIL"),
        attempt_number=1,
        reference_type="PINNED_IN_MEMORY" if row["at"] else "LOCAL_REFERENCE",
        call_site="disabled",
        type="DRIVER" if maker.get("kind") == "driver" else "WORKER",
        pid=int(maker.get("pid") or 0),
        ip=hosts.get(maker.get("route", ""), ""),
    )


# ---- nodes, processes, jobs ------------------------------------------------------------------------------------------
_NODE = ("state", "host", "resources", "labels", "started", "ended")


def nodes(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    rows = _records(inspector, "node", _NODE, only)
    return [_node(row) for row in rows]


def _node(row: Row) -> NodeState:
    resources = json.loads(row["resources"] or "{}")
    dead = row["state"] == schema.NodeState.DEAD
    return NodeState(
        node_id=row["id"],
        node_ip=row["host"],
        is_head_node="node:__internal_head__" in resources,
        state=schema.NodeState.DEAD if dead else schema.NodeState.ALIVE,
        state_message="Its lease ran out." if dead else "",
        node_name=row["host"],
        resources_total=resources,
        labels=json.loads(row["labels"] or "{}"),
        start_time_ms=_ms(row["started"]),
        end_time_ms=_ms(row["ended"]) or 0,
    )


def workers(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    """Workers and drivers."""
    hosts = {row["id"]: row["host"] for row in inspector.table("node", ("state", "host"), ALL)}
    found = [*_processes(inspector, only).values()] if only is not None else _all_processes(inspector)
    return [
        WorkerState(
            worker_id=row["id"],
            is_alive=row["state"] != schema.JobState.ENDED,
            worker_type="DRIVER" if row["kind"] == "driver" else "WORKER",
            exit_type=None if row["state"] != schema.JobState.ENDED else "INTENDED_SYSTEM_EXIT",
            node_id=row["route"] if row["route"] != "direct" else "",
            ip=hosts.get(row["route"], ""),
            pid=int(row["pid"] or 0),
            start_time_ms=_ms(row["started"]),
        )
        for row in found
        if row["kind"] in ("driver", "worker")
    ]


def jobs(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    """Jobs of drivers, and commands that were submitted. No detached actors, each of which is a job in Redis."""
    fields = ("state", "namespace", "driver", "detached", "started", "ended")
    rows = [row for row in _records(inspector, "job", fields, only) if not row["detached"]]
    drivers = _processes(inspector, (row["driver"] for row in rows))
    environments = _environments(inspector, rows)
    found = [_job(row, drivers.get(row["driver"], {}), environments.get(row["id"], {})) for row in rows]
    submitted = [submission for submission in inspector.submissions() if only is None or submission.id in only]
    return [*found, *map(_submitted_job, submitted)]


def _submitted_job(found: Submission) -> JobState:
    return JobState(
        type="SUBMISSION",
        job_id=None,
        submission_id=found.id,
        driver_info=None,
        status=found.state,
        entrypoint=found.entrypoint,
        message=found.message or None,
        error_type=found.error or None,
        start_time=found.started or found.submitted,
        end_time=found.ended,
        metadata=found.metadata,
        runtime_env=found.runtime_env,
        driver_node_id=found.node or None,
        driver_exit_code=found.exit_code,
    )


def _job(row: Row, driver: Row, environment: dict[str, Any]) -> JobState:
    ended = row["state"] == schema.JobState.ENDED
    return JobState(
        type="DRIVER",
        job_id=row["id"],
        submission_id=None,
        driver_info={"id": row["id"], "node_ip_address": "", "pid": str(driver.get("pid", ""))},
        status="SUCCEEDED" if ended else "RUNNING",
        entrypoint="",
        message=None,
        error_type=None,
        start_time=_ms(row["started"]),
        end_time=_ms(row["ended"]),
        metadata={},
        runtime_env=environment,
        driver_node_id=driver.get("route") if driver.get("route") != "direct" else None,
    )


def runtime_envs(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    """Those of jobs, each once."""
    found: dict[str, RuntimeEnvState] = {}
    rows = inspector.table("job", ("state", "started"), ALL)
    environments = _environments(inspector, rows)
    for row in rows:
        environment = environments.get(row["id"], {})
        text = json.dumps(environment, sort_keys=True, default=str)
        if environment and text not in found:
            found[text] = RuntimeEnvState(environment, True, _ms(row["started"]), "", 0, None)
        if environment and row["state"] == schema.JobState.RUNNING:
            found[text].ref_cnt = (found[text].ref_cnt or 0) + 1
    return list(found.values())


def placement_groups(inspector: Inspector, only: Sequence[str] | None, detail: bool) -> list[StateSchema]:
    """Groups, and the latest of those that were removed."""
    rows = group_view.table(inspector.query, inspector.keys, only[0] if only else None)
    makers = _processes(inspector, (id[:16] for id in rows))
    return [_group(id, row, makers.get(id[:16], {})) for id, row in rows.items()]


def _group(id: str, row: dict[str, Any], maker: Row) -> PlacementGroupState:
    nodes = row["bundles_to_node_id"]
    return PlacementGroupState(
        placement_group_id=id,
        name=row["name"],
        creator_job_id=maker.get("job", ""),
        state=row["state"],
        bundles=[
            {"bundle_id": index, "unit_resources": bundle, "node_id": nodes.get(index) or None}
            for index, bundle in row["bundles"].items()
        ],
        stats=row["stats"],
    )


TABLES: dict[str, tuple[type[StateSchema], str, Callable[[Inspector, Sequence[str] | None, bool], list[StateSchema]]]]
TABLES = {
    "actors": (ActorState, "actor_id", actors),
    "tasks": (TaskState, "task_id", tasks),
    "objects": (ObjectState, "object_id", objects),
    "nodes": (NodeState, "node_id", nodes),
    "workers": (WorkerState, "worker_id", workers),
    "jobs": (JobState, "job_id", jobs),
    "placement_groups": (PlacementGroupState, "placement_group_id", placement_groups),
    "runtime_envs": (RuntimeEnvState, "runtime_env", runtime_envs),
}


# ---- reading ---------------------------------------------------------------------------------------------------------
def _records(inspector: Inspector, family: str, fields: Sequence[str], only: Sequence[str] | None) -> list[Row]:
    rows = inspector.table(family, fields, ALL) if only is None else inspector.records(family, only, fields)
    return sorted(rows, key=lambda row: str(row["id"]))


def _processes(inspector: Inspector, ids: Iterable[str] | None) -> dict[str, Row]:
    wanted = sorted(set(filter(None, ids or ())))
    return {row["id"]: row for row in inspector.records("process", wanted, _PID, needed="kind")}


def _all_processes(inspector: Inspector) -> list[Row]:
    return sorted(inspector.table("process", _PID, ALL, needed="kind"), key=lambda row: str(row["id"]))


def _where(rows: list[Row], **wanted: str) -> list[str]:
    return [row["id"] for row in rows if all(row[name] == value for name, value in wanted.items())]


def _environments(inspector: Inspector, rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Of jobs, out of their packed configuration."""
    packed = inspector.raw("job", [row["id"] for row in rows], "config")
    return {job: msgspec.msgpack.decode(config).get("runtime_env") or {} for job, config in packed.items() if config}


def _ms(text: str) -> int | None:
    return int(text) if text else None
