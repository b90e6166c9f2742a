"""More tasks that wait for each other than a node may have processes: an error, not a hang."""

from __future__ import annotations

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import RaySystemError, RayTaskError
from tests.integration.cluster_fixtures import assert_at_rest, cluster, temp_dir

__all__ = ["cluster", "temp_dir"]  # fixtures


@ray.remote(max_retries=0)
def chain(length: int) -> int:
    return length and 1 + ray.get(chain.remote(length - 1))


def test_a_chain_that_is_longer_than_the_limit_is_told_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAY_MAX_WORKERS", "4")
    cluster.add_node(num_cpus=1)
    cluster.connect()
    assert ray.get(chain.remote(3)) == 3
    with pytest.raises((RaySystemError, RayTaskError), match="REDRAY_MAX_WORKERS"):
        ray.get(chain.remote(4), timeout=60)
    assert ray.get(chain.remote(3)) == 3, "it goes on"
    assert_at_rest(cluster)


def test_another_node_that_has_room_helps(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAY_MAX_WORKERS", "4")
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.connect()
    assert ray.get(chain.remote(7), timeout=60) == 7
