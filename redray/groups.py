"""A session's placement groups: made, awaited, removed, looked up; and tasks and actors placed in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redray import group_view
from redray.environments import Environments
from redray.exceptions import RaySystemError
from redray.gcs import placement_groups
from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.ids import PUT_INDEX, JobID, PlacementGroupID, WorkerID
from redray.refs import ObjectRef, counted
from redray.resources import from_text, from_units, group_demand, to_text
from redray.store import serialization
from redray.strategies import PlacementGroupSchedulingStrategy
from redray.task_context import TaskContext

_BUNDLES_KEPT = 1000


class Placement(NamedTuple):
    """Where in a placement group something runs: `bundle` is an index, -1 for any; `captures`: what it starts runs
    there, too."""

    group: str
    bundle: int
    captures: bool

    def demand(self, plain: str) -> str:
        return group_demand(plain, self.group, self.bundle)

    def note(self, options: dict[str, Any]) -> None:
        """Write it into the head of a task or creation."""
        options["placement_group"] = self.group
        if self.captures:
            options["capture_child_tasks"] = True


class Groups(Environments):
    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        super().__init__(kind, worker, address, keys, job, namespace)
        self._bundles: OrderedDict[str, list[dict[str, float]]] = OrderedDict()

    # ---- made, awaited, removed --------------------------------------------------------------------------------------
    def create_group(
        self,
        bundles: list[dict[str, float]],
        strategy: str,
        name: str,
        detached: bool,
        make_handle: Callable[[PlacementGroupID], Any],
    ) -> tuple[PlacementGroupID, ObjectRef[Any]]:
        """The new group, and a ref that is ready when the group is, with the handle as its value.

        Raises RaySystemError if the name is taken.
        """
        self._check_usable()
        job = self.job_id.hex()
        record = placement_groups.GroupRecord(
            name, self.namespace, strategy, int(detached), list(map(to_text, bundles))
        )
        with self._lock:
            group = PlacementGroupID(self._next_id())
            ready = self._next_id() + PUT_INDEX.to_bytes(4, "big")
            handle = serialization.pack(serialization.serialize(make_handle(group)))
            self._flush_batch()
            command = placement_groups.create(group.hex(), ready.hex(), job, record, handle)
            number = self._call(command, wants_reply=bool(name))
            ref = self._await_group(ready)
        if name:
            reply = self._await_reply(number)
            if reply[0] != "OK":
                raise RaySystemError(
                    f"Failed to create placement group '{group.hex()}' because name '{name}' already exists."
                    if reply[0] == "EXISTS"
                    else f"The placement group was not created: {reply[0]}."
                )
        return group, ref

    def group_ready(self, group: PlacementGroupID) -> ObjectRef[Any]:
        """A ref that is ready when the group is; it fails when the group is removed."""
        self._check_usable()
        with self._lock:
            ready = self._next_id() + PUT_INDEX.to_bytes(4, "big")
            self._flush_batch()
            self._call(placement_groups.ready(group.hex(), ready.hex()))
            return self._await_group(ready)

    def _next_id(self) -> bytes:
        self._number += 1
        return self.worker_id[:] + self._number.to_bytes(4, "big")

    def _await_group(self, ready: bytes) -> ObjectRef[Any]:
        """Its news come by themselves, as those of a task do. What was said leaves as a submission would."""
        self._table.add_own(ready)
        ref: ObjectRef[Any] = counted(ready)
        if self._outstanding:
            self._wake_flusher()
        else:
            self._send_out()
        self._outstanding.add(ready)
        return ref

    def remove_group(self, group: PlacementGroupID) -> None:
        self._check_usable()
        with self._lock:
            self._flush_batch()
            self._call(placement_groups.remove(group.hex()))
            self._wake_flusher()

    # ---- looked up ---------------------------------------------------------------------------------------------------
    def find_group(self, name: str) -> PlacementGroupID | None:
        self._sync()
        id = self.query([("HGET", self._keys.group_names, f"{self.namespace}/{name}")])[0]
        return PlacementGroupID.from_hex(id.decode()) if id is not None else None

    def group_table(self, group: PlacementGroupID | None) -> dict[str, dict[str, Any]]:
        """Id -> row, of all groups or of one; without a row for one that nobody knows (any more)."""
        self._sync()
        return group_view.table(self.query, self._keys, group.hex() if group is not None else None)

    # ---- placed in them ----------------------------------------------------------------------------------------------
    def _placement(
        self, strategy: Any, context: TaskContext | None, name: str, demand: str, to_create: str = ""
    ) -> Placement | None:
        """The placement of something called `name`, checked against the bundles. `to_create` is what an actor needs to
        be placed, if that is more than it holds.

        Raises ValueError: no such bundle, or none is large enough.
        """
        found = _chosen(strategy, _options(context))
        if found is None:
            return None
        group, placement = found
        bundles = self._bundles_of(placement.group, group)
        if not -1 <= placement.bundle < len(bundles):
            raise ValueError(
                f"placement group bundle index {placement.bundle} is invalid. "
                f"Valid placement group indexes: 0-{len(bundles)}"
            )
        if not _fits_any(demand, bundles):
            raise ValueError(
                f"Cannot schedule {name} with the placement group because the resource request {_shown(demand)} "
                f"cannot fit into any bundles for the placement group, {bundles}."
            )
        if to_create and not _fits_any(to_create, bundles):
            raise ValueError(
                f"Cannot schedule {name} with the placement group because the actor requires "
                f"{_shown(to_create).get('CPU', 0):g} CPU for creation, but it cannot fit into any bundles for the "
                f"placement group, {bundles}. Consider creating a placement group with CPU resources."
            )
        return placement

    def _bundles_of(self, id: str, group: Any) -> list[dict[str, float]]:
        known = self._bundles.get(id) or getattr(group, "bundle_cache", None)
        if not known:
            row = self.group_table(PlacementGroupID.from_hex(id)).get(id)
            if row is None:
                raise ValueError(f"The placement group {id} does not exist.")
            known = list(row["bundles"].values())
        self._bundles[id] = known
        if len(self._bundles) > _BUNDLES_KEPT:
            self._bundles.popitem(last=False)
        return known


def _options(context: TaskContext | None) -> Mapping[str, Any]:
    """Of the running task, or of the actor that runs."""
    return {} if context is None else (context.creation or context.head).options


def _chosen(strategy: Any, outer: Mapping[str, Any]) -> tuple[Any, Placement] | None:
    """The group that a strategy names, or that what runs now (`outer` are its options) has captured."""
    captures = bool(outer.get("capture_child_tasks"))
    group: Any = "default"
    index = -1
    if strategy is not None:
        if not isinstance(strategy, PlacementGroupSchedulingStrategy):
            return None
        group, index = strategy.placement_group, strategy.placement_group_bundle_index
        if strategy.placement_group_capture_child_tasks is not None:
            captures = strategy.placement_group_capture_child_tasks
    if isinstance(group, str):
        id = outer.get("placement_group", "") if captures else ""
    else:
        id = "" if group is None or group.id.is_nil() else group.id.hex()
    if id:
        return group, Placement(id, index, captures)
    if index != -1:
        raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    return None


def _fits_any(demand: str, bundles: list[dict[str, float]]) -> bool:
    needed = _shown(demand)
    return any(all(bundle.get(name, 0) >= quantity for name, quantity in needed.items()) for bundle in bundles)


def _shown(demand: str) -> dict[str, float]:
    return {name: from_units(units) for name, units in from_text(demand).items()}
