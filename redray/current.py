"""The session of this process, for those who submit: the installed one, or one begun on the spot (auto-init).

`redray.session` holds the only slot. This module keeps two things away from `.remote()`: importing the session's
machinery before anything runs, and knowing how a session begins, which is the API's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    from redray.functions import ActorDescription, ExportedFunction
    from redray.ids import ActorID, JobID, NodeID, PlacementGroupID, WorkerID
    from redray.options import ActorOptions, MethodOptions, TaskOptions
    from redray.refs import ObjectRef
    from redray.task_context import TaskContext


class Session(Protocol):
    """What the API asks of a session: the real one, the in-process one of local mode, and the fakes of tests.

    Functions are exported per session: `token` tells sessions apart and never repeats in a process. `kind` is
    "driver", "worker" or "local"; a local session gets functions unpickled.
    """

    kind: str
    token: object
    namespace: str

    @property
    def address_info(self) -> Mapping[str, Any]:
        """Of the cluster: address (without a password), node_id, session_dir, dashboard_url, ..."""

    @property
    def runtime_env(self) -> Mapping[str, Any]:
        """What this process runs in; in a driver, what its job does."""

    @property
    def job_id(self) -> JobID: ...
    @property
    def worker_id(self) -> WorkerID: ...
    @property
    def node_id(self) -> NodeID | None: ...

    def submit_task(
        self, function: ExportedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        """One ref per return value; of a generator task one element, its ObjectRefGenerator."""

    def create_actor(
        self,
        cls: ExportedFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        methods: dict[str, MethodOptions],
    ) -> ActorID:
        """The new actor, whose first handle is counted already. Raises ActorAlreadyExistsError if the name is taken."""

    def submit_actor_call(
        self, actor_id: ActorID, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> list[Any]: ...
    def get(self, refs: list[ObjectRef[Any]], timeout: float | None) -> list[Any]: ...
    def put(self, value: Any) -> ObjectRef[Any]: ...
    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]: ...
    def wait_any(
        self, waitables: list[Any], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        """`wait` for refs and generators in one list."""

    def object_locations(self, refs: list[ObjectRef[Any]]) -> list[dict[str, Any] | None]:
        """`{"node_ids", "object_size"}` of each, None for one that is not there."""

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None: ...
    def kill_actor(self, actor_id: ActorID, no_restart: bool) -> None: ...
    def lookup_actor(self, name: str, namespace: str) -> ActorDescription | None: ...
    def describe_actor(self, actor_id: ActorID) -> ActorDescription | None: ...
    def list_named_actors(self, all_namespaces: bool) -> list[dict[str, str]]: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def cluster_resources(self) -> dict[str, float]: ...
    def available_resources(self) -> dict[str, float]: ...
    def future(self, ref: ObjectRef[Any]) -> Future[Any]: ...
    def create_group(
        self,
        bundles: list[dict[str, float]],
        strategy: str,
        name: str,
        detached: bool,
        make_handle: Callable[[PlacementGroupID], Any],
    ) -> tuple[PlacementGroupID, ObjectRef[Any]]:
        """A placement group, and a ref that is ready when it is. Raises RaySystemError if the name is taken."""

    def group_ready(self, group: PlacementGroupID) -> ObjectRef[Any]: ...
    def remove_group(self, group: PlacementGroupID) -> None: ...
    def find_group(self, name: str) -> PlacementGroupID | None: ...
    def group_table(self, group: PlacementGroupID | None) -> dict[str, dict[str, Any]]: ...
    def task_context(self) -> TaskContext | None: ...
    def close(self) -> None: ...


def _lookup_first() -> Session | None:
    global _lookup
    from redray import session

    _lookup = session.current_or_none
    return _lookup()


def started() -> Session:
    """The session; RaySystemError if there is none: for what would make no sense in a cluster begun just now."""
    found = _lookup()
    if found is None:
        from redray.exceptions import RaySystemError

        raise RaySystemError("redray has not been started yet: call redray.init() first.")
    return found


_lookup: Callable[[], Session | None] = _lookup_first
_begin: Callable[[], Session] = started


def set_begin(begin: Callable[[], Session]) -> None:
    """`begin` starts a session with default settings when something is submitted and there is none."""
    global _begin
    _begin = begin


def current() -> Session:
    """The session, begun now if there is none."""
    found = _lookup()
    return found if found is not None else _begin()


def current_or_none() -> Session | None:
    return _lookup()
