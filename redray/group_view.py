"""Placement groups as people see them, read from Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import GroupState
from redray.resources import bundle_resources, from_text, from_units

Query = Callable[[list[tuple[Any, ...]]], list[Any]]
_FIELDS = ("state", "name", "strategy", "bundles", "places", "attempt", "awaited", "started", "ended")
_SCHEDULING = {GroupState.CREATED: "FINISHED", GroupState.REMOVED: "REMOVED"}


def table(query: Query, keys: Keys, group: str | None = None) -> dict[str, dict[str, Any]]:
    """Id -> row, with the keys that Ray's `placement_group_table` has. Latencies are in ms.

    Of removed groups the latest thousand are kept.
    """
    ids = [group] if group is not None else _all(query, keys)
    if not ids:
        return {}
    rows = query([("HMGET", keys.group(id), *_FIELDS) for id in ids])
    return {
        id: _row(id, [text.decode() if text else "" for text in row])
        for id, row in zip(ids, rows, strict=True)
        if row[0]
    }


def _all(query: Query, keys: Keys) -> list[str]:
    living, removed = query([("SMEMBERS", keys.groups), ("LRANGE", keys.removed_groups, 0, -1)])
    return sorted({id.decode() for id in (*living, *removed)})


def _row(id: str, texts: list[str]) -> dict[str, Any]:
    row = dict(zip(_FIELDS, texts, strict=True))
    took = float(row["ended"]) - float(row["started"]) if row["ended"] else 0.0
    return {
        "placement_group_id": id,
        "name": row["name"],
        "bundles": dict(enumerate(bundles(row["bundles"]))),
        "bundles_to_node_id": {index: node.strip("-") for index, node in enumerate(row["places"].split())},
        "strategy": row["strategy"],
        "state": row["state"],
        "stats": {
            "end_to_end_creation_latency_ms": took,
            "scheduling_latency_ms": took,
            "scheduling_attempt": int(row["attempt"] or 0),
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": _SCHEDULING.get(row["state"], "QUEUED" if row["awaited"] else "NO_RESOURCES"),
        },
    }


def bundles(text: str) -> list[dict[str, float]]:
    """`["CPU:1"]` -> [{"CPU": 1.0}]"""
    return [
        {name: from_units(units) for name, units in from_text(demand).items()} for demand in msgspec.json.decode(text)
    ]


def total_resources(query: Query, keys: Keys) -> dict[str, float]:
    """What all bundles that are there have to offer, under their own names, as in Ray's `cluster_resources`."""
    ids = [id.decode() for id in query([("SMEMBERS", keys.groups)])[0]]
    found: dict[str, float] = {}
    rows = query([("HMGET", keys.group(id), "state", "bundles", "places") for id in ids]) if ids else []
    for id, (state, texts, places) in zip(ids, rows, strict=True):
        if state is None or state.decode() not in (GroupState.CREATED, GroupState.RESCHEDULING):
            continue
        demands = zip(msgspec.json.decode(texts), places.decode().split(), strict=True)
        for index, (demand, place) in enumerate(demands):
            if place != "-":
                for name, units in bundle_resources(demand, id, index).items():
                    found[name] = found.get(name, 0.0) + from_units(units)
    return found
