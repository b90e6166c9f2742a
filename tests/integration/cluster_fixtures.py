"""Clusters for tests of what happens between processes: private directories, and nothing may be left of them."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.gcs.audit import audit
from redray.gcs.client import Connection
from redray.gcs.keys import Keys
from redray.store.janitor import shared_memory_base
from tests.helpers import is_alive, wait_until


def processes_of(directory: str) -> dict[int, str]:
    """Processes that were started with `directory` as their REDRAY_TEMP_DIR, and Redis servers that live in it."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and is_alive(int(entry)):
            with contextlib.suppress(OSError):
                environment = Path("/proc", entry, "environ").read_bytes().split(b"\0")
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"REDRAY_TEMP_DIR={directory}".encode() in environment or f"{directory}/" in command:
                    found[int(entry)] = command
    return found


def wait_until_gone(directory: str, timeout: float = 15) -> None:
    """Until no process of `directory` is left; an error names those that are."""
    try:
        wait_until(lambda: not processes_of(directory), timeout=timeout, what=f"the processes of {directory} to end")
    except AssertionError as error:
        raise AssertionError(f"{error}; these run: {processes_of(directory)}") from None


def shared_memory() -> set[Path]:
    return set(shared_memory_base().glob(f"redray-{os.getuid()}-*"))


def owned_by_the_dead(directories: set[Path]) -> set[Path]:
    """Those whose owner is gone: other tests' clusters may come and go meanwhile."""
    dead = set()
    for directory in directories:
        with contextlib.suppress(OSError, ValueError):
            if not is_alive(int((directory / "owner").read_text())):
                dead.add(directory)
    return dead


@pytest.fixture
def temp_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A short REDRAY_TEMP_DIR of this test's own. At the end no process, file or shared memory may be left of it."""
    directory = tempfile.mkdtemp(prefix="redray-t-", dir="/tmp")  # a unix socket's path must be short
    monkeypatch.setenv("REDRAY_TEMP_DIR", directory)
    before = shared_memory()
    yield directory
    ray.shutdown()
    try:
        wait_until(lambda: not processes_of(directory), what=f"the processes of {directory} to end")
        wait_until(lambda: not list(Path(directory).glob("session-*")), what="the session directories to be removed")
        wait_until(lambda: not owned_by_the_dead(shared_memory() - before), what="dead nodes' memory to be removed")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(temp_dir: str) -> Iterator[Cluster]:
    """A Redis without nodes."""
    with Cluster() as cluster:
        yield cluster
        ray.shutdown()


def findings(cluster: Cluster, at_rest: bool = True) -> list[str]:
    with contextlib.closing(Connection.open(cluster.address)) as connection:
        return audit(connection, Keys(), at_rest)


def assert_at_rest(cluster: Cluster) -> None:
    """The whole-state check: everything adds up, and nothing is left of any work."""

    def is_clean() -> bool:
        nonlocal last
        gc.collect()  # caught errors keep each other, and what they were raised for
        last = findings(cluster)
        return not last

    last: list[str] = []
    try:
        wait_until(is_clean, what="the cluster to be at rest")
    except AssertionError:
        raise AssertionError("The cluster does not come to rest:\n" + "\n".join(last)) from None


def resources_are_free() -> bool:
    total: dict[str, Any] = ray.cluster_resources()
    return bool(ray.available_resources() == total)
