"""`redray.cluster_utils.Cluster`: nodes that come and go on one machine, and what the cluster knows of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector
from redray.gcs.keys import Keys
from tests.helpers import is_alive, wait_until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def states(cluster: Cluster) -> dict[str, str]:
    with contextlib.closing(Connection.open(cluster.address)) as connection:
        return {row["id"]: row["state"] for row in Inspector(connection).nodes()}


def test_nodes_that_were_added_are_alive(cluster: Cluster) -> None:
    first = cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=2, num_gpus=1, resources={"disk": 3}, labels={"zone": "b"})
    assert states(cluster) == {first.node_id: "ALIVE", second.node_id: "ALIVE"}
    with contextlib.closing(Connection.open(cluster.address)) as connection:
        rows = {row["id"]: row["resources"] for row in Inspector(connection).nodes()}
    assert rows[first.node_id]["CPU"] == 1
    assert (rows[second.node_id]["CPU"], rows[second.node_id]["GPU"], rows[second.node_id]["disk"]) == (2, 1, 3)


def test_a_node_that_leaves_says_so(cluster: Cluster) -> None:
    stays, leaves = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    cluster.remove_node(leaves)
    assert not leaves.is_alive()
    cluster.wait_for_nodes(timeout=3)  # well before a lease could have run out
    assert states(cluster)[stays.node_id] == "ALIVE"


def test_101_a_killed_node_is_noticed_within_ten_seconds(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    killed = cluster.add_node(num_cpus=1)
    cluster.remove_node(killed, allow_graceful=False)
    assert not is_alive(killed.pid)
    assert states(cluster)[killed.node_id] == "ALIVE", "nobody can know of a kill -9 at once"
    cluster.wait_for_nodes(timeout=10)


def test_work_runs_where_its_resources_are(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, resources={"here": 1})
    there = cluster.add_node(num_cpus=1, resources={"there": 1})
    cluster.connect()

    @ray.remote(resources={"there": 1})
    def where() -> str:
        return str(ray.get_runtime_context().get_node_id())

    assert ray.get(where.remote(), timeout=30) == there.node_id


def test_shutdown_leaves_nothing() -> None:
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    (node,) = cluster.nodes
    directory = os.path.dirname(cluster.address.removeprefix("unix://"))
    assert ray.is_initialized() and os.path.isdir(directory)
    cluster.shutdown()
    assert not ray.is_initialized()
    assert not is_alive(node.pid)
    wait_until(lambda: not os.path.exists(directory), what="the directory of the cluster to be removed")
    cluster.shutdown()  # a second time is fine


@pytest.mark.parametrize("arguments", [{"connect": True}, {"head_node_args": {"num_cpus": 1}}])
def test_arguments_that_need_a_head(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="initialize_head=True"):
        Cluster(**arguments)  # type: ignore[arg-type]


def test_a_driver_knows_the_address_of_its_node(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=1)
    with contextlib.closing(Connection.open(cluster.address)) as connection:
        connection.call("HSET", Keys().node(node.node_id), "host", "10.1.2.3")  # as that of a node on a network
    try:
        assert ray.init(cluster.address).address_info["node_ip_address"] == "10.1.2.3"
    finally:
        ray.shutdown()
