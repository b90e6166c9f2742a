"""Several nodes: spec lines 32, 47, 63, 79 and 85, and what nodes() tells."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from tests.helpers import PATIENCE, Journal, Signal, wait_until

BIG = 500_000  # float64 values: 4 MB, far above what travels inline


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
def new_node(machine_room: Any) -> Iterator[Callable[[], None]]:
    """Adds a node with one CPU and the resource "new" for the rest of the test."""
    added: list[Any] = []

    def add() -> None:
        added.append(machine_room.add_node(num_cpus=1, resources={"new": 2}))
        machine_room.wait_for_nodes()

    yield add
    for node in added:
        machine_room.remove_node(node)


@pytest.fixture(autouse=True)
def cpus_are_given_back(machine_room: Any) -> Iterator[None]:
    yield

    def all_are_free() -> bool:
        gc.collect()
        free, total = ray.available_resources(), ray.cluster_resources()
        return all(free.get(name) == total.get(name) for name in ("CPU", "left", "right", "new"))

    wait_until(all_are_free, 2 * PATIENCE, "every CPU to be free after the test")


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
    assert len({node["NodeID"] for node in nodes}) == len(nodes) >= 3
    by_name = {name: node for node in nodes for name in ("left", "right") if name in node["Resources"]}
    assert set(by_name) == {"left", "right"}
    assert all(node["Resources"]["CPU"] == 1 for node in by_name.values())


def test_089_nodes_remembers_one_that_is_gone(machine_room: Any) -> None:
    node = machine_room.add_node(num_cpus=1, resources={"brief": 1})
    machine_room.wait_for_nodes()
    (there,) = (found for found in ray.nodes() if "brief" in found["Resources"])
    machine_room.remove_node(node)

    def as_it_is_now() -> dict[str, Any]:
        (now,) = (found for found in ray.nodes() if found["NodeID"] == there["NodeID"])
        return {} if now["Alive"] else now

    gone = wait_until(as_it_is_now, what="the node to be gone")
    assert (gone["Alive"], gone["alive"], gone["Resources"]) == (False, False, {})
    assert gone["NodeManagerAddress"] == there["NodeManagerAddress"]
    assert "brief" not in ray.cluster_resources()


def test_089_cluster_resources_are_the_sum_of_the_nodes() -> None:
    total = ray.cluster_resources()
    assert (total["left"], total["right"]) == (1, 1)
    assert total["CPU"] == sum(node["Resources"].get("CPU", 0) for node in alive_nodes())
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


def test_085_infeasible_work_starts_when_a_node_that_fits_comes(new_node: Callable[[], None]) -> None:
    waiting = node_id.options(resources={"new": 1}).remote()
    actor = Actor.options(resources={"new": 1}).remote()
    asked = actor.node_id.remote()
    assert ray.wait([waiting, asked], timeout=0)[0] == []
    new_node()
    assert ray.get(waiting) == ray.get(asked)


def test_063_a_default_actor_never_starts_on_a_node_without_cpus(signal: Signal) -> None:
    without_cpus = {node["NodeID"] for node in alive_nodes() if not node["Resources"].get("CPU")}
    assert without_cpus

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
    signal.set()
    assert ray.get(answer) not in without_cpus
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


class Accident:
    """A node that died, what it held, and what ran on it: one death, because noticing it takes its time."""

    def __init__(self, machine_room: Any, folder: Path) -> None:
        self.machine_room = machine_room
        self.signal = Signal(folder / "signal")
        self.journals = {name: Journal(folder / name) for name in ("made", "chain", "frail", "copied", "work", "once")}
        doomed = make.options(num_cpus=0, resources={"doomed": 0.1})
        node = machine_room.add_node(num_cpus=0, resources={"doomed": 4})
        machine_room.wait_for_nodes()
        self.putter = Putter.options(resources={"doomed": 0.1}).remote()
        self.actor = Actor.options(resources={"doomed": 0.1}).remote()
        self.restarting = Actor.options(resources={"doomed": 0.1}, max_restarts=1).remote()
        self.made = doomed.remote(self.journals["made"], 5)
        self.doubled = double.remote(self.journals["chain"], doomed.remote(self.journals["chain"], 7))
        frail = make.options(num_cpus=0, resources={"doomed": 0.1}, max_retries=0)
        self.frail = frail.remote(self.journals["frail"])
        self.copied = frail.remote(self.journals["copied"], 9)
        self.copy = ray.get(self.copied)
        (self.put,) = ray.get(self.putter.put.remote())
        self.actors_result = self.restarting.make.remote()
        self.first_node_id = ray.get(self.restarting.node_id.remote())
        assert ray.get(self.actor.node_id.remote()) == self.first_node_id
        there = [self.made, self.doubled, self.frail, self.put, self.actors_result]
        assert ray.wait(there, num_returns=len(there), fetch_local=False)[1] == []
        self.retried = work.remote(self.journals["work"], self.signal)
        self.not_retried = work.options(max_retries=0).remote(self.journals["once"], self.signal)
        for name in ("work", "once"):
            wait_until(self.journals[name].lines, what="the tasks of the doomed node to start")
        machine_room.remove_node(node, allow_graceful=False)
        self.replacement = machine_room.add_node(num_cpus=0, resources={"doomed": 4})
        wait_until(self.is_noticed, 2 * PATIENCE, "the death of the node to be noticed")

    def is_noticed(self) -> bool:
        return self.first_node_id not in {node["NodeID"] for node in alive_nodes()}

    def clear(self) -> None:
        self.signal.set()
        self.machine_room.remove_node(self.replacement)


@ray.remote(num_cpus=0)
class Putter:
    def put(self) -> list[Any]:
        return [ray.put(np.ones(BIG))]


@ray.remote(num_cpus=0, resources={"doomed": 0.1})
def double(journal: Journal, array: Any) -> Any:
    journal.add("double")
    return array * 2


@ray.remote(num_cpus=0, resources={"doomed": 1})
def work(journal: Journal, signal: Signal) -> str:
    journal.add(os.getpid())
    signal.wait()
    return str(ray.get_runtime_context().get_node_id())


@pytest.fixture(scope="module")
def accident(machine_room: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accident]:
    accident = Accident(machine_room, tmp_path_factory.mktemp("accident"))
    yield accident
    accident.clear()


class TestAccident:
    """What is left of the work of a node that was killed."""

    def test_047_a_lost_object_is_computed_again(self, accident: Accident) -> None:
        assert (ray.get(accident.made) == 5).all()
        assert accident.journals["made"].lines() == ["5", "5"]

    def test_047_what_it_was_computed_from_is_computed_again_too(self, accident: Accident) -> None:
        assert (ray.get(accident.doubled) == 14).all()
        assert sorted(accident.journals["chain"].lines()) == ["7", "7", "double", "double"]

    def test_047_without_retries_a_lost_object_is_an_error(self, accident: Accident) -> None:
        with pytest.raises(ObjectLostError, match=accident.frail.hex()):
            ray.get(accident.frail)
        assert accident.journals["frail"].lines() == ["1"]

    def test_047_a_put_object_is_not_computed_again(self, accident: Accident) -> None:
        with pytest.raises(ObjectLostError):
            ray.get(accident.put)

    def test_047_an_actors_result_is_not_computed_again(self, accident: Accident) -> None:
        with pytest.raises(ObjectLostError):
            ray.get(accident.actors_result)

    def test_047_a_copy_elsewhere_survives_the_node(self, accident: Accident) -> None:
        assert (ray.get(accident.copied) == 9).all() and (accident.copy == 9).all()
        assert accident.journals["copied"].lines() == ["9"]

    def test_045_a_task_of_a_dead_node_is_retried_elsewhere(self, accident: Accident) -> None:
        journal = accident.journals["work"]
        wait_until(lambda: len(journal.lines()) == 2, what="the task to start again")
        accident.signal.set()
        assert ray.get(accident.retried) in {node["NodeID"] for node in alive_nodes()}
        assert len(set(journal.lines())) == 2

    def test_045_without_retries_a_dead_node_is_a_crash(self, accident: Accident) -> None:
        with pytest.raises((WorkerCrashedError, NodeDiedError), match="(?i)node"):
            ray.get(accident.not_retried)
        assert len(accident.journals["once"].lines()) == 1

    @pytest.mark.differs_from_ray("Ray raises one of the two, by who notices first")
    @pytest.mark.parametrize("error", [WorkerCrashedError, NodeDiedError])
    def test_045_that_crash_can_be_caught_by_either_name(self, accident: Accident, error: type[Exception]) -> None:
        with pytest.raises(error):
            ray.get(accident.not_retried)

    def test_079_the_error_says_that_the_node_died(self, accident: Accident) -> None:
        with pytest.raises(ActorDiedError, match="node has died|node died|node .*dead"):
            ray.get(accident.actor.node_id.remote())

    def test_050_an_actor_of_a_dead_node_restarts_elsewhere(self, accident: Accident) -> None:
        def second() -> str:
            try:
                return str(ray.get(accident.restarting.node_id.remote()))
            except RayActorError:
                return accident.first_node_id

        wait_until(lambda: second() != accident.first_node_id, what="the actor to answer from another node")
