"""Starting a node process. Its configuration is handed over in a nameless file:
it holds secrets, and all can read command lines."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import Any

import msgspec

from redray.exceptions import RaySystemError

START_S = 30.0


class NodeConfig(msgspec.Struct, kw_only=True):
    """What a node is told when it starts. None means: find out from the machine."""

    redis_url: str
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    object_store_memory: int | None = None
    object_spilling_directory: list[str] = []  # directories, or URLs for fsspec; default: "spilled" in temp_dir
    node_ip_address: str = "127.0.0.1"
    temp_dir: str = ""
    is_head: bool = False
    tag: str = "redray"
    session_directory: str = ""  # an embedded session's: the node's socket is made there
    owner_pid: int = 0  # the process that starts this node, if the node must not outlive it
    max_workers: int | None = None  # processes for tasks; default: $REDRAY_MAX_WORKERS, else 16 per CPU and at least 64
    metrics_port: int | None = None  # where to serve metrics; 0 finds a port, None: nowhere
    prestart: int | None = None  # workers forked before anything runs; default: one per CPU


class NodeProcess(msgspec.Struct, kw_only=True):
    """A node that is ready to take work."""

    pid: int
    node_id: str
    socket_path: str


class StartingNode:
    """A node process on its way: `wait` returns when it is ready."""

    def __init__(self, pid: int, ready: int, log: str) -> None:
        self.pid = pid
        self.log = log
        self._ready = ready

    def wait(self, timeout: float = START_S) -> NodeProcess:
        """Raises RaySystemError with the node's own words if it could not start."""
        said = b""
        deadline = time.monotonic() + timeout
        try:
            while not said.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._ready], [], [], left)[0]:
                    raise RaySystemError(f"The node process {self.pid} was not ready within {timeout:g} s.")
                data = os.read(self._ready, 65536)
                if not data:
                    raise RaySystemError(f"The node process {self.pid} ended while it started: {last_lines(self.log)}")
                said += data
        finally:
            os.close(self._ready)
        answer: dict[str, Any] = msgspec.json.decode(said)
        if "error" in answer:
            raise RaySystemError(answer["error"])
        return NodeProcess(pid=self.pid, node_id=answer["node_id"], socket_path=answer["socket_path"])


def last_lines(log: str, count: int = 12) -> str:
    """The end of a node's log, which usually says why it ended."""
    try:
        with open(log, errors="replace") as file:
            return "\n".join(file.read()[-8000:].splitlines()[-count:]) or "its log is empty."
    except OSError as error:
        return f"its log cannot be read ({error.strerror})."


def begin_node(config: NodeConfig) -> StartingNode:
    """Start `python -m redray.worker` in a session of its own, so that a terminal's Ctrl-C is for the driver alone."""
    config_in = _written_down(config)
    ready_in, ready_out = os.pipe()
    log = os.path.join(config.session_directory or config.temp_dir or "/tmp", f"node-{os.urandom(4).hex()}.log")
    actions = [
        (os.POSIX_SPAWN_DUP2, config_in, 0),
        (os.POSIX_SPAWN_DUP2, ready_out, 3),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    argv = [sys.executable, "-m", "redray.worker"]
    try:
        pid = os.posix_spawn(sys.executable, argv, python_environment(), file_actions=actions, setsid=True)
    except OSError as error:
        os.close(ready_in)
        raise RaySystemError(f"{sys.executable} cannot be run: {error.strerror}.") from error
    finally:
        os.close(config_in)
        os.close(ready_out)
    return StartingNode(pid, ready_in, log)


def _written_down(config: NodeConfig) -> int:
    """A nameless file with the configuration:
    all of it is there before the node is, whatever happens to this process then."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("redray-config")
    else:
        import tempfile

        with tempfile.TemporaryFile() as nameless:
            file = os.dup(nameless.fileno())
    os.write(file, msgspec.json.encode(config))
    os.lseek(file, 0, os.SEEK_SET)
    return file


def python_environment() -> dict[str, str]:
    """For a process of ours: it must find the same redray, wherever this process found it."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def spawn_node(config: NodeConfig) -> NodeProcess:
    return begin_node(config).wait()
