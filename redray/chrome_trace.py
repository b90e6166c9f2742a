"""What ran when and where, as events that chrome://tracing and Perfetto open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redray.gcs.history import TaskEvent
from redray.gcs.schema import Outcome

_COLOURS = {Outcome.VALUE: "generic_work", Outcome.CANCELLED: "grey"}


def chrome_events(events: Iterable[TaskEvent]) -> list[dict[str, Any]]:
    """One complete event per attempt; a process per node, a thread per worker. Times are in microseconds."""
    found: list[dict[str, Any]] = []
    workers: dict[str, TaskEvent] = {}
    for event in events:
        workers.setdefault(event.worker, event)
        found.append(
            {
                "cat": f"task::{event.name}",
                "name": event.name,
                "pid": event.host,
                "tid": f"worker:{event.worker}",
                "ts": event.start_us,
                "dur": event.end_us - event.start_us,
                "ph": "X",
                "cname": _COLOURS.get(event.outcome, "bad"),
                "args": {
                    "name": event.name,
                    "task_id": event.task,
                    "attempt": event.attempt - 1,
                    "job_id": event.job,
                    "actor_id": event.actor,
                    "outcome": event.outcome,
                    "node_id": event.node,
                    "os_pid": event.pid,
                },
            }
        )
    for worker, event in workers.items():
        name = {"name": f"worker {event.pid}"}
        found.append({"name": "thread_name", "ph": "M", "pid": event.host, "tid": f"worker:{worker}", "args": name})
    return found
