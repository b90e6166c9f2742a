"""What a node keeps of runtime environments: made once, kept while used, dropped for room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redray.worker.environment_cache import EnvironmentCache, SetupFailed
from tests.helpers import REPOSITORY, wait_until


def fill(size: int = 10) -> Callable[[Path], None]:
    return lambda path: (path / "content").write_bytes(bytes(size)) and None


def fail(path: Path) -> None:
    (path / "half").write_text("half")
    raise SetupFailed("no luck")


def must_not(path: Path) -> None:
    raise AssertionError("it is there already")


def cache(root: Path, most_bytes: int = 1000, wait_s: float = 5.0) -> EnvironmentCache:
    return EnvironmentCache(root, most_bytes, wait_s)


def release(user: EnvironmentCache) -> None:
    for lock in user._locks:
        os.close(lock)
    user._locks.clear()


def test_it_is_made_once(tmp_path: Path) -> None:
    first = cache(tmp_path).use("a", fill())
    assert (first / "content").exists()
    assert cache(tmp_path).use("a", must_not) == first


def test_what_was_not_finished_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "half").write_text("half")
    assert [path.name for path in cache(tmp_path).use("a", fill()).iterdir()] == ["content"]


def test_a_failure_is_told_again_for_a_while_and_holds_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SetupFailed, match="no luck"):
            cache(tmp_path).use("a", fail)
    with pytest.raises(SetupFailed, match="no luck"):
        cache(tmp_path).use("a", must_not)
    assert not (tmp_path / "a").exists()
    os.utime(tmp_path / "a.failed", (0, time.time() - 60))
    assert (cache(tmp_path).use("a", fill()) / "content").exists()
    assert not (tmp_path / "a.failed").exists()


def test_a_full_disk_is_a_failure_too(tmp_path: Path) -> None:
    def no_room(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SetupFailed, match="No space left"):
        cache(tmp_path).use("a", no_room)


def test_the_longest_unused_goes_first_and_what_is_used_stays(tmp_path: Path) -> None:
    user, others = cache(tmp_path, 100), cache(tmp_path, 100)
    user.use("used", fill(40))
    for age, name in ((30, "old"), (20, "older")):
        others.use(name, fill(20))
        os.utime(tmp_path / f"{name}.ready", (0, time.time() - age))
    os.utime(tmp_path / "used.ready", (0, 0))
    os.utime(tmp_path / "old.ready", (0, time.time() - 30))
    os.utime(tmp_path / "older.ready", (0, time.time() - 60))
    release(others)
    others.use("new", fill(40))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["new", "old", "used"]
    assert cache(tmp_path, 100).use("older", fill(1)).exists(), "it can be made again"


def test_one_that_is_larger_than_the_bound_is_kept_while_it_is_used(tmp_path: Path) -> None:
    user = cache(tmp_path, 10)
    assert (user.use("large", fill(1000)) / "content").exists()
    release(user)
    cache(tmp_path, 10).use("small", fill(1))
    assert not (tmp_path / "large").exists()


MAKER = """
import sys, time
from pathlib import Path
from redray.worker.environment_cache import EnvironmentCache
def make(path):
    Path(sys.argv[2]).touch()
    time.sleep(1000)
EnvironmentCache(Path(sys.argv[1]), 1000, 5.0).use("a", make)
"""


def test_who_waits_takes_over_from_a_maker_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, "-c", MAKER, str(tmp_path / "root"), str(tmp_path / "began")]
    maker = subprocess.Popen(arguments, env=environ)
    try:
        wait_until((tmp_path / "began").exists, what="the other process to begin")
        with pytest.raises(SetupFailed, match="Another worker has been making a"):
            cache(tmp_path / "root", wait_s=0.05).use("a", must_not)
    finally:
        maker.kill()
        maker.wait()
    assert (cache(tmp_path / "root").use("a", fill()) / "content").exists()
