"""How a driver gets its session: an embedded cluster of its own, or a connection to one that is there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from redray import messages, ray_alias
from redray.channel import ChannelLost, DirectChannel, NodeChannel
from redray.config import new_session_directory, spilling_places
from redray.environments import Travelling, travelling
from redray.exceptions import ClusterLostError, RaySystemError, RuntimeEnvSetupError
from redray.gcs import processes
from redray.gcs.address import Address
from redray.gcs.check import check_server, scripts_for
from redray.gcs.client import Connection, ReplyError
from redray.gcs.keys import Keys
from redray.gcs.server import EmbeddedServer
from redray.ids import JobID, WorkerID
from redray.session import Session

RECONNECT_S = 30.0


class DriverSession(Session):
    """`server` is the Redis that this driver started and takes down with itself, None when it joined a cluster."""

    def __init__(
        self, address: Address, keys: Keys, namespace: str | None, runtime_env: Travelling, log_to_driver: bool
    ) -> None:
        worker = WorkerID.from_random()
        super().__init__(
            "driver", worker, address, keys, JobID(worker[:]), namespace or f"anonymous-{os.urandom(8).hex()}"
        )
        self.server: EmbeddedServer | None = None
        self.node_log = ""
        self._keeps_lease = False
        self._log_to_driver = log_to_driver
        job_env, self._packages = runtime_env
        self._live_in(job_env)
        self._config = msgspec.msgpack.encode(_job_config(self.namespace, job_env))

    def hello(self, last: int) -> messages.Hello:
        return messages.Hello(
            messages.VERSION, "driver", self._worker, self.job_id.hex(), self._pid, last, self.namespace, self._config
        )

    def attach(self, socket_path: str) -> None:
        """Go through the node of this machine, or without one straight to Redis."""
        if socket_path:
            self._channel = NodeChannel(self._calls, self.hello, socket_path, None, self._lock)
        else:
            self._go_direct()
        if self._log_to_driver:
            from redray.log_reader import LogReader

            self.log_reader = LogReader(self._address, self._keys.logs(self.job_id.hex()), self._own_node_key())
        self._inbox.connect()
        self._wake_flusher()
        self._upload_packages(self._packages, self.job_id.hex())

    def _own_node_key(self) -> str:
        welcome = self._channel.welcome
        return str(self._keys.node(welcome.node)) if welcome is not None else ""

    def _go_direct(self) -> None:
        from redray.lease import LeaseKeeper

        self._channel = DirectChannel(self._calls, self.hello(self._calls.last_acknowledged), self._address, self._keys)
        if not self._keeps_lease:
            self._keeps_lease = True
            self.on_close.append(LeaseKeeper(self._address, self._keys, self._worker).close)

    def _reroute(self, cause: ChannelLost, channel: NodeChannel | DirectChannel) -> None:
        """The node is gone. An embedded cluster is then gone too;
        in any other, Redis takes over what was not acknowledged."""
        if self.server is not None:
            from redray.worker.launch import last_lines

            log = last_lines(self.node_log)
            text = f"The embedded cluster of this driver has ended: {cause} The node's log ends with:\n{log}"
            self._lost = ClusterLostError(text)
            raise self._lost
        with self._lock:
            if channel is not self._channel:
                return
            channel.close()
            self._reach_redis(cause)
            self._asked.clear()
            self._answer_lost_requests()

    def _reach_redis(self, cause: ChannelLost) -> None:
        """A restart of Redis is a pause; a private Redis whose directory is gone does not come back."""
        deadline = time.monotonic() + RECONNECT_S
        while True:
            try:
                self._go_direct()
                return
            except (ConnectionError, RaySystemError, ReplyError) as error:
                gone = self._address.path and not os.path.isdir(os.path.dirname(self._address.path))
                if gone or isinstance(error, RaySystemError) or time.monotonic() > deadline:
                    self._lost = ClusterLostError(f"The connection to the cluster is lost: {cause} {error}")
                    raise self._lost from error
            time.sleep(0.1)

    def _answer_lost_requests(self) -> None:
        """What the dead node was asked will never be answered."""
        for request in range(1, self._request + 1):
            if request not in self._answers:
                self._answers[request] = messages.Reply(
                    request, None, "NodeDiedError", "The node of this driver has died."
                )
        self._lagged = True

    def _check_cluster(self) -> None:
        if self.server is not None and self._inbox.fileno() < 0 and not self.server.is_alive():
            self._lost = ClusterLostError(
                "The embedded Redis of this driver has died, and the cluster's state with it."
            )
            raise self._lost

    def close(self) -> None:
        if self._closed:
            return
        if self.server is None and self._lost is None and os.getpid() == self._pid:
            self._say_goodbye()
        if self.log_reader is not None:
            self.log_reader.close()
        super().close()
        if self.server is not None and os.getpid() == self._pid:
            self.server.stop()
            if self._lost is not None:
                from redray.store.janitor import sweep

                sweep()  # a node that was killed has left its memory behind

    def _say_goodbye(self) -> None:
        """Behind everything that was said: then the job ends, and its workers and values go."""
        try:
            self._sync()
        except (ConnectionError, RaySystemError):
            return
        if self._channel.welcome is None:
            command = processes.end(self._keys, self._worker, "direct", 0, False)
            connection = Connection.open(self._address, 5.0)
            connection.run(scripts_for(connection, self._keys.tag)[command.verb], command.keys, command.args)
            connection.close()


def _job_config(namespace: str, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "sys_path": [path or os.getcwd() for path in sys.path],
        "cwd": os.getcwd(),
        "own_paths": _own_paths(),
        "runtime_env": runtime_env,
        "ray_alias": ray_alias.is_installed(),
    }


def _own_paths() -> list[str]:
    """Where the driver's own modules are: with a working_dir, its copy stands for them."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [path for path in {os.getcwd(), sys.path[0] or os.getcwd()} if path not in given]


