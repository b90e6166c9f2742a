"""What dead nodes left is removed, what living ones use is not, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from redray.store.janitor import SharedDirectory, sweep
from tests.helpers import wait_until

OWNER = """
import os, sys
from redray.store.janitor import SharedDirectory
from redray.store.local_store import LocalStore
directory = SharedDirectory(sys.argv[1])
store = LocalStore(directory.path, 1 << 20)
(directory.path / "spill").mkdir()
(directory.path / "spill" / "file").touch()
print(directory.path, flush=True)
child = os.fork() if "fork" in sys.argv else 0
if child:
    print(child, flush=True)
sys.stdin.read()
"""


def owner(base: Path, *flags: str) -> tuple[subprocess.Popen[str], Path]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(base), *flags], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(30)
    assert process.stdin and process.stdout
    process.stdin.close()
    process.stdout.close()


def test_a_directory_is_private_and_goes_with_its_owner(tmp_path: Path) -> None:
    directory = SharedDirectory(tmp_path)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.path.iterdir())
    (directory.path / "file").touch()
    assert sweep(tmp_path) == []
    directory.close()
    directory.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_node_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    dead, dead_path = owner(tmp_path)
    alive, alive_path = owner(tmp_path)
    try:
        assert sweep(tmp_path) == []
        end(dead)
        assert sweep(tmp_path) == [dead_path]
        assert list(tmp_path.iterdir()) == [alive_path]
    finally:
        end(alive)
    assert sweep(tmp_path) == [alive_path]


def test_a_child_of_the_dead_does_not_keep_its_directory(tmp_path: Path) -> None:
    process, path = owner(tmp_path, "fork")
    assert process.stdout
    child = int(process.stdout.readline())
    end(process)
    try:
        # The child may not have run yet since it was forked: until it has, it holds the lock too.
        wait_until(lambda: sweep(tmp_path) == [path], what="the directory to be free for removal")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_does_not_remove_its_parents_directory(tmp_path: Path) -> None:
    directory = SharedDirectory(tmp_path)
    child = os.fork()
    if child == 0:
        directory.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert directory.path.is_dir()
    assert sweep(tmp_path) == [], "the parent still holds its lock"
    directory.close()


@pytest.mark.parametrize("kind", ["link", "link as lock", "file", "foreign name", "young and unnamed"])
def test_what_no_node_of_ours_made_is_left_alone(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "owner").touch()
    name = tmp_path / f"redray-{os.getuid()}-0123"
    if kind == "link":
        name.symlink_to(precious)
    elif kind == "link as lock":
        name.mkdir()
        (name / "owner").symlink_to(precious / "owner")
    elif kind == "file":
        name.touch()
    elif kind == "young and unnamed":
        name = tmp_path / f".{name.name}"
        name.mkdir()
    else:
        name = tmp_path / f"redray-{os.getuid() + 1}-0123"
        name.mkdir()
    assert sweep(tmp_path) == []
    assert os.path.lexists(name)
    assert (precious / "owner").exists()


def test_half_removed_and_old_unnamed_directories_are_removed(tmp_path: Path) -> None:
    half = tmp_path / f"redray-{os.getuid()}-0123"
    half.mkdir()
    unnamed = tmp_path / f".redray-{os.getuid()}-4567"
    unnamed.mkdir()
    os.utime(unnamed, (0, 0))
    assert sorted(sweep(tmp_path)) == sorted([half, unnamed])
    assert list(tmp_path.iterdir()) == []
