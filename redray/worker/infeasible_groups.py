"""A placement group that these nodes could never hold, even idle, waits: its driver is told once."""

from __future__ import annotations

from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import JobState
from redray.resources import fits, from_text, give, to_text
from redray.worker.infeasible import warn_once
from redray.worker.redis_link import RedisLink

MOST_GROUPS = 64

Totals = list[dict[str, int]]
"""Of each node: resource -> units."""


def warn_of_groups(link: RedisLink, keys: Keys) -> None:
    """Done only while groups wait. Whichever node is the first to see it says so, for all of them."""

    def with_groups(ids: Any) -> None:
        if isinstance(ids, list) and ids:
            link.plain(lambda nodes: with_nodes([id.decode() for id in ids], nodes), "SMEMBERS", keys.nodes)

    def with_nodes(groups: list[str], ids: Any) -> None:
        totals: Totals = []
        for id in ids:

            def on_resources(reply: Any) -> None:
                totals.append(from_text(to_text(msgspec.json.decode(reply or b"{}"))))
                if len(totals) == len(ids):
                    for group in groups:
                        look_at(group, totals)

            link.plain(on_resources, "HGET", keys.node(id.decode()), "resources")

    def look_at(group: str, totals: Totals) -> None:
        def judge(record: Any) -> None:
            if not isinstance(record, list) or None in record:
                return
            bundles, strategy, name, job = (text.decode() for text in record)
            reason = why_never(msgspec.json.decode(bundles), strategy, totals)
            if reason:
                tell(group, job, f"Warning: the placement group {name or group} ({strategy}) waits: {reason}.")

        link.plain(judge, "HMGET", keys.group(group), "bundles", "strategy", "name", "job")

    def tell(group: str, job: str, text: str) -> None:
        def if_listening(state: Any) -> None:
            if state == JobState.RUNNING.encode():  # a detached group may have outlived it
                warn_once(link, keys, job, group, text)

        link.plain(if_listening, "HGET", keys.job(job), "state")

    link.plain(with_groups, "ZRANGE", keys.waiting_groups, 0, MOST_GROUPS - 1)


def why_never(bundles: list[str], strategy: str, totals: Totals) -> str:
    """Why idle nodes of these totals could not hold the group, as far as that is easily seen; "" if they may."""
    for demand in bundles:
        if not any(fits(demand, total) for total in totals):
            return f"no node of the cluster is large enough for its bundle {demand}"
    if strategy == "STRICT_SPREAD" and len(bundles) > len(totals):
        return f"it needs {len(bundles)} nodes, and the cluster has {len(totals)}"
    everything: dict[str, int] = {}
    for demand in bundles:
        give(demand, everything)
    if strategy == "STRICT_PACK" and not any(_has(total, everything) for total in totals):
        return "no node of the cluster is large enough for all of its bundles together"
    cluster = {name: sum(total.get(name, 0) for total in totals) for name in everything}
    return "" if _has(cluster, everything) else "the whole cluster has not enough for all of its bundles"


def _has(total: dict[str, int], needed: dict[str, int]) -> bool:
    return all(total.get(name, 0) >= units for name, units in needed.items())
