"""A task that no node of the cluster can ever run waits for ever: its driver is told once, with what is missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS
from redray.resources import from_text, from_units, group_of, to_units
from redray.where import may_admit
from redray.worker.redis_link import RedisLink

MOST_QUEUES = 64


class _Node(NamedTuple):
    resources: dict[str, float]
    labels: dict[str, str]


def warn_of_infeasible(link: RedisLink, keys: Keys, judged: set[str]) -> None:
    """Compare the queues with what each node has in total, and its labels. Costs two reads, and is done only while
    something is queued that is not in `judged`. Whichever node is the first to see it says so, for all of them."""

    def with_queues(names: Any) -> None:
        fresh = [name.decode() for name in names if name.decode() not in judged] if isinstance(names, list) else []
        if fresh:
            link.plain(lambda ids: with_nodes(fresh, ids), "SMEMBERS", keys.nodes)

    def with_nodes(names: list[str], ids: Any) -> None:
        nodes: list[_Node] = []
        for id in ids:

            def on_facts(reply: Any) -> None:
                resources, labels = reply if isinstance(reply, list) else (None, None)
                nodes.append(_Node(msgspec.json.decode(resources or b"{}"), msgspec.json.decode(labels or b"{}")))
                if len(nodes) == len(ids):
                    judge(names, nodes)

            link.plain(on_facts, "HMGET", keys.node(id.decode()), "resources", "labels")

    def judge(names: list[str], nodes: list[_Node]) -> None:
        for name in names:
            kind, _, job = name.rpartition("|")
            demand, _, where = kind.partition("|")
            judged.add(name)
            if group_of(demand) is not None:
                continue  # its group waits, or has bundles that are busy
            if not any(_has(node.resources, demand) and may_admit(where, node.labels) for node in nodes):
                tell(job, kind, f"Warning: tasks or actors that need {_what(demand, where)} wait: "
                                f"{_missing(nodes, demand, where)}. They start when such a node joins.")  # fmt: skip

    def tell(job: str, kind: str, text: str) -> None:
        def if_first(reply: Any) -> None:
            if reply == 1:
                link.plain(
                    None, "XADD", keys.logs(job), "MAXLEN", "~", LIMITS["LOG_LINES"], "*",
                    "name", "scheduler", "pid", "", "host", "", "stream", "stderr", "text", text,
                )  # fmt: skip

        link.plain(if_first, "HSETNX", keys.job(job), f"warned {kind}", "1")

    link.plain(with_queues, "ZRANGE", keys.queues, 0, MOST_QUEUES - 1)


def _what(demand: str, where: str) -> str:
    return f"{demand} on a node with {where}" if where else demand


def _has(total: dict[str, float], demand: str) -> bool:
    return all(to_units(total.get(name, 0)) >= units for name, units in from_text(demand).items())


def _missing(nodes: list[_Node], demand: str, where: str) -> str:
    there = [node for node in nodes if may_admit(where, node.labels)]
    if where and not there:
        return "no node of the cluster has such labels"
    lacking = []
    for name, units in from_text(demand).items():
        most = max((node.resources.get(name, 0) for node in there), default=0)
        if to_units(most) < units:
            lacking.append(f"{from_units(units):g} {name} (the largest has {most:g})")
    return f"no node of the cluster has {' and '.join(lacking) or 'all of it at once'}"
