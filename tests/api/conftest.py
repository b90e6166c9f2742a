"""Clusters for the black-box tests of the public API.

`cluster` is shared by a module, because starting one costs more than most tests; after every test its resources must
be free again. A test that fails gets the cluster thrown away, so that what it left running cannot fail its neighbours.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from tests.api.clusters import StartedCluster
from tests.helpers import Journal, Signal, schedulable, wait_until

CLUSTER_OPTIONS: dict[str, Any] = {
    "address": "local",
    "num_cpus": 2,
    "num_gpus": 2,
    "resources": {"disk": 2},
    "include_dashboard": False,
    "log_to_driver": False,
}

# The same tests run against Ray itself when `redray` is a stand-in for it: what passes there is Ray's behaviour.
IS_RAY = ray.__name__ != "redray"

_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs_from_ray(reason): redray does this otherwise than Ray, on purpose")
    config.addinivalue_line("markers", "one_node(reason): left out where the cluster has three nodes, see clusters.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        one_node = item.get_closest_marker("one_node")
        if one_node is not None and config.getoption("cluster") == "three-nodes":
            item.add_marker(pytest.mark.skip(reason=f"needs one node: {one_node.args[0]}"))
        marker = item.get_closest_marker("differs_from_ray")
        if IS_RAY and marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"differs from Ray: {marker.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def all_is_free() -> bool:
    gc.collect()  # actor handles and refs in cycles (a caught exception's frames) keep actors and their CPUs
    return schedulable(ray.available_resources()) == schedulable(ray.cluster_resources())


class ModuleCluster:
    """The cluster that a module's tests share, from the first that asks for it. One that failed takes it away."""

    def __init__(self, kind: str, options: dict[str, Any], on_one_node: bool) -> None:
        self._kind = kind
        self._options = options
        self._on_one_node = on_one_node
        self._started: StartedCluster | None = None

    def begin(self) -> StartedCluster:
        if not ray.is_initialized():
            self.end()  # a test of the module wanted none, or one of its own
        if self._started is None:
            self._started = StartedCluster(self._kind, self._options, self._on_one_node)
        return self._started

    def end(self) -> None:
        if self._started is not None:
            self._started.shutdown()
            self._started = None


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of cluster of this run, see `clusters.py`."""
    return str(request.config.getoption("cluster"))


@pytest.fixture(scope="module")
def module_cluster(kind: str, request: pytest.FixtureRequest) -> Iterator[ModuleCluster]:
    ray.shutdown()
    options = {**CLUSTER_OPTIONS, **getattr(request.module, "CLUSTER_OPTIONS", {})}
    cluster = ModuleCluster(kind, options, getattr(request.module, "ON_ONE_NODE", False))
    yield cluster
    cluster.end()


@pytest.fixture
def cluster(module_cluster: ModuleCluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """The module's cluster: 2 CPUs, 2 GPUs that exist on paper only, and 2 of a resource named "disk".

    A module with other needs says so in a CLUSTER_OPTIONS of its own.
    """
    request.module.cluster_address = module_cluster.begin().address
    yield
    if request.node.stash.get(_failed, False):
        module_cluster.end()
        return
    assert ray.is_initialized(), "a test of the shared cluster shut it down"
    wait_until(all_is_free, what="every resource to be free after the test")
    if not IS_RAY:
        check_whole_state(request.module.cluster_address)


def check_whole_state(address: str) -> None:
    """Everything in Redis adds up. A finding counts when it stays:
    one look is not atomic, and chores may be on their way."""
    from redray.gcs.audit import audit
    from redray.gcs.client import Connection
    from redray.gcs.keys import Keys

    with contextlib.closing(Connection.open(address)) as connection:
        findings: list[str] = []

        def adds_up() -> bool:
            findings[:] = audit(connection, Keys())
            return not findings

        try:
            wait_until(adds_up, 5.0, "the whole state to add up")
        except AssertionError:
            raise AssertionError("The whole-state check found:\n" + "\n".join(findings)) from None


@pytest.fixture
def address(cluster: None, request: pytest.FixtureRequest) -> str:
    """Where another driver finds the module's cluster."""
    return str(request.module.cluster_address)


@pytest.fixture
def no_cluster() -> Iterator[None]:
    """For tests that call init themselves: nothing runs before, nothing is left after."""
    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def start(no_cluster: None, kind: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function that starts a cluster of the test's own: start(num_cpus=1). It returns what `init` did."""
    with contextlib.ExitStack() as clusters:

        def start_local(**options: Any) -> Any:
            if not ray.is_initialized():
                clusters.close()  # the one before
            options = {"address": "local", "include_dashboard": False, "log_to_driver": False, **options}
            cluster = StartedCluster(kind, options, getattr(request.module, "ON_ONE_NODE", False))
            clusters.callback(cluster.shutdown)
            return cluster.context

        yield start_local


@pytest.fixture
def signal(tmp_path: Path) -> Signal:
    """One signal of this test; most tests hold a task back with it."""
    return Signal(tmp_path / "signal")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Lines that tasks of this test leave behind."""
    return Journal(tmp_path / "journal")
