"""The kinds of cluster that the API tests run on: `pytest --cluster KIND`. `make matrix` runs them all.

embedded      what `init()` starts: a private Redis and one node
tcp           a Redis on TCP with a password, and one node that joined it
three-nodes   two nodes share what a test asks for; the driver's own node has no CPUs, so its tasks run elsewhere

What a test takes for granted of one node alone it says: `ON_ONE_NODE = True` in a module gives one of the three nodes
all that its tests ask for, and the marker `one_node(reason)` leaves a test out where there are three.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import ExitStack
from typing import Any

import redray as ray
from tests.conftest import PASSWORD

_OF_A_NODE = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory")


class StartedCluster:
    """A cluster of the kind, with this process as a driver. `address` is what other drivers are given."""

    def __init__(self, kind: str, options: dict[str, Any], on_one_node: bool = False) -> None:
        self._stack = ExitStack()
        try:
            if kind == "embedded" or options.get("local_mode") or options.get("address") != "local":
                self.context = ray.init(**options)
                self.address: str = self.context.address_info["address"]
                return
            node = {name: options[name] for name in _OF_A_NODE if name in options}
            job = {name: value for name, value in options.items() if name not in (*_OF_A_NODE, "address")}
            self.address = self._tcp(node) if kind == "tcp" else self._three_nodes(node, on_one_node)
            self.context = ray.init(self.address, **job)
        except BaseException:
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """The driver first, as long as there is somebody to say goodbye to."""
        try:
            ray.shutdown()
        finally:
            self._stack.close()

    def _tcp(self, node: dict[str, Any]) -> str:
        from redray.cluster_utils import Cluster
        from redray.gcs.server import EmbeddedServer

        directory = tempfile.mkdtemp(prefix="redray-test-")
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = EmbeddedServer.start_tcp("127.0.0.1", _free_port(), PASSWORD, directory, appendonly=False)
        self._stack.callback(server.stop)
        cluster = self._stack.enter_context(Cluster(redis=server.address.url()))
        cluster.add_node(**node)
        return cluster.address

    def _three_nodes(self, node: dict[str, Any], on_one: bool) -> str:
        from redray.cluster_utils import Cluster

        cluster = self._stack.enter_context(Cluster())
        cluster.add_node(num_cpus=0)
        for share in [node, {"num_cpus": 0}] if on_one else halves(node):
            cluster.add_node(**share)
        return cluster.address


def halves(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What two nodes have that have together what `node` has. What cannot be halved goes to the first."""
    first, second = dict(node), dict(node)
    cpus = node.get("num_cpus", os.cpu_count())
    first["num_cpus"], second["num_cpus"] = cpus - cpus // 2, cpus // 2
    first["num_gpus"] = node.get("num_gpus", 0)
    second["num_gpus"], second["resources"] = 0, {}
    return [first, second]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
