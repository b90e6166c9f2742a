"""What one simple task costs Redis, counted: commands that the scripts make, and bytes while it waits.

Counts, not times: a slow machine can neither hide a slip nor fail a good change.
"""

from __future__ import annotations

import pytest

from redray.gcs import streams
from redray.gcs.client import Connection
from tests.lua.builders import DRIVER, NODE, Cluster, finish, items, packed, returned, task_id

BATCH = 100


def commands_made(connection: Connection) -> dict[str, int]:
    """Name -> how often it ran. Those a script makes are counted like a client's; EVALSHA itself is left out."""
    lines = connection.call("INFO", "commandstats").decode().splitlines()
    pairs = (line.removeprefix("cmdstat_").split(":") for line in lines if line.startswith("cmdstat_"))
    counts = {name: int(rest.split(",")[0].partition("=")[2]) for name, rest in pairs}
    return {name: count for name, count in counts.items() if name not in ("evalsha", "info", "config|resetstat")}


def spent(cluster: Cluster) -> float:
    return sum(commands_made(cluster.connection).values()) / BATCH


@pytest.fixture
def driven(bare: Cluster) -> Cluster:
    """A driver on its node, with warm scripts."""
    bare.node(NODE)
    bare.driver(DRIVER, route=NODE)
    run_batch(bare, 1_000_000, "C", 1)
    bare.connection.call("CONFIG", "RESETSTAT")
    return bare


def run_batch(cluster: Cluster, first: int, claim: str, count: int) -> None:
    ids = [task_id(first + number) for number in range(count)]
    cluster.submit(*(packed(id) for id in ids), claims=claim * count)
    if claim == "-":
        cluster.claim(free=f"CPU:{count}", limit=500)
    cluster.finish(*(finish(id) for id in ids))
    cluster.release(*(returned(id) for id in ids))


def test_a_task_that_its_node_starts_itself(driven: Cluster) -> None:
    run_batch(driven, 1, "C", BATCH)
    assert spent(driven) <= 8.5, commands_made(driven.connection)
    assert driven.names() == set()


def test_a_task_by_way_of_the_queues(driven: Cluster) -> None:
    run_batch(driven, 1, "-", BATCH)
    assert spent(driven) <= 13.5, commands_made(driven.connection)
    assert driven.names() == set()


def test_an_empty_claim(driven: Cluster) -> None:
    for _ in range(BATCH):
        driven.claim(free="CPU:4")
    assert spent(driven) <= 7.5, commands_made(driven.connection)


def test_bytes_of_a_queued_task(driven: Cluster) -> None:
    count = 5000
    before = driven.connection.call("INFO", "memory").decode()
    for first in range(0, count, 500):
        driven.submit(*(packed(task_id(first + number + 1)) for number in range(500)))
    after = driven.connection.call("INFO", "memory").decode()
    used = [int(text.split("used_memory_dataset:")[1].splitlines()[0]) for text in (before, after)]
    assert (used[1] - used[0]) / count <= 900


def test_an_item_of_a_stream(driven: Cluster) -> None:
    """From yielded to freed."""
    task = task_id(1)
    driven.submit(packed(task, num_returns=-1), claims="R")
    driven.call(NODE, streams.publish([items(task, 1, [b"Vx"] * BATCH)]))
    driven.finish(finish(task, [b"Vnone"]))
    driven.release(returned(task), *(returned(task, index) for index in range(1, BATCH + 1)))
    assert spent(driven) <= 5.5, commands_made(driven.connection)
    assert driven.names() == set()
