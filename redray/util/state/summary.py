"""`summarize_...`: how many of each there are, by name and state."""

from __future__ import annotations

from typing import Any

from redray.util.state.api import count_by, select
from redray.util.state.common import MAX_LIMIT

MIB = 2**20


def summarize_tasks(
    address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """Tasks by function: `["cluster"]["summary"][name]` has `func_or_class_name`, `type` and `state_counts`."""
    rows = select("tasks", address, None, MAX_LIMIT, timeout, False)
    summary = {
        name: {"func_or_class_name": name, "type": group[0].type, "state_counts": count_by(group, "state")}
        for name, group in _groups(rows, "func_or_class_name").items()
    }
    types = count_by(rows, "type")
    return {
        "cluster": {
            "summary": summary,
            "total_tasks": types.get("NORMAL_TASK", 0),
            "total_actor_tasks": types.get("ACTOR_TASK", 0),
            "total_actor_scheduled": types.get("ACTOR_CREATION_TASK", 0),
            "summary_by": "func_name",
        }
    }


def summarize_actors(
    address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """Actors by class: `["cluster"]["summary"][name]` has `class_name` and `state_counts`."""
    rows = select("actors", address, None, MAX_LIMIT, timeout, False)
    summary = {
        name: {"class_name": name, "state_counts": count_by(group, "state")}
        for name, group in _groups(rows, "class_name").items()
    }
    return {"cluster": {"summary": summary, "total_actors": len(rows), "summary_by": "class"}}


def summarize_objects(
    address: str | None = None, timeout: int = 30, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """Values: how many, and how large together. Where they were made is not recorded, so all are one group."""
    rows = select("objects", address, None, MAX_LIMIT, timeout, False)
    summary = {
        name: {
            "total_objects": len(group),
            "total_size_mb": sum(row.object_size for row in group) / MIB,
            "total_num_workers": len({(row.ip, row.pid) for row in group}),
            "total_num_nodes": len({row.ip for row in group}),
            "task_state_counts": count_by(group, "task_status"),
            "task_attempt_number_counts": {str(n): c for n, c in count_by(group, "attempt_number").items()},
            "ref_type_counts": count_by(group, "reference_type"),
        }
        for name, group in _groups(rows, "call_site").items()
    }
    return {
        "cluster": {
            "summary": summary,
            "total_objects": len(rows),
            "total_size_mb": sum(row.object_size for row in rows) / MIB,
            "callsite_enabled": False,
            "summary_by": "callsite",
        }
    }


def _groups(rows: list[Any], column: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups
