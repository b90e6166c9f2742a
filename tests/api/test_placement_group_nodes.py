"""Placement groups on several nodes: spec lines 87 and 88, and what becomes of a group when its nodes go."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import TaskPlacementGroupRemoved
from redray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from redray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.api.conftest import check_whole_state
from tests.helpers import PATIENCE, Signal, wait_until

SOON = 20.0


@pytest.fixture(scope="module")
def machine_room() -> Iterator[Any]:
    """A head without CPUs and two nodes with two CPUs each."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        ray.init(cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(autouse=True)
def everything_is_given_back(machine_room: Any) -> Iterator[None]:
    yield

    def all_is_free() -> bool:
        gc.collect()
        return ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU")

    wait_until(all_is_free, 2 * PATIENCE, "every CPU to be free after the test")
    check_whole_state(machine_room.address)


@pytest.fixture
def add_node(machine_room: Any) -> Iterator[Callable[..., Any]]:
    """Adds nodes for the rest of the test."""
    added: list[Any] = []

    def add(**options: Any) -> Any:
        added.append(machine_room.add_node(**options))
        machine_room.wait_for_nodes()
        return added[-1]

    yield add
    for node in added:
        machine_room.remove_node(node)


@pytest.fixture
def make() -> Iterator[Callable[..., PlacementGroup]]:
    """`placement_group`, whose groups are removed after the test."""
    made: list[PlacementGroup] = []

    def make_group(*args: Any, **options: Any) -> PlacementGroup:
        made.append(placement_group(*args, **options))
        return made[-1]

    yield make_group
    for group in made:
        remove_placement_group(group)


def inside(group: PlacementGroup, index: int = -1) -> Any:
    return PlacementGroupSchedulingStrategy(group, index)


def nodes_of(group: PlacementGroup) -> list[str]:
    return list(placement_group_table(group)["bundles_to_node_id"].values())


