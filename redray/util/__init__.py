"""Helpers on top of the public API, where Ray has them: `redray.util.ActorPool`, `redray.util.queue`, ..."""

from __future__ import annotations

from typing import Any

from redray import current
from redray.util.actor_pool import ActorPool
from redray.util.completion import as_completed, map_unordered
from redray.util.debug import log_once
from redray.util.here import get_node_ip_address
from redray.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from redray.util.serialization import deregister_serializer, register_serializer

__all__ = [
    "ActorPool",
    "accelerators",
    "as_completed",
    "collective",
    "deregister_serializer",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "joblib",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "metrics",
    "multiprocessing",
    "placement_group",
    "placement_group_table",
    "queue",
    "register_serializer",
    "remove_placement_group",
    "scheduling_strategies",
    "state",
]

_SUBMODULES = frozenset(
    ["accelerators", "collective", "joblib", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state"]
)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of the living actors of this namespace; or of all, each as `{"name": ..., "namespace": ...}`."""
    found = current.started().list_named_actors(all_namespaces)
    if all_namespaces:
        return [{"name": actor["name"], "namespace": actor["namespace"]} for actor in found]
    return [actor["name"] for actor in found]


def __getattr__(name: str) -> Any:
    if name == "inspect_serializability":  # it needs cloudpickle, which takes long to import
        from redray.util.check_serialize import inspect_serializability

        return inspect_serializability
    if name in _SUBMODULES:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
