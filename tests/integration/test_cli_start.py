"""`redray start` around the node, which is a stand-in here: Redis, the password, the record and the next steps."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from redray import cli
from redray.exceptions import RaySystemError
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.server import EmbeddedServer
from redray.local_cluster import LocalCluster, Process, find_local_cluster, with_password

Redray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def temp_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("REDRAY_ADDRESS", "REDRAY_REDIS_PASSWORD", "REDRAY_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    directory = str(tmp_path_factory.mktemp("t") / "redray")  # short: it holds sockets
    monkeypatch.setenv("REDRAY_TEMP_DIR", directory)
    return directory


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What each node was started with. A node is a process that waits."""
    found: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:

        def launch(redis: Address, temp_dir: str, node: dict[str, Any], is_head: bool) -> Process:
            process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            found.append({**node, "redis": redis, "is_head": is_head, "pid": process.pid})
            return Process.of("node", process.pid)

        monkeypatch.setattr("redray.cli.start.launch", launch)
        yield found


@pytest.fixture
def redray(temp_dir: str, launched: list[Any], capsys: pytest.CaptureFixture[str]) -> Iterator[Redray]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    cli.main(["stop", "--force"])
    assert find_local_cluster(temp_dir) is None


def begin(redray: Redray, *options: str) -> tuple[str, LocalCluster]:
    code, out, err = redray("start", "--head", "--port", "0", *options)
    assert (code, err) == (0, "")
    cluster = find_local_cluster()
    assert cluster is not None
    return out, cluster


def test_head(redray: Redray, launched: list[dict[str, Any]]) -> None:
    out, cluster = begin(redray, "--num-cpus", "3", "--labels", '{"zone": "a"}')
    address = Address.parse(cluster.address)
    assert [process.role for process in cluster.alive()] == ["redis", "node"]
    (node,) = launched
    assert (node["num_cpus"], node["labels"], node["is_head"]) == (3, {"zone": "a"}, True)
    assert node["redis"] == with_password(address)
    assert out.startswith(f"redray runtime started. Its Redis is at 127.0.0.1:{address.port}.\n")
    assert 'redray.init(address="auto")' in out and "redray stop" in out and "--node-ip-address" in out


def test_only_loopback_listens_and_only_with_the_password(redray: Redray) -> None:
    _, cluster = begin(redray)
    redis = psutil.Process(cluster.processes[0].pid)
    assert {connection.laddr.ip for connection in redis.net_connections("inet") if connection.status == "LISTEN"} == {
        "127.0.0.1"
    }
    with pytest.raises(Exception, match="wants a password"):
        Connection.open(cluster.address)
    with contextlib.closing(Connection.open(with_password(Address.parse(cluster.address)))) as connection:
        assert connection.call("CONFIG", "GET", "maxmemory-policy")[1] == b"noeviction"


def test_the_password_is_long_private_and_unseen(redray: Redray, temp_dir: str) -> None:
    out, cluster = begin(redray)
    password = Path(cluster.password_file).read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", password), "256 random bits"
    assert password not in out
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            assert password not in " ".join(process.cmdline())
    for folder, _, files in os.walk(temp_dir):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            assert not stat.S_IMODE(os.lstat(path).st_mode) & 0o077 or stat.S_ISSOCK(os.lstat(path).st_mode), path


def test_stop_leaves_nothing(redray: Redray, temp_dir: str) -> None:
    _, cluster = begin(redray)
    assert redray("stop") == (0, f"Stopped the cluster at {cluster.address}.\n", "")
    assert cluster.alive() == ()
    assert not os.path.exists(cluster.password_file)
    assert find_local_cluster(temp_dir) is None


def test_a_second_head_is_refused(redray: Redray) -> None:
    _, cluster = begin(redray)
    code, out, err = redray("start", "--head", "--port", "0")
    assert (code, out) == (1, "")
    assert f"a cluster runs here already, at {cluster.address}" in err
    assert len(cluster.alive()) == 2


def test_another_node_on_the_same_machine_needs_no_password(redray: Redray, launched: list[dict[str, Any]]) -> None:
    _, cluster = begin(redray)
    code, out, _ = redray("start", "--address", cluster.address.removeprefix("redis://"), "--resources", '{"disk": 1}')
    assert (code, "joined the cluster whose Redis is at" in out) == (0, True)
    assert launched[1]["redis"] == launched[0]["redis"]
    assert (launched[1]["resources"], launched[1]["is_head"]) == ({"disk": 1}, False)
    found = find_local_cluster()
    assert found is not None
    assert [process.role for process in found.alive()] == ["redis", "node", "node"]


def test_a_machine_joins_one_cluster(redray: Redray) -> None:
    _, cluster = begin(redray)
    code, _, err = redray("start", "--address", "127.0.0.1:1")
    assert (code, "takes part in the cluster" in err) == (1, True)
    assert find_local_cluster() == cluster


def test_a_port_that_is_taken(redray: Redray) -> None:
    _, cluster = begin(redray)
    port = str(Address.parse(cluster.address).port)
    code, _, err = redray("start", "--head", "--port", port, "--temp-dir", cluster.temp_dir + "2")
    assert code == 1
    assert err.startswith(f"redray: cannot listen on 127.0.0.1:{port}: Address already in use. Give another --port")


def test_an_address_of_another_machine(redray: Redray) -> None:
    code, _, err = redray("start", "--head", "--node-ip-address", "192.0.2.1")
    assert (code, "cannot listen on 192.0.2.1:6379" in err) == (1, True)


def test_a_node_that_does_not_start_takes_its_redis_along(
    redray: Redray, temp_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Process] = []

    def fail(redis: Address, temp_dir: str, *_: Any) -> Process:
        cluster = find_local_cluster(temp_dir)
        assert cluster is not None
        began.extend(cluster.alive())
        raise RaySystemError("The node did not start.")

    monkeypatch.setattr("redray.cli.start.launch", fail)
    assert redray("start", "--head", "--port", "0") == (1, "", "redray: The node did not start.\n")
    assert [process.role for process in began] == ["redis"]
    assert not began[0].is_alive()
    assert not {"cluster.json", "redis_password"} & set(os.listdir(temp_dir))


def test_a_redis_that_is_there_already(
    redray: Redray, launched: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("r")
    directory.chmod(0o700)
    server = EmbeddedServer.start(directory)
    try:
        url = server.address.url()
        code, out, _ = redray("start", "--head", "--redis", url)
        assert (code, url in out) == (0, True)
        assert launched[0]["redis"] == server.address
        assert redray("stop")[0] == 0
        assert server.is_alive(), "stop ended a Redis that start did not begin"
    finally:
        server.stop()


def test_blocking_start_ends_with_its_node(
    redray: Redray, launched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redray.cli.start.Process.is_alive", dying := DiesWhenAsked())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    code, out, err = redray("start", "--head", "--port", "0", "--block")
    assert code == 1
    assert "redray runtime started" in out
    assert re.fullmatch(r"redray: the node process \d+ has ended by itself: see the logs\.\n", err)
    assert dying.killed == launched[0]["pid"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


class DiesWhenAsked:
    """Stands in for `Process.is_alive`: kills a node the first time somebody asks after the start."""

    killed = 0

    def __get__(self, process: Process | None, owner: type[Process]) -> Callable[[], bool]:
        assert process is not None
        return lambda: self.ask(process)

    def ask(self, process: Process) -> bool:
        if process.role == "node" and not self.killed:
            self.killed = process.pid
            psutil.Process(process.pid).kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return psutil.pid_exists(process.pid) and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
