"""The cluster that script tests work on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redray.gcs.audit import audit
from redray.gcs.client import Connection
from redray.gcs.scripts import Scripts
from tests.lua.builders import DRIVER, NODE, NODE2, Cluster


@pytest.fixture
def bare(redis: Connection, scripts: Scripts) -> Iterator[Cluster]:
    """Nobody is there yet. At the end of the test everything must add up."""
    cluster = Cluster(redis, scripts)
    yield cluster
    if cluster.audited:
        assert audit(redis, cluster.keys) == []


@pytest.fixture
def cluster(bare: Cluster) -> Iterator[Cluster]:
    """Two nodes, and a driver that speaks to Redis itself."""
    bare.node(NODE)
    bare.node(NODE2)
    bare.driver(DRIVER)
    yield bare
