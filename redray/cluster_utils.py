"""Several nodes on one machine: for tests of what happens when one of them dies, and to try a cluster out."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from redray import strategies
from redray.config import new_session_directory, spilling_places
from redray.exceptions import RaySystemError
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector
from redray.gcs.schema import NodeState
from redray.gcs.server import EmbeddedServer, remove_directory
from redray.local_cluster import Process
from redray.resources import with_memory
from redray.store.janitor import sweep

_PATIENCE = 30.0  # seconds
_POLL = 0.02  # seconds


class ClusterNode:
    """One node process of a `Cluster`."""

    def __init__(self, process: Process, node_id: str, socket_path: str) -> None:
        self.node_id = node_id
        self.socket_path = socket_path
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """kill -9: the cluster learns of it when the node's lease runs out."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: what runs may end, then the node leaves the cluster and says so."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        import psutil

        if not self.is_alive():
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            process.send_signal(number)
            process.wait(_PATIENCE)

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id}, pid={self.pid})"


class Cluster:
    """A private Redis and any number of nodes.

    Args:
        initialize_head: Start a first node at once.
        connect: Connect this process as a driver, too; needs `initialize_head`.
        head_node_args: The `add_node` arguments of that first node.
        redis: Use the Redis at this address instead of a private one; it is left as it is found, and left running.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        redis: str | None = None,
    ) -> None:
        if connect and not initialize_head:
            raise ValueError("connect=True needs a node to connect to: pass initialize_head=True too.")
        if head_node_args and not initialize_head:
            raise ValueError("head_node_args describe a first node: pass initialize_head=True too.")
        self._directory = str(new_session_directory())
        self._server = None if redis else EmbeddedServer.start(self._directory)
        self._address = Address.parse(redis) if redis else self._server.address  # type: ignore[union-attr]
        self._connected = False
        self.nodes: list[ClusterNode] = []
        try:
            if initialize_head:
                self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()
        except BaseException:
            self.shutdown()
            raise

    @property
    def address(self) -> str:
        """For `redray.init(address=...)`."""
        return self._address.url()

    def add_node(
        self,
        wait: bool = True,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = 0,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        memory: int | None = None,
        object_store_memory: int | None = None,
        object_spilling_directory: str | Sequence[str] | None = None,
    ) -> ClusterNode:
        """Start a node. With `wait`, it is known to the cluster as alive when this returns."""
        strategies.check_labels(labels or {})
        from redray.worker.launch import NodeConfig, spawn_node

        started = spawn_node(
            NodeConfig(
                redis_url=self._address.url(),
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                resources=with_memory(resources, memory),
                labels=labels or {},
                object_store_memory=object_store_memory,
                object_spilling_directory=spilling_places(object_spilling_directory),
                node_ip_address="127.0.0.1",
                temp_dir=self._directory,
                is_head=not self.nodes,
                owner_pid=os.getpid(),
            )
        )
        node = ClusterNode(Process.of("node", started.pid), started.node_id, started.socket_path)
        self.nodes.append(node)
        if wait:
            self.wait_for_nodes()
        return node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node: let it say goodbye, or kill it."""
        if node not in self.nodes:
            raise ValueError(f"{node!r} is not a node of this cluster.")
        if allow_graceful:
            node.terminate()
        else:
            node.kill()
        self.nodes.remove(node)

    def wait_for_nodes(self, timeout: float = _PATIENCE) -> None:
        """Wait until the cluster knows exactly the running nodes as alive. TimeoutError names the difference."""
        wanted = {node.node_id for node in self.nodes if node.is_alive()}
        deadline = time.monotonic() + timeout
        with contextlib.closing(Connection.open(self._address)) as connection:
            inspector = Inspector(connection)
            while True:
                found = {str(row["id"]) for row in inspector.nodes() if row["state"] == NodeState.ALIVE}
                if found == wanted:
                    return
                if time.monotonic() > deadline:
                    missing, extra = sorted(wanted - found), sorted(found - wanted)
                    raise TimeoutError(
                        f"After {timeout} s these nodes are missing: {missing}, these too many: {extra}."
                    )
                time.sleep(_POLL)

    def connect(self, namespace: str | None = None) -> None:
        """Make this process a driver of the cluster."""
        import redray

        if self._connected:
            raise RaySystemError("This process is connected to the cluster already.")
        redray.init(self.address, namespace=namespace)
        self._connected = True

    def shutdown(self) -> None:
        """End all of it. A second call does nothing."""
        if self._connected:
            import redray

            redray.shutdown()
            self._connected = False
        for node in self.nodes:
            node.kill()
        self.nodes.clear()
        sweep()
        if self._server is not None:
            self._server.stop()
            self._server = None
        remove_directory(self._directory)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
