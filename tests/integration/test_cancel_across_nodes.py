"""Cancelling what runs on several nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import TaskCancelledError
from tests.helpers import PATIENCE, Journal, Signal, wait_until
from tests.integration.cluster_fixtures import assert_at_rest, cluster, temp_dir

__all__ = ["cluster", "temp_dir"]  # fixtures


@ray.remote(max_retries=0)
def wait(journal: Journal, name: str, signal: Signal) -> None:
    journal.add(f"{name} began")
    try:
        signal.wait()
    except KeyboardInterrupt:
        journal.add(f"{name} was interrupted")
        raise


@ray.remote
class Waiter:
    def wait(self, journal: Journal, name: str) -> None:
        journal.add(f"{name} began")
        wait_until(lambda: ray.get_runtime_context().is_canceled())
        journal.add(f"{name} was told")


@ray.remote(max_retries=0)
def spawn(journal: Journal, signal: Signal, waiter: Any) -> Any:
    refs = [
        wait.options(resources={"far": 1}).remote(journal, "far", signal),
        wait.options(num_cpus=0).remote(journal, "near", signal),
        waiter.wait.remote(journal, "call"),
    ]
    return ray.get(refs)


@pytest.mark.parametrize("force", [False, True])
def test_058_children_on_other_nodes_are_cancelled(force: bool, cluster: Cluster, tmp_path: Path) -> None:
    journal, signal = Journal(tmp_path / "journal"), Signal(tmp_path / "signal")
    cluster.add_node(num_cpus=1, resources={"near": 1})
    cluster.add_node(num_cpus=1, resources={"far": 1, "actor": 1})
    cluster.connect()
    waiter = Waiter.options(resources={"actor": 1}, num_cpus=0).remote()
    ref = spawn.options(resources={"near": 1}).remote(journal, signal, waiter)
    began = {"far began", "near began", "call began"}
    wait_until(lambda: began <= set(journal.lines()), what="the children to begin")
    ray.cancel(ref, force=force)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=PATIENCE)
    ended = {"call was told"} if force else {"far was interrupted", "near was interrupted", "call was told"}
    wait_until(lambda: set(journal.lines()) == began | ended, what="the children to end")
    del ref
    ray.kill(waiter)
    del waiter
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="all CPUs to be free")
    assert_at_rest(cluster)