def state_of(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@ray.remote
def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


@ray.remote
def hold(begun: Signal, signal: Signal) -> str:
    begun.set()
    signal.wait()
    return str(ray.get_runtime_context().get_node_id())


# ---- strategies ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy, nodes", [("PACK", 1), ("STRICT_PACK", 1), ("SPREAD", 2), ("STRICT_SPREAD", 2)])
def test_087_how_many_nodes_a_strategy_takes(make: Any, strategy: str, nodes: int) -> None:
    group = make([{"CPU": 1}, {"CPU": 1}], strategy=strategy)
    assert group.wait(SOON)
    assert len(set(nodes_of(group))) == nodes


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD"])
def test_087_strategies_that_are_a_wish_yield_to_need(make: Any, strategy: str) -> None:
    group = make([{"CPU": 1}] * 4, strategy=strategy)
    assert group.wait(SOON)
    assert sorted(nodes_of(group).count(node) for node in set(nodes_of(group))) == [2, 2]


@pytest.mark.parametrize("bundles, strategy", [([{"CPU": 1}] * 3, "STRICT_PACK"), ([{"CPU": 1}] * 3, "STRICT_SPREAD")])
def test_087_strict_strategies_do_not(make: Any, bundles: Any, strategy: str) -> None:
    group = make(bundles, strategy=strategy)
    assert not group.wait(0.3)
    assert nodes_of(group) == ["", "", ""]


def test_087_a_bundles_tasks_run_on_its_node(make: Any) -> None:
    group = make([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    tasks = [node_id.options(scheduling_strategy=inside(group, index)).remote() for index in (0, 1, 0, 1)]
    found = ray.get(tasks, timeout=SOON)
    assert found == nodes_of(group) * 2
    both = {ray.get(node_id.options(scheduling_strategy=inside(group)).remote(), timeout=SOON) for _ in range(4)}
    assert both <= set(nodes_of(group))


def test_087_half_a_group_is_not_used(make: Any, tmp_path: Path, signal: Signal) -> None:
    """One node is full, so the other's bundle must stay free for others."""
    begun = Signal(tmp_path / "begun")
    busy = hold.options(num_cpus=2).remote(begun, signal)
    begun.wait()
    group = make([{"CPU": 2}, {"CPU": 2}])
    early = node_id.options(scheduling_strategy=inside(group, 0)).remote()
    assert ray.wait([early], timeout=0.3)[0] == []
    assert ray.get(node_id.options(num_cpus=2).remote(), timeout=SOON)
    signal.set()
    ray.get(busy)
    assert ray.get(early, timeout=SOON) == nodes_of(group)[0]


def test_087_a_new_node_makes_room(make: Any, add_node: Any) -> None:
    group = make([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert not group.wait(0.2)
    add_node(num_cpus=1)
    assert group.wait(SOON)
    assert len(set(nodes_of(group))) == 3


def test_087_many_groups_at_once(make: Any) -> None:
    groups = [make([{"CPU": 0.1}] * 4, strategy="SPREAD") for _ in range(10)]
    assert all(group.wait(SOON) for group in groups)
    late = make([{"CPU": 0.1}])
    assert not late.wait(0.2)
    remove_placement_group(groups[0])
    assert late.wait(SOON)


# ---- nodes that go ---------------------------------------------------------------------------------------------------
def test_087_lost_bundles_are_placed_again(make: Any, add_node: Any) -> None:
    doomed = add_node(num_cpus=1, resources={"mark": 1})
    group = make([{"CPU": 1, "mark": 1}, {"CPU": 1}])
    assert group.wait(SOON)
    stays = nodes_of(group)[1]
    assert nodes_of(group)[0] == doomed.node_id
    doomed.kill()
    wait_until(lambda: state_of(group) == "RESCHEDULING", what="the loss to be noticed")
    assert not group.wait(0.2)
    waiting = node_id.options(scheduling_strategy=inside(group, 0)).remote()
    if stays != doomed.node_id:
        other = node_id.options(scheduling_strategy=inside(group, 1)).remote()
        assert ray.get(other, timeout=SOON) == stays, "what is left of the group goes on"
    replacement = add_node(num_cpus=1, resources={"mark": 1})
    assert group.wait(SOON)
    assert ray.get(waiting, timeout=SOON) == nodes_of(group)[0] == replacement.node_id


def test_087_a_task_of_a_lost_bundle_runs_again(make: Any, add_node: Any, tmp_path: Path, signal: Signal) -> None:
    doomed = add_node(num_cpus=1, resources={"mark": 1})
    group = make([{"CPU": 1, "mark": 0.5}])
    begun = Signal(tmp_path / "begun")
    task = hold.options(scheduling_strategy=inside(group)).remote(begun, signal)
    begun.wait()
    doomed.kill()
    signal.set()
    replacement = add_node(num_cpus=1, resources={"mark": 1})
    assert ray.get(task, timeout=2 * SOON) == replacement.node_id


def test_087_a_node_that_leaves_in_order_hands_its_bundles_on(make: Any, add_node: Any) -> None:
    leaving = add_node(num_cpus=3)
    group = make([{"CPU": 3}])
    assert group.wait(SOON)
    assert nodes_of(group) == [leaving.node_id]
    leaving.terminate()
    wait_until(lambda: state_of(group) == "RESCHEDULING", what="the bundle to be without a node")
    replacement = add_node(num_cpus=3)
    assert group.wait(SOON)
    assert nodes_of(group) == [replacement.node_id]


def test_087_a_group_waits_for_a_node_that_is_lost_before_it_grants(make: Any, add_node: Any) -> None:
    """A node that is stopped grants nothing; when its lease is over the group goes elsewhere."""
    import os
    import signal as signals

    stopped = add_node(num_cpus=4)
    os.kill(stopped.pid, signals.SIGSTOP)
    group = make([{"CPU": 4}])
    assert not group.wait(0.3)
    replacement = add_node(num_cpus=4)
    try:
        assert group.wait(2 * SOON)
        assert nodes_of(group) == [replacement.node_id]
    finally:
        os.kill(stopped.pid, signals.SIGCONT)


def test_088_removal_reaches_every_node(make: Any, tmp_path: Path, signal: Signal) -> None:
    group = make([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    begun = [Signal(tmp_path / str(index)) for index in (0, 1)]
    tasks = [hold.options(scheduling_strategy=inside(group, index)).remote(begun[index], signal) for index in (0, 1)]
    for each in begun:
        each.wait()
    remove_placement_group(group)
    for task in tasks:
        with pytest.raises(TaskPlacementGroupRemoved):
            ray.get(task, timeout=SOON)
