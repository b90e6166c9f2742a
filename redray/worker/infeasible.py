"""A task that no node of the cluster can ever run waits for ever: its driver is told once, with what is missing."""

from __future__ import annotations

from typing import Any

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS
from redray.resources import from_text, from_units, to_units
from redray.worker.redis_link import RedisLink

MOST_QUEUES = 64


def warn_of_infeasible(link: RedisLink, keys: Keys, warned: set[str]) -> None:
    """Compare the queues with what each node has in total.
    Costs two reads, and is done only while something is queued."""

    def with_queues(names: Any) -> None:
        fresh = [name.decode() for name in names if name.decode() not in warned] if isinstance(names, list) else []
        if fresh:
            link.plain(lambda ids: with_nodes(fresh, ids), "SMEMBERS", keys.nodes)

    def with_nodes(names: list[str], ids: Any) -> None:
        totals: list[dict[str, float]] = []
        for id in ids:

            def on_total(reply: Any) -> None:
                totals.append(msgspec.json.decode(reply) if isinstance(reply, bytes) else {})
                if len(totals) == len(ids):
                    judge(names, totals)

            link.plain(on_total, "HGET", keys.node(id.decode()), "resources")

    def judge(names: list[str], totals: list[dict[str, float]]) -> None:
        for name in names:
            demand, _, job = name.rpartition("|")
            if not any(_has(total, demand) for total in totals):
                warned.add(name)
                text = (
                    f"Warning: tasks or actors that need {demand} wait: "
                    f"no node of the cluster has {_missing(totals, demand)}. They start when such a node joins."
                )
                link.plain(
                    None, "XADD", keys.logs(job), "MAXLEN", "~", LIMITS["LOG_LINES"], "*",
                    "name", "scheduler", "pid", "", "host", "", "stream", "stderr", "text", text,
                )  # fmt: skip

    link.plain(with_queues, "ZRANGE", keys.queues, 0, MOST_QUEUES - 1)


def _has(total: dict[str, float], demand: str) -> bool:
    return all(to_units(total.get(name, 0)) >= units for name, units in from_text(demand).items())


def _missing(totals: list[dict[str, float]], demand: str) -> str:
    lacking = []
    for name, units in from_text(demand).items():
        most = max((total.get(name, 0) for total in totals), default=0)
        if to_units(most) < units:
            lacking.append(f"{from_units(units):g} {name} (the largest has {most:g})")
    return " and ".join(lacking) or "all of it at once"
