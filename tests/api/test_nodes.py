"""Several nodes: spec lines 32, 47, 63, 79 and 85, and what nodes() tells."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from tests.helpers import PATIENCE, Journal, Signal, schedulable, wait_until

BIG = 500_000  # float64 values: 4 MB, far above what travels inline

AddNode = Callable[..., Any]


@pytest.fixture(scope="module")
def machine_room() -> Iterator[Any]:
    """A head without CPUs and two nodes with one CPU each, known by the resources "left" and "right"."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1, resources={"left": 1})
        cluster.add_node(num_cpus=1, resources={"right": 1})
        ray.init(cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def add_node(machine_room: Any) -> Iterator[AddNode]:
    """Adds a node for one test: add_node(num_cpus=1, resources=...); what the test leaves is removed afterwards."""
    added: list[Any] = []

    def add(**options: Any) -> Any:
        node = machine_room.add_node(**options)
        machine_room.wait_for_nodes()
        added.append(node)
        return node

    def remove(node: Any) -> None:
        added.remove(node)
        machine_room.remove_node(node, allow_graceful=False)

    add.remove = remove  # type: ignore[attr-defined]
    yield add
    for node in list(added):
        remove(node)
    wait_until(lambda: len(alive_nodes()) == 3, 2 * PATIENCE, "the test's own nodes to be gone")


@pytest.fixture(autouse=True)
def everything_is_given_back(machine_room: Any, add_node: AddNode) -> Iterator[None]:
    yield

    def all_is_free() -> bool:
        gc.collect()
        return schedulable(ray.available_resources()) == schedulable(ray.cluster_resources())

    wait_until(all_is_free, 2 * PATIENCE, "every resource to be free after the test")


def alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


@ray.remote
def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


@ray.remote
def make(journal: Journal, fill: int = 1) -> Any:
    journal.add(fill)
    return np.full(BIG, fill, dtype=np.float64)


@ray.remote(num_cpus=0)
class Actor:
    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def make(self) -> Any:
        return np.ones(BIG)

    def wait(self, signal: Signal) -> None:
        signal.wait()


def test_089_nodes_tells_every_node_and_its_resources() -> None:
    nodes = alive_nodes()
    assert len(nodes) == 3
    assert len({node["NodeID"] for node in nodes}) == 3
    by_name = {name: node for node in nodes for name in ("left", "right") if name in node["Resources"]}
    assert set(by_name) == {"left", "right"}
    assert all(node["Resources"]["CPU"] == 1 for node in by_name.values())


def test_089_cluster_resources_are_the_sum_of_the_nodes() -> None:
    total = ray.cluster_resources()
    assert (total["CPU"], total["left"], total["right"]) == (2, 1, 1)
    assert total["object_store_memory"] == sum(node["Resources"]["object_store_memory"] for node in alive_nodes())


def test_085_a_custom_resource_chooses_the_node() -> None:
    by_name = {
        name: node["NodeID"] for node in alive_nodes() for name in node["Resources"] if name in ("left", "right")
    }
    for name in ("left", "right", "left"):
        assert ray.get(node_id.options(resources={name: 1}).remote()) == by_name[name]
        actor = Actor.options(resources={name: 1}).remote()
        assert ray.get(actor.node_id.remote()) == by_name[name]


def test_085_tasks_use_every_node_at_once(journal: Journal, signal: Signal) -> None:
    @ray.remote
    def meet() -> str:
        if journal.add("here") == 2:
            signal.set()
        signal.wait()  # each of the two nodes has one CPU: both must have come
        return str(ray.get_runtime_context().get_node_id())

    assert len(set(ray.get([meet.remote(), meet.remote()]))) == 2


def test_085_infeasible_work_starts_when_a_node_that_fits_comes(add_node: AddNode) -> None:
    waiting = node_id.options(resources={"new": 1}).remote()
    actor = Actor.options(resources={"new": 1}).remote()
    asked = actor.node_id.remote()
    assert ray.wait([waiting, asked], timeout=0)[0] == []
    add_node(num_cpus=1, resources={"new": 2})
    assert ray.get(waiting) == ray.get(asked)


def test_063_a_default_actor_never_starts_on_a_node_without_cpus(signal: Signal) -> None:
    head = next(node["NodeID"] for node in alive_nodes() if not node["Resources"].get("CPU"))

    @ray.remote
    class Default:
        def node_id(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    @ray.remote
    def hold() -> None:
        signal.wait()

    holders = [hold.remote(), hold.remote()]
    wait_until(lambda: "CPU" not in ray.available_resources(), what="every CPU to be taken")
    default = Default.remote()
    answer = default.node_id.remote()
    zero = Default.options(num_cpus=0, resources={f"node:{ray.nodes()[0]['NodeManagerAddress']}": 0.001}).remote()
    assert ray.get(zero.node_id.remote()) in {node["NodeID"] for node in alive_nodes()}
    assert ray.wait([answer], timeout=0.2) == ([], [answer]), "no CPU is free to place it"
    signal.set()
    assert ray.get(answer) != head
    ray.get(holders)


def test_032_a_large_value_travels_between_nodes(journal: Journal) -> None:
    @ray.remote
    def total(array: Any) -> float:
        return float(array.sum())

    made = make.options(resources={"left": 1}).remote(journal, 3)
    assert ray.get(total.options(resources={"right": 1}).remote(made)) == 3 * BIG
    array = ray.get(made)
    assert (array == 3).all() and not array.flags.writeable
    put = ray.put(np.arange(BIG))
    assert ray.get(total.options(resources={"left": 1}).remote(put)) == BIG * (BIG - 1) / 2


def test_032_wait_with_fetch_local_brings_the_bytes_here(journal: Journal) -> None:
    made = make.options(resources={"left": 1}).remote(journal)
    assert ray.wait([made], fetch_local=False) == ([made], [])
    assert ray.wait([made], fetch_local=True) == ([made], [])
    assert ray.get(made, timeout=0).shape == (BIG,), "the bytes are here already"


def test_047_a_lost_object_is_computed_again(add_node: AddNode, journal: Journal) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    made = make.options(resources={"doomed": 1}).remote(journal, 5)
    ray.wait([made], fetch_local=False)
    add_node.remove(node)  # type: ignore[attr-defined]
    add_node(num_cpus=1, resources={"doomed": 1})
    assert (ray.get(made) == 5).all()
    assert journal.lines() == ["5", "5"]


def test_047_what_it_was_computed_from_is_computed_again_too(add_node: AddNode, journal: Journal) -> None:
    @ray.remote(resources={"doomed": 1})
    def double(array: Any) -> Any:
        journal.add("double")
        return array * 2

    node = add_node(num_cpus=1, resources={"doomed": 1})
    doubled = double.remote(make.options(resources={"doomed": 1}).remote(journal, 7))
    ray.wait([doubled], fetch_local=False)
    add_node.remove(node)  # type: ignore[attr-defined]
    add_node(num_cpus=1, resources={"doomed": 1})
    assert (ray.get(doubled) == 14).all()
    assert sorted(journal.lines()) == ["7", "7", "double", "double"]


def test_047_without_retries_a_lost_object_is_an_error(add_node: AddNode, journal: Journal) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    made = make.options(resources={"doomed": 1}, max_retries=0).remote(journal)
    ray.wait([made], fetch_local=False)
    add_node.remove(node)  # type: ignore[attr-defined]
    with pytest.raises(ObjectLostError, match=made.hex()):
        ray.get(made)
    assert journal.lines() == ["1"]


def test_047_a_put_object_is_not_computed_again(add_node: AddNode) -> None:
    @ray.remote(resources={"doomed": 0.5})
    class Putter:
        def put(self) -> list[Any]:
            return [ray.put(np.ones(BIG))]

    node = add_node(num_cpus=1, resources={"doomed": 1})
    putter = Putter.remote()
    (inner,) = ray.get(putter.put.remote())
    ray.wait([inner], fetch_local=False)
    add_node.remove(node)  # type: ignore[attr-defined]
    with pytest.raises(ObjectLostError):
        ray.get(inner)


def test_047_an_actors_result_is_not_computed_again(add_node: AddNode) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    actor = Actor.options(resources={"doomed": 1}, max_restarts=1).remote()
    made = actor.make.remote()
    ray.wait([made], fetch_local=False)
    add_node.remove(node)  # type: ignore[attr-defined]
    add_node(num_cpus=1, resources={"doomed": 1})
    with pytest.raises(ObjectLostError):
        ray.get(made)


def test_047_a_copy_elsewhere_survives_the_node(add_node: AddNode, journal: Journal) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    made = make.options(resources={"doomed": 1}, max_retries=0).remote(journal, 9)
    here = ray.get(made)
    add_node.remove(node)  # type: ignore[attr-defined]
    wait_until(lambda: len(alive_nodes()) == 3, what="the node's death to be noticed")
    assert (ray.get(made) == 9).all() and (here == 9).all()
    assert journal.lines() == ["9"]


def test_045_a_task_of_a_dead_node_is_retried_elsewhere(add_node: AddNode, journal: Journal, signal: Signal) -> None:
    @ray.remote(resources={"doomed": 1})
    def work() -> str:
        journal.add(os.getpid())
        signal.wait()
        return str(ray.get_runtime_context().get_node_id())

    node = add_node(num_cpus=1, resources={"doomed": 1})
    running = work.remote()
    wait_until(journal.lines, what="the task to start")
    add_node(num_cpus=1, resources={"doomed": 1})
    add_node.remove(node)  # type: ignore[attr-defined]
    wait_until(lambda: len(journal.lines()) == 2, what="the task to start again")
    signal.set()
    assert ray.get(running) in {node["NodeID"] for node in alive_nodes()}
    assert len(journal.lines()) == 2


def test_045_without_retries_a_dead_node_is_a_crash(add_node: AddNode, journal: Journal, signal: Signal) -> None:
    @ray.remote(resources={"doomed": 1}, max_retries=0)
    def work() -> None:
        journal.add("started")
        signal.wait()

    node = add_node(num_cpus=1, resources={"doomed": 1})
    running = work.remote()
    wait_until(journal.lines, what="the task to start")
    add_node.remove(node)  # type: ignore[attr-defined]
    with pytest.raises((WorkerCrashedError, NodeDiedError), match="(?i)node"):
        ray.get(running)


def test_079_the_error_says_that_the_node_died(add_node: AddNode) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    actor = Actor.options(resources={"doomed": 1}).remote()
    ray.get(actor.node_id.remote())
    add_node.remove(node)  # type: ignore[attr-defined]
    wait_until(lambda: len(alive_nodes()) == 3, what="the node's death to be noticed")
    with pytest.raises(ActorDiedError, match="node has died|node died|node .*dead"):
        ray.get(actor.node_id.remote())


def test_050_an_actor_of_a_dead_node_restarts_elsewhere(add_node: AddNode) -> None:
    node = add_node(num_cpus=1, resources={"doomed": 1})
    actor = Actor.options(resources={"doomed": 1}, max_restarts=1).remote()
    first = ray.get(actor.node_id.remote())
    add_node(num_cpus=1, resources={"doomed": 1})
    add_node.remove(node)  # type: ignore[attr-defined]

    def second() -> str:
        try:
            return str(ray.get(actor.node_id.remote()))
        except RayActorError:
            return first

    wait_until(lambda: second() != first, what="the actor to answer from another node")
