"""The record of what runs on a machine, and who is believed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redray.exceptions import RaySystemError, SecurityError
from redray.gcs.address import Address
from redray.local_cluster import (
    FILE,
    PASSWORD_FILE,
    Process,
    find_local_cluster,
    make_private_directory,
    record,
    with_password,
    write_private,
)

HERE = Address(host="127.0.0.1", port=7001)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("REDRAY_REDIS_PASSWORD", "REDRAY_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    return make_private_directory(str(tmp_path / "redray"))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test ends it."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_nothing_was_started(directory: str) -> None:
    assert find_local_cluster(directory) is None
    assert find_local_cluster(directory + "/missing") is None


def test_what_was_recorded_is_found(directory: str, sleeper: subprocess.Popen[bytes]) -> None:
    record(HERE, directory, Process.of("redis", sleeper.pid))
    record(HERE, directory, Process.of("node", os.getpid()))
    cluster = find_local_cluster(directory)
    assert cluster is not None
    assert cluster.address == "redis://127.0.0.1:7001"
    assert [(process.role, process.pid) for process in cluster.processes] == [
        ("redis", sleeper.pid),
        ("node", os.getpid()),
    ]


def test_a_cluster_whose_processes_have_ended_is_gone(directory: str, sleeper: subprocess.Popen[bytes]) -> None:
    record(HERE, directory, Process.of("node", sleeper.pid))
    sleeper.kill()
    sleeper.wait()
    assert find_local_cluster(directory) is None


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of("node", sleeper.pid)
    assert process.is_alive()
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
    assert not process.is_alive()


def test_another_process_with_the_same_id_is_not_taken_for_ours() -> None:
    ours = Process.of("node", os.getpid())
    assert ours.is_alive()
    assert not Process("node", ours.pid, ours.started - 60).is_alive()


def test_a_machine_takes_part_in_one_cluster(directory: str) -> None:
    record(HERE, directory, Process.of("node", os.getpid()))
    with pytest.raises(RaySystemError, match=r"redis://127\.0\.0\.1:7001.*redray stop"):
        record(Address(host="10.0.0.9"), directory, Process.of("node", os.getpid()))


def test_the_record_holds_no_password_and_is_private(directory: str) -> None:
    record(Address(host="10.0.0.9", password="hunter2"), directory, Process.of("node", os.getpid()))
    path = Path(directory, FILE)
    assert "hunter2" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o700
    assert sorted(os.listdir(directory)) == [FILE]


def test_a_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(SecurityError, match="only you"):
        make_private_directory(str(tmp_path / "open"))


def test_a_planted_link_is_refused(tmp_path: Path, directory: str) -> None:
    record(HERE, directory, Process.of("node", os.getpid()))
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(SecurityError):
        make_private_directory(str(tmp_path / "link"))
    assert find_local_cluster(str(tmp_path / "link")) is None


def test_a_record_that_others_can_write_is_not_believed(directory: str) -> None:
    record(HERE, directory, Process.of("node", os.getpid()))
    os.chmod(Path(directory, FILE), 0o666)
    assert find_local_cluster(directory) is None


def test_the_password_of_the_cluster_started_here(directory: str) -> None:
    write_private(os.path.join(directory, PASSWORD_FILE), "secret")
    record(HERE, directory, Process.of("node", os.getpid()))
    assert with_password(HERE, directory).password == "secret"
    assert with_password(Address(host="localhost", port=7001), directory).password == "secret"
    assert with_password(Address(host="10.0.0.9", port=7001), directory).password == "", "another server got our secret"


def test_where_the_password_comes_from(directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most explicit wins: the address, the option, the environment."""
    option, environment = tmp_path / "option", tmp_path / "environment"
    option.write_text("from option\n")
    environment.write_text("from file\n")
    assert with_password(HERE, directory).password == ""
    monkeypatch.setenv("REDRAY_REDIS_PASSWORD_FILE", str(environment))
    assert with_password(HERE, directory).password == "from file"
    monkeypatch.setenv("REDRAY_REDIS_PASSWORD", "from environment")
    assert with_password(HERE, directory).password == "from environment"
    assert with_password(HERE, directory, str(option)).password == "from option"
    assert with_password(Address(password="from address"), directory, str(option)).password == "from address"
