"""What the cluster has: nodes and resources, read from Redis for the public API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from redray import group_view
from redray.gcs.keys import Keys
from redray.gcs.schema import NodeState
from redray.resources import from_text, from_units

Query = Callable[[list[tuple[Any, ...]]], list[Any]]
_FIELDS = ("state", "host", "hostname", "address", "socket", "resources", "labels", "free", "free_groups", "pid")


def _alive(query: Query, keys: Keys) -> list[tuple[str, dict[str, str]]]:
    return _rows(query, keys, query([("SMEMBERS", keys.nodes)])[0])


def _rows(query: Query, keys: Keys, found: Iterable[bytes]) -> list[tuple[str, dict[str, str]]]:
    ids = sorted(id.decode() for id in found)
    if not ids:
        return []
    rows = query([("HMGET", keys.node(id), *_FIELDS) for id in ids])
    texts = [[text.decode() if text is not None else "" for text in row] for row in rows]
    return [(id, dict(zip(_FIELDS, row, strict=True))) for id, row in zip(ids, texts, strict=True)]


def nodes(query: Query, keys: Keys) -> list[dict[str, Any]]:
    """One dictionary per node, with the keys that Ray's `nodes()` has. Those that died lately are there, too."""
    alive, dead = query([("SMEMBERS", keys.nodes), ("LRANGE", keys.dead_nodes, 0, -1)])
    found = []
    for id, row in _rows(query, keys, {*alive, *dead}):
        if not row["state"]:
            continue  # its record is gone
        _, _, port = row["address"].rpartition(":")
        is_alive = row["state"] == NodeState.ALIVE
        found.append(
            {
                "NodeID": id,
                "Alive": is_alive,
                "NodeManagerAddress": row["host"],
                "NodeManagerHostname": row["hostname"],
                "NodeName": row["host"],
                "NodeManagerPort": int(port or 0),
                "ObjectManagerPort": int(port or 0),
                "ObjectStoreSocketName": row["socket"],
                "RayletSocketName": row["socket"],
                "Resources": _sum([] if row["state"] == NodeState.DEAD else [msgspec.json.decode(row["resources"])]),
                "Labels": msgspec.json.decode(row["labels"] or "{}"),
                "alive": is_alive,
            }
        )
    return found


def total_resources(query: Query, keys: Keys) -> dict[str, float]:
    parts = [msgspec.json.decode(row["resources"]) for _, row in _alive(query, keys)]
    return _sum([*parts, group_view.total_resources(query, keys)])


def free_resources(query: Query, keys: Keys) -> dict[str, float]:
    """As each node said in its last call or renewal. A resource of which nothing is free is left out."""
    return _sum(
        {name: from_units(units) for name, units in from_text(text or "-").items()}
        for _, row in _alive(query, keys)
        for text in (row["free"], row["free_groups"])
    )


def _sum(parts: Any) -> dict[str, float]:
    """As Ray's are, without resources of quantity 0."""
    total: dict[str, float] = {}
    for part in parts:
        for name, quantity in part.items():
            total[name] = total.get(name, 0.0) + float(quantity)
    return {name: round(quantity, 4) for name, quantity in total.items() if quantity}


def object_locations(query: Query, keys: Keys, ids: list[str]) -> list[dict[str, Any] | None]:
    """Of each value the nodes that have it and its size in bytes; None where there is no such object."""
    commands: list[tuple[Any, ...]] = []
    for id in ids:
        key = keys.of_object(id)
        commands += [("HMGET", key, "state", "size", "at"), ("HSTRLEN", key, "value")]
    replies = query(commands)
    found: list[dict[str, Any] | None] = []
    for (state, size, at), inline in zip(replies[::2], replies[1::2], strict=True):
        if state is None:
            found.append(None)
        else:
            nodes = [node.decode() for node in (at or b"").split()]
            found.append({"node_ids": nodes, "object_size": int(size) if size else inline or None})
    return found
