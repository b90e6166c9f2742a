"""`list_...` and `get_...`: rows of the cluster's tables, chosen by filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

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
from redray.util.state.source import inspector
from redray.util.state.tables import TABLES

Row = TypeVar("Row", bound=StateSchema)
Filter = tuple[str, str, Any]
DEFAULT_LIMIT = 100


def select(
    what: str,
    address: str | None,
    filters: Sequence[Filter] | None,
    limit: int,
    timeout: float,
    detail: bool,
    only: Sequence[str] | None = None,
) -> list[Any]:
    """Rows of one table.

    Args:
        filters: (column, "=" or "!=", value), all of which must hold. Text is compared without regard to case.
        limit: how many rows at most, up to 10,000.
        detail: fill in the columns that cost more.
        only: the ids to look up, where they are known.

    Raises:
        ValueError: a filter that cannot be meant, or a limit out of range.
        RayStateApiException: the cluster cannot be read.
    """
    kind, id_column, read = TABLES[what]
    checked = [_check_filter(kind, one) for one in filters or ()]
    if limit > MAX_LIMIT:
        raise ValueError(f"Given limit {limit} exceeds the supported limit {MAX_LIMIT}. Use a lower limit.")
    if limit < 0:
        raise ValueError(f"A limit is a number of rows, not {limit}.")
    exact = [str(value) for column, equal, value in checked if column == id_column and equal]
    with inspector(address, timeout) as found:
        rows = read(found, only if only is not None else exact[:1] or None, detail or bool(checked))
    rows = [row for row in rows if all(_matches(row[column], value) is equal for column, equal, value in checked)]
    if not detail:
        hidden = kind.columns() - kind.base_columns()
        for row in rows:
            for column in hidden:
                setattr(row, column, None)
    return rows[:limit]


def _check_filter(kind: type[StateSchema], given: Any) -> tuple[str, bool, Any]:
    column, predicate, value = given
    if predicate not in ("=", "!="):
        raise ValueError(f"Unsupported filter predicate {predicate} is given. Available predicates: =, !=.")
    if column not in kind.columns():
        raise ValueError(
            f'The given filter column "{column}" is not supported. Supported columns: {sorted(kind.columns())}.'
        )
    return column, predicate == "=", value


def _matches(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return str(found).lower() in ("true", "1") if str(wanted).lower() in ("true", "1") else not found
    if found is None or wanted is None:
        return found is wanted or str(found or "") == str(wanted or "")
    if isinstance(found, (int, float)):
        try:
            return float(found) == float(wanted)
        except (TypeError, ValueError):
            return False
    return str(found).lower() == str(wanted).lower()


def _one(what: str, id: str, address: str | None, timeout: float) -> Any:
    rows = select(what, address, None, 1, timeout, True, only=[id])
    return rows[0] if rows else None


# ---- lists -----------------------------------------------------------------------------------------------------------
def list_actors(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """Actors that live, and dead ones while somebody has a handle: `list_actors(filters=[("state", "=", "ALIVE")])`.

    Args:
        address: of the cluster; default: the one this process is connected to.
        filters: (column, "=" or "!=", value), all of which must hold.
        limit: how many rows at most, up to 10,000.
        timeout: seconds to reach the cluster.
        detail: fill in all columns.

    Raises:
        ValueError: a filter that cannot be meant, or a limit out of range.
        RayStateApiException: the cluster cannot be read.
    """
    return select("actors", address, filters, limit, timeout, detail)


def list_tasks(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """Tasks and calls of actors. Arguments as of `list_actors`."""
    return select("tasks", address, filters, limit, timeout, detail)


def list_objects(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """Values that were put or returned and are referenced. Arguments as of `list_actors`."""
    return select("objects", address, filters, limit, timeout, detail)


def list_nodes(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """Nodes, and for an hour those that died. Arguments as of `list_actors`."""
    return select("nodes", address, filters, limit, timeout, detail)


def list_workers(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """Worker processes and drivers. Arguments as of `list_actors`."""
    return select("workers", address, filters, limit, timeout, detail)


def list_jobs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """Jobs, and for an hour those that ended. Arguments as of `list_actors`."""
    return select("jobs", address, filters, limit, timeout, detail)


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """Placement groups. Arguments as of `list_actors`."""
    return select("placement_groups", address, filters, limit, timeout, detail)


def list_runtime_envs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[RuntimeEnvState]:
    """Runtime environments of jobs. Arguments as of `list_actors`."""
    return select("runtime_envs", address, filters, limit, timeout, detail)


# ---- one row ---------------------------------------------------------------------------------------------------------
def get_actor(id: str, address: str | None = None, timeout: int = 30, _explain: bool = False) -> ActorState | None:
    """The actor with this id, with all columns; None if the cluster does not know it."""
    return cast("ActorState | None", _one("actors", id, address, timeout))


def get_task(id: Any, address: str | None = None, timeout: int = 30, _explain: bool = False) -> TaskState | None:
    """The task with this id, or the one that makes the value of a ref."""
    text = id if isinstance(id, str) else id.task_id().hex()
    return cast("TaskState | None", _one("tasks", text, address, timeout))


def get_node(id: str, address: str | None = None, timeout: int = 30, _explain: bool = False) -> NodeState | None:
    return cast("NodeState | None", _one("nodes", id, address, timeout))


def get_worker(id: str, address: str | None = None, timeout: int = 30, _explain: bool = False) -> WorkerState | None:
    return cast("WorkerState | None", _one("workers", id, address, timeout))


def get_job(id: str, address: str | None = None, timeout: int = 30, _explain: bool = False) -> JobState | None:
    return cast("JobState | None", _one("jobs", id, address, timeout))


def get_placement_group(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> PlacementGroupState | None:
    return cast("PlacementGroupState | None", _one("placement_groups", id, address, timeout))


def get_objects(id: str, address: str | None = None, timeout: int = 30, _explain: bool = False) -> list[ObjectState]:
    """What is known of one value: a list of one, or none."""
    return select("objects", address, None, DEFAULT_LIMIT, timeout, True, only=[id])


def count_by(rows: Iterable[Any], column: str) -> dict[str, int]:
    """Value of a column -> in how many rows."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row[column]] = counts.get(row[column], 0) + 1
    return counts