def start_embedded(
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: list[str] | None = None,
    namespace: str | None = None,
    runtime_env: Any = None,
    log_to_driver: bool = True,
    temp_dir: str | None = None,
    metrics_port: int | None = None,
) -> Session:
    """A private Redis and one node, started beside each other: they end with this process, however it ends."""
    from redray.worker.launch import NodeConfig, begin_node

    environment = travelling(runtime_env or {})  # what cannot be packed fails before anything is started
    directory = new_session_directory(temp_dir or "")
    address = Address.parse(f"unix://{os.path.realpath(directory)}/redis.sock")
    node = begin_node(
        NodeConfig(
            redis_url=address.url(),
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            labels=labels or {},
            object_store_memory=object_store_memory,
            object_spilling_directory=spilling_places(object_spilling_directory),
            metrics_port=metrics_port,
            is_head=True,
            session_directory=str(directory),
            owner_pid=os.getpid(),
        )
    )
    server = EmbeddedServer.start(directory)
    try:
        ready = node.wait()
        session = DriverSession(server.address, Keys(), namespace, environment, log_to_driver)
        session.server, session.node_log = server, node.log
        session.on_close.append(lambda: _await_end(node.pid))
        session.attach(ready.socket_path)
    except BaseException:
        server.stop()
        raise
    session.address_info = _address_info(address, str(directory), ready.node_id)
    return session


def _await_end(node_pid: int) -> None:
    """Closing the channel ends an embedded node; this process is its parent, and reaps it."""
    import threading

    def reap() -> None:
        try:
            os.waitpid(node_pid, 0)
        except ChildProcessError:
            return

    threading.Thread(target=reap, name="redray-reaper", daemon=True).start()


def _address_info(address: Address, directory: str, node: str, host: str = "127.0.0.1") -> dict[str, Any]:
    """`host` is the address of this process' node, or "" if it has none."""
    return {
        "address": msgspec.structs.replace(address, password="").url(),
        "redis_address": msgspec.structs.replace(address, password="").url(),
        "gcs_address": msgspec.structs.replace(address, password="").url(),
        "session_dir": directory,
        "node_id": node,
        "node_ip_address": host,
        "dashboard_url": "",
        "webui_url": "",
    }


def connect(address: str, namespace: str | None = None, runtime_env: Any = None, log_to_driver: bool = True) -> Session:
    """Join the cluster at `address`. Raises ConnectionError if nobody answers there, or no node has joined it yet."""
    from redray.local_cluster import with_password

    environment = travelling(runtime_env or {})
    where = with_password(Address.parse(address))
    keys = Keys()
    connection = Connection.open(where, 5.0)
    try:
        check_server(connection)
        socket_path, node = _local_node(connection, keys)
        host = (connection.call("HGET", keys.node(node), "host") or b"").decode() if node else ""
    finally:
        connection.close()
    session = DriverSession(where, keys, namespace, environment, log_to_driver)
    try:
        session.attach(socket_path)
    except RuntimeEnvSetupError:
        session.close()
        raise
    session.address_info = _address_info(where, "", node, host)
    return session


def _local_node(connection: Connection, keys: Keys, patience: float = 10.0) -> tuple[str, str]:
    """(socket, id) of a node of this machine, ("", "") when all are elsewhere.
    Waits a moment for a first node to join."""
    deadline = time.monotonic() + patience
    while True:
        ids = sorted(id.decode() for id in connection.call("SMEMBERS", keys.nodes))
        rows = connection.pipeline([("HMGET", keys.node(id), "socket", "head") for id in ids]) if ids else []
        here = [
            (row[1] != b"1", row[0].decode(), id)
            for id, row in zip(ids, rows, strict=True)
            if row[0] and _is_ours(row[0].decode())
        ]
        if here:
            _, socket_path, node = min(here)
            return socket_path, node
        if ids:
            return "", ""
        if time.monotonic() > deadline:
            raise ConnectionError("Redis answers, but no redray node has joined it: start one with `redray worker`.")
        time.sleep(0.05)


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def find_local_cluster() -> str | None:
    """The URL of the cluster that `redray start` made or joined on this machine, if it runs."""
    from redray.local_cluster import find_local_cluster as find
    from redray.local_cluster import with_password

    cluster = find()
    return with_password(Address.parse(cluster.address)).url() if cluster is not None else None
