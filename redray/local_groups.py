"""Placement groups without a cluster: each is there at once, and means nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from redray import refs
from redray.exceptions import RaySystemError, TaskPlacementGroupRemoved
from redray.ids import PlacementGroupID
from redray.refs import ObjectRef


class LocalGroups(refs.RefKeeper, ABC):
    def __init__(self) -> None:
        self._groups: dict[PlacementGroupID, tuple[dict[str, Any], Any]] = {}  # row, handle

    @abstractmethod
    def put(self, value: Any) -> ObjectRef[Any]: ...

    @abstractmethod
    def _next_id(self) -> bytes: ...

    def create_group(
        self,
        bundles: list[dict[str, float]],
        strategy: str,
        name: str,
        detached: bool,
        make_handle: Callable[[PlacementGroupID], Any],
    ) -> tuple[PlacementGroupID, ObjectRef[Any]]:
        group = PlacementGroupID(self._next_id())
        if name and self.find_group(name) is not None:
            raise RaySystemError(
                f"Failed to create placement group '{group.hex()}' because name '{name}' already exists."
            )
        row = {
            "placement_group_id": group.hex(),
            "name": name,
            "bundles": dict(enumerate(bundles)),
            "bundles_to_node_id": dict.fromkeys(range(len(bundles)), "local mode"),
            "strategy": strategy,
            "state": "CREATED",
            "stats": {},
        }
        self._groups[group] = row, make_handle(group)
        return group, self.group_ready(group)

    def group_ready(self, group: PlacementGroupID) -> ObjectRef[Any]:
        row, handle = self._groups.get(group, ({"state": "REMOVED"}, None))
        if row["state"] == "REMOVED":
            raise TaskPlacementGroupRemoved(f"The placement group {group.hex()} has been removed.")
        return self.put(handle)

    def remove_group(self, group: PlacementGroupID) -> None:
        if group in self._groups:
            self._groups[group][0]["state"] = "REMOVED"

    def find_group(self, name: str) -> PlacementGroupID | None:
        found = (id for id, (row, _) in self._groups.items() if row["name"] == name and row["state"] == "CREATED")
        return next(found, None)

    def group_table(self, group: PlacementGroupID | None) -> dict[str, dict[str, Any]]:
        return {id.hex(): row for id, (row, _) in self._groups.items() if group in (None, id)}
