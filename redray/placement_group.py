"""Placement groups: resources that are reserved together, on one node or on several, before what runs in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redray import current
from redray.exceptions import GetTimeoutError, RaySystemError, TaskPlacementGroupRemoved
from redray.ids import NodeID, PlacementGroupID
from redray.refs import ObjectRef
from redray.resources import UNIT
from redray.strategies import check_label_selector

VALID_PLACEMENT_GROUP_STRATEGIES = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}


class PlacementGroup:
    """A handle to a placement group. Made by `placement_group()`; may be pickled and passed to tasks."""

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache
        self._awaited: ObjectRef[Any] | None = None  # made with the group: to wait for it costs no call

    @staticmethod
    def empty() -> PlacementGroup:
        """Stands for no group at all."""
        return PlacementGroup(PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref that is ready when every bundle is reserved; its value is this group.

        When the group is removed first, `get` of it raises TaskPlacementGroupRemoved.
        """
        if self.is_empty:
            return current.current().put(self)
        awaited, self._awaited = self._awaited, None
        return awaited if awaited is not None else current.current().group_ready(self.id)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether every bundle is reserved within that time.

        Raises RaySystemError if there is no such group (any more).
        """
        session = current.current()
        if self._awaited is None:
            self._awaited = session.group_ready(self.id)
        try:
            session.get([self._awaited], max(0.0, timeout_seconds))
        except GetTimeoutError:
            return False
        except TaskPlacementGroupRemoved as error:
            raise RaySystemError(f"Placement group {self.id} does not exist.") from error
        self._awaited = None  # it may lose bundles or be removed: the next one asks again
        return True

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """Resource name -> quantity, for each bundle."""
        if not self.bundle_cache:
            self.bundle_cache = list(_row(self)["bundles"].values())
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self.bundle_cache)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve resources. Returns at once: see `ready()` and `wait()` of what it returns.

    Args:
        bundles: resource name -> quantity, one dict for each bundle. A bundle is never split between nodes.
        strategy: "PACK" (the default) takes few nodes, "SPREAD" many, "STRICT_PACK" exactly one, "STRICT_SPREAD"
            another one for each bundle.
        name: by which `get_placement_group` finds it, in this namespace.
        lifetime: None: it is removed when the job that made it ends; "detached": it stays until it is removed.
        topology_strategy: `{"ray.io/node-id": strategy}` is another spelling of `strategy`.

    Raises:
        ValueError: a bundle is empty or has nothing but zeros, or another argument is not one of those above.
        RaySystemError: the name is taken.
    """
    session = current.current()
    strategy = _checked_strategy(strategy, topology_strategy)
    _check_bundles(bundles)
    _check_rest(strategy, name, lifetime, _soft_target_node_id, bundle_label_selector, len(bundles))
    cache = [{resource: float(quantity) for resource, quantity in bundle.items()} for bundle in bundles]
    id, awaited = session.create_group(
        cache, strategy, name, lifetime == "detached", lambda id: PlacementGroup(id, cache)
    )
    group = PlacementGroup(id, cache)
    group._awaited = awaited
    return group


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the group's resources back. What runs in it is killed, what waits in it fails with
    TaskPlacementGroupRemoved. To remove it again does nothing."""
    assert placement_group is not None, "remove_placement_group needs a placement group."
    current.current().remove_group(placement_group.id)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of this name in this namespace. Raises ValueError if there is none."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    id = current.current().find_group(placement_group_name)
    if id is None:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")
    return PlacementGroup(id)


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """What is known of one group, or of all: id -> row. Of removed groups the latest thousand are kept."""
    if placement_group is None:
        return current.current().group_table(None)
    return current.current().group_table(placement_group.id).get(placement_group.id.hex(), {})


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the running task or actor runs in; None outside of any, and in a driver."""
    context = current.current().task_context()
    id = (context.creation or context.head).options.get("placement_group") if context is not None else None
    return PlacementGroup(PlacementGroupID.from_hex(id)) if id else None


def _row(group: PlacementGroup) -> dict[str, Any]:
    row = placement_group_table(group)
    if not row:
        raise ValueError(f"Placement group {group.id} does not exist.")
    return row


# ---- checks ----------------------------------------------------------------------------------------------------------
_NODE_LABEL = "ray.io/node-id"


def _checked_strategy(strategy: str | None, topology: dict[str, str] | None) -> str:
    if topology is not None:
        if strategy is not None:
            raise ValueError("`strategy` and `topology_strategy` cannot both be specified.")
        if not isinstance(topology, dict) or set(topology) - {_NODE_LABEL}:
            raise ValueError(f"`topology_strategy` is a dict whose only key is '{_NODE_LABEL}', not {topology!r}.")
        strategy = topology.get(_NODE_LABEL)
    if strategy is not None and strategy not in VALID_PLACEMENT_GROUP_STRATEGIES:
        known = sorted(VALID_PLACEMENT_GROUP_STRATEGIES)
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {known}.")
    return strategy or "PACK"


def _check_bundles(bundles: Any) -> None:
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    example = 'For example: `[{"CPU": 1.0}, {"GPU": 1.0}]`.'
    if not bundles:
        raise ValueError(
            f"Bundles must be a non-empty list of resource dictionaries. {example} Got empty list instead."
        )
    for bundle in bundles:
        if not isinstance(bundle, Mapping) or not all(isinstance(name, str) for name in bundle):
            raise ValueError(f"Bundles must be a non-empty list of resource dictionaries. {example}")
        if not all(isinstance(quantity, (int, float)) for quantity in bundle.values()):
            raise ValueError(f"Bundles must be a non-empty list of resource dictionaries. {example}")
        if not any(bundle.values()):
            raise ValueError(
                f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}"
            )
        for name, quantity in bundle.items():
            _check_quantity(name, quantity)


def _check_quantity(name: str, quantity: float) -> None:
    if not name or "," in name:
        raise ValueError(f"A resource's name cannot be empty or contain a comma: {name!r}.")
    if not 0 <= quantity < float("inf"):
        raise ValueError(f"The quantity of resource {name} must be a finite number, at least 0: {quantity}.")
    if 0 < quantity * UNIT < 1:
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001.")


def _check_rest(
    strategy: str,
    name: Any,
    lifetime: str | None,
    target: str | None,
    selectors: list[dict[str, str]] | None,
    count: int,
) -> None:
    if not isinstance(name, str):
        raise TypeError(f"A placement group's name must be a string, not {type(name).__name__}.")
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")
    if target:
        if strategy != "STRICT_PACK":
            raise ValueError(f"_soft_target_node_id currently only works with STRICT_PACK but got {strategy}")
        NodeID.from_hex(target)
    if selectors is not None:
        if not isinstance(selectors, list) or len(selectors) != count:
            raise ValueError(
                f"Invalid bundle label selector {selectors}. "
                "The length of `bundle_label_selector` should equal the length of `bundles`."
            )
        for selector in selectors:
            check_label_selector(selector)
        if any(selectors):
            raise NotImplementedError("bundle_label_selector is not supported yet.")
