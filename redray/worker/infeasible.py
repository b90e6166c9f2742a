"""A task that no node of the cluster can ever run waits for ever: its driver is told once, with what is missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS
from redray.resources import group_of, missing
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
            there = [node.resources for node in nodes if may_admit(where, node.labels)]
            if lacking := missing(demand, there):
                what = "such labels" if where and not there else lacking
                text = f"wait: no node of the cluster has {what}. They start when such a node joins."
                warn_once(link, keys, job, kind, f"Warning: tasks or actors that need {_what(demand, where)} {text}")

    link.plain(with_queues, "ZRANGE", keys.queues, 0, MOST_QUEUES - 1)


def _what(demand: str, where: str) -> str:
    return f"{demand} on a node with {where}" if where else demand


def warn_once(link: RedisLink, keys: Keys, job: str, kind: str, text: str) -> None:
    """Tell a job's driver, unless a node has told it of this kind before."""

    def if_first(reply: Any) -> None:
        if reply == 1:
            link.plain(
                None, "XADD", keys.logs(job), "MAXLEN", "~", LIMITS["LOG_LINES"], "*",
                "name", "scheduler", "pid", "", "host", "", "stream", "stderr", "text", text,
            )  # fmt: skip

    link.plain(if_first, "HSETNX", keys.job(job), f"warned {kind}", "1")
