"""The command line where no cluster is needed: help, versions, and every way to write a command wrong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from redray import cli
from redray.cli.options import parse_bytes, parse_ip, parse_labels, parse_resources
from redray.cli.stop import end
from redray.gcs.address import Address
from redray.local_cluster import Process, find_local_cluster, make_private_directory, record
from redray.version import __version__

Redray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("REDRAY_ADDRESS", "REDRAY_REDIS_PASSWORD", "REDRAY_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDRAY_TEMP_DIR", str(tmp_path / "redray"))
    return str(tmp_path / "redray")


@pytest.fixture
def redray(temp_dir: str, capsys: pytest.CaptureFixture[str]) -> Redray:
    """redray("status", "-v") -> exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_version(redray: Redray) -> None:
    assert redray("--version") == (0, f"redray {__version__}\n", "")


def test_it_is_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "redray.cli", "bogus"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "redray: No such command 'bogus'. See 'redray --help'.\n"


def test_help_names_every_command(redray: Redray) -> None:
    code, out, _ = redray("--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    assert redray() == (0, out, "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(redray: Redray, command: str) -> None:
    code, out, err = redray(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: redray {command} ")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("start", "Give either --head"),
        ("start --head --address 10.0.0.1", "Give either --head"),
        ("start --address 10.0.0.1 --port 7000", "they need --head"),
        ("start --address 10.0.0.1 --redis 10.0.0.1", "they need --head"),
        ("start --head --redis 10.0.0.1 --port 7000", "--port is for the Redis that --head starts"),
        ("start --head --port 70000", "'--port'"),
        ("start --head --num-cpus -1", "'--num-cpus'"),
        ("start --head --num-gpus many", "'--num-gpus'"),
        ("start --head --resources {", "not a JSON object"),
        ("start --head --resources [1]", "not a JSON object"),
        ('start --head --resources {"CPU":1}', "--num-cpus"),
        ('start --head --resources {"disk":-1}', "at least 0"),
        ('start --head --resources {"disk":true}', "at least 0"),
        ('start --head --resources {"disk":NaN}', "at least 0"),
        ('start --head --resources {"a|b":1}', "cannot name a resource"),
        ('start --head --labels {"zone":1}', "must be text"),
        ("start --head --labels zone", "no label, such as zone=a"),
        ("start --head --labels zone=a=b", "no label, such as zone=a"),
        ("start --head --labels -zone=a", "Invalid label key"),
        ("start --head --node-ip-address here", "not an IP address"),
        ("start --head --node-ip-address 0.0.0.0", "cannot reach 0.0.0.0"),
        ("start --head --object-store-memory 0", "not a number of bytes"),
        ("start --head --redis-password hunter2", "No such option"),
        ("start --head --redis-password-file /does/not/exist", "does not exist"),
        ("worker", "Missing option '--redis'"),
        ("worker --redis ftp://10.0.0.1", "unknown scheme"),
        ("stop --grace-period -1", "'--grace-period'"),
        ("status --address 10.0.0.1:x", "not a Redis address"),
        ("list", "Missing argument"),
        ("list cars", "is not one of"),
        ("list tasks --limit 0", "'--limit'"),
        ("list tasks --filter state", "is not a filter"),
    ],
)
def test_a_command_that_is_written_wrong(redray: Redray, temp_dir: str, command: str, complaint: str) -> None:
    code, out, err = redray(*command.split(" "))
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.startswith("redray: ")
    assert err.count("\n") == 1, "more than one sentence on one line"
    assert not os.path.exists(temp_dir), "something was done before the command was understood"


def test_a_password_in_a_bad_address_is_not_repeated(redray: Redray) -> None:
    _, _, err = redray("worker", "--redis", "ftp://user:hunter2@10.0.0.1")
    assert "hunter2" not in err


@pytest.mark.parametrize("command", ["status", "list tasks", "status --local"])
def test_no_cluster_here(redray: Redray, command: str) -> None:
    code, out, err = redray(*command.split())
    assert (code, out) == (1, "")
    assert "redray start --head" in err


@pytest.mark.parametrize("command", ["status --address 127.0.0.1:1", "list nodes --address 127.0.0.1:1"])
def test_redis_does_not_answer(redray: Redray, command: str) -> None:
    code, out, err = redray(*command.split())
    assert (code, out) == (1, "")
    assert err.startswith("redray: Cannot reach Redis at redis://127.0.0.1:1")


def test_an_unreadable_password_file_is_named(redray: Redray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAY_REDIS_PASSWORD_FILE", "/does/not/exist")
    code, _, err = redray("status", "--address", "127.0.0.1:1")
    assert (code, err) == (1, "redray: cannot read the password file /does/not/exist: No such file or directory.\n")


def test_nothing_to_stop(redray: Redray, temp_dir: str) -> None:
    assert redray("stop") == (0, "Nothing to stop: no cluster was started on this machine.\n", "")
    make_private_directory(temp_dir)
    assert redray("stop") == (0, "Nothing to stop: no cluster was started on this machine.\n", "")


def test_a_directory_of_somebody_else_is_refused(redray: Redray, temp_dir: str) -> None:
    os.mkdir(temp_dir)
    os.chmod(temp_dir, stat.S_IRWXU | stat.S_IRWXO)
    code, _, err = redray("start", "--head")
    assert code == 1
    assert "only you can open" in err


# Says when it is ready to be signalled, and that it was asked to end; then it does so, or stubbornly goes on.
_PROCESS = """
import signal, sys
def asked(*_):
    print("asked", flush=True)
    if sys.argv[1] == "obedient":
        sys.exit()
signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
while True:
    signal.pause()
"""


def start_process(kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _PROCESS, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("obedient", ["--grace-period", "30"], "asked\n"),
        ("stubborn", ["--grace-period", "0.1"], "asked\n"),
        ("obedient", ["--force"], ""),
    ],
)
def test_stop_ends_what_is_recorded(redray: Redray, temp_dir: str, kind: str, options: list[str], said: str) -> None:
    make_private_directory(temp_dir)
    with start_process(kind) as process:
        record(Address(host="10.0.0.9"), temp_dir, Process.of("node", process.pid))
        assert redray("stop", *options) == (0, "Stopped the cluster at redis://10.0.0.9:6379.\n", "")
        assert process.stdout is not None and process.stdout.read() == said
        assert find_local_cluster(temp_dir) is None
        assert redray("stop") == (0, "Nothing to stop: no cluster was started on this machine.\n", "")


def test_nodes_end_before_their_redis() -> None:
    with start_process("obedient") as redis, start_process("stubborn") as node:
        processes = [Process.of("redis", redis.pid), Process.of("node", node.pid)]
        order: list[str] = []
        original = Process.is_alive

        def noted(process: Process) -> bool:
            alive = original(process)
            if not alive and process.role not in order:
                order.append(process.role)
            return alive

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Process, "is_alive", noted)
            assert end(processes, 0.1) == []
        assert order == ["node", "redis"]


def test_values() -> None:
    assert parse_bytes("2000000000") == 2_000_000_000
    assert parse_bytes("2G") == parse_bytes("2gb") == parse_bytes("2GiB") == 2 * 2**30
    assert parse_ip("::0001") == "::1"
    assert parse_resources('{"disk": 2, "tape": 0.5}') == {"disk": 2, "tape": 0.5}
    assert parse_labels('{"zone": "a"}') == parse_labels("zone=a") == {"zone": "a"}
    assert parse_labels(" zone=a , example.com/disk=ssd,gpu=") == {"zone": "a", "example.com/disk": "ssd", "gpu": ""}
