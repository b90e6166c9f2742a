"""Which node a task or actor runs on: spec lines 85 and 86, affinity, labels, SPREAD and locality."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import ActorUnschedulableError, GetTimeoutError, TaskUnschedulableError
from redray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)
from tests.api.conftest import check_whole_state
from tests.helpers import PATIENCE, Driver, Signal, wait_until

LABELS = {"left": {"zone": "a", "disk": "ssd"}, "right": {"zone": "b"}}


@pytest.fixture(scope="module")
def machine_room() -> Iterator[Any]:
    """A head without CPUs, and two nodes with two CPUs each: "left" in zone a with a disk, "right" in zone b."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for name, labels in LABELS.items():
            cluster.add_node(num_cpus=2, resources={name: 10}, labels=labels)
        ray.init(cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(autouse=True)
def all_is_given_back(machine_room: Any) -> Iterator[None]:
    yield

    def all_are_free() -> bool:
        gc.collect()
        free, total = ray.available_resources(), ray.cluster_resources()
        return all(free.get(name) == total.get(name) for name in ("CPU", "left", "right"))

    wait_until(all_are_free, 2 * PATIENCE, "every CPU to be free after the test")
    check_whole_state(machine_room.address)


@pytest.fixture
def new_node(machine_room: Any) -> Iterator[Callable[..., str]]:
    """Adds a node, and returns its id; `new_node.kill(id)` ends it, as do tests that forget to."""
    added: dict[str, Any] = {}

    def add(**options: Any) -> str:
        node = machine_room.add_node(**options)
        machine_room.wait_for_nodes()
        added[node.node_id] = node
        return str(node.node_id)

    def remove(id: str) -> None:
        machine_room.remove_node(added.pop(id))

    add.remove = remove  # type: ignore[attr-defined]
    yield add
    for id in list(added):
        remove(id)


def id_of(name: str) -> str:
    """The node "left", "right", or the "head"."""
    resource = "node:__internal_head__" if name == "head" else name
    (found,) = (node["NodeID"] for node in ray.nodes() if node["Alive"] and resource in node["Resources"])
    return str(found)


@ray.remote
def where(_argument: Any = None) -> str:
    return str(ray.get_runtime_context().get_node_id())


@ray.remote
def where_when(signal: Signal) -> str:
    signal.wait()
    return str(ray.get_runtime_context().get_node_id())


@ray.remote
class Actor:
    def where(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


# ---- affinity ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("soft", [False, True])
def test_085_affinity_chooses_the_node(soft: bool) -> None:
    for name in ("left", "right", "left"):
        strategy = NodeAffinitySchedulingStrategy(id_of(name), soft=soft)
        assert ray.get(where.options(scheduling_strategy=strategy).remote()) == id_of(name)
        actor = Actor.options(scheduling_strategy=strategy).remote()
        assert ray.get(actor.where.remote()) == id_of(name)


def test_085_affinity_with_a_node_without_cpus_works_for_what_needs_none() -> None:
    strategy = NodeAffinitySchedulingStrategy(id_of("head"), soft=False)
    assert ray.get(where.options(num_cpus=0, scheduling_strategy=strategy).remote()) == id_of("head")


def test_085_hard_affinity_waits_for_a_busy_node(signal: Signal) -> None:
    strategy = NodeAffinitySchedulingStrategy(id_of("left"), soft=False)
    holders = [where_when.options(scheduling_strategy=strategy).remote(signal) for _ in range(2)]
    late = where.options(scheduling_strategy=strategy).remote()
    assert ray.get(where.remote()) == id_of("right")
    assert ray.wait([late], timeout=0.2) == ([], [late])
    signal.set()
    assert ray.get([*holders, late]) == [id_of("left")] * 3


@pytest.mark.parametrize("unknown", ["f0" * 8, "0" * 56])
def test_085_hard_affinity_to_an_unknown_node_fails_at_once(unknown: str) -> None:
    strategy = NodeAffinitySchedulingStrategy(unknown, soft=False)
    with pytest.raises(TaskUnschedulableError, match=unknown):
        ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=PATIENCE)
    actor = Actor.options(scheduling_strategy=strategy).remote()
    with pytest.raises(ActorUnschedulableError, match=unknown):
        ray.get(actor.where.remote(), timeout=PATIENCE)


def test_085_soft_affinity_to_an_unknown_node_goes_elsewhere() -> None:
    strategy = NodeAffinitySchedulingStrategy("f0" * 8, soft=True)
    assert ray.get(where.options(scheduling_strategy=strategy).remote()) in {id_of("left"), id_of("right")}
    actor = Actor.options(scheduling_strategy=strategy).remote()
    assert ray.get(actor.where.remote()) in {id_of("left"), id_of("right")}


def test_085_affinity_to_a_node_that_can_never_run_it() -> None:
    hard = NodeAffinitySchedulingStrategy(id_of("head"), soft=False)
    with pytest.raises(TaskUnschedulableError):
        ray.get(where.options(scheduling_strategy=hard).remote(), timeout=PATIENCE)
    soft = NodeAffinitySchedulingStrategy(id_of("head"), soft=True)
    assert ray.get(where.options(scheduling_strategy=soft).remote()) != id_of("head")


def test_085_what_waits_for_a_node_that_leaves(new_node: Any, signal: Signal) -> None:
    """Hard: it fails. Soft: it goes elsewhere. An actor's calls say so too."""
    node = new_node(num_cpus=1)
    hard, soft = (NodeAffinitySchedulingStrategy(node, soft=soft) for soft in (False, True))
    holder = Holder.options(scheduling_strategy=hard).remote()
    ray.get(holder.ready.remote())
    pinned = where.options(scheduling_strategy=hard).remote()
    actor = Actor.options(scheduling_strategy=hard).remote()
    asked = actor.where.remote()
    loose = where.options(scheduling_strategy=soft).remote()
    assert ray.wait([pinned, asked, loose], timeout=0.2)[0] == []
    new_node.remove(node)
    with pytest.raises(TaskUnschedulableError, match=node):
        ray.get(pinned, timeout=2 * PATIENCE)
    with pytest.raises(ActorUnschedulableError, match=node):
        ray.get(asked, timeout=2 * PATIENCE)
    assert ray.get(loose, timeout=2 * PATIENCE) in {id_of("left"), id_of("right")}
    ray.kill(holder)


@ray.remote(num_cpus=1)
class Holder:
    def ready(self) -> None:
        pass


# ---- labels --------------------------------------------------------------------------------------------------------
def test_every_node_has_its_id_as_a_label() -> None:
    for node in ray.nodes():
        assert node["Labels"]["ray.io/node-id"] == node["NodeID"]
    left = next(node for node in ray.nodes() if node["NodeID"] == id_of("left"))
    assert LABELS["left"].items() <= left["Labels"].items()


def test_a_task_can_read_the_labels_of_its_node() -> None:
    @ray.remote(label_selector={"zone": "b"})
    def labels() -> dict[str, str]:
        return ray.get_runtime_context().get_node_labels()

    found = ray.get(labels.remote())
    assert (found["zone"], found["ray.io/node-id"]) == ("b", id_of("right"))


@pytest.mark.parametrize(
    "selector, name",
    [
        ({"zone": "a"}, "left"),
        ({"zone": "b"}, "right"),
        ({"zone": "!a", "disk": "!hdd", "ray.io/node-id": "!{head}"}, "right"),
        ({"zone": "in(b, c)"}, "right"),
        ({"zone": "in(a,b)", "disk": "ssd"}, "left"),
        ({"zone": "!in(b,c)", "disk": "in(ssd)"}, "left"),
        ({"ray.io/node-id": "{left}"}, "left"),
    ],
)
def test_a_label_selector_chooses_the_node(selector: dict[str, str], name: str) -> None:
    ids = {each: id_of(each) for each in ("head", "left", "right")}
    selector = {label: value.format(**ids) for label, value in selector.items()}
    assert ray.get(where.options(label_selector=selector).remote()) == ids[name]
    actor = Actor.options(label_selector=selector).remote()
    assert ray.get(actor.where.remote()) == ids[name]


@pytest.mark.parametrize(
    "hard, name",
    [
        ({"zone": In("a", "c")}, "left"),
        ({"zone": NotIn("a"), "disk": DoesNotExist()}, "right"),
        ({"disk": Exists()}, "left"),
        ({"zone": Exists(), "disk": DoesNotExist()}, "right"),
    ],
)
def test_a_node_label_strategy_chooses_the_node(hard: dict[str, Any], name: str) -> None:
    strategy = NodeLabelSchedulingStrategy(hard=hard)
    assert ray.get(where.options(scheduling_strategy=strategy).remote()) == id_of(name)
    actor = Actor.options(scheduling_strategy=strategy).remote()
    assert ray.get(actor.where.remote()) == id_of(name)


def test_soft_labels_are_preferred_while_there_is_room(signal: Signal) -> None:
    strategy = NodeLabelSchedulingStrategy(hard={"zone": Exists()}, soft={"zone": In("b")})
    holders = [where_when.options(scheduling_strategy=strategy).remote(signal) for _ in range(2)]
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="two tasks to start")
    assert ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=PATIENCE) == id_of("left")
    signal.set()
    assert ray.get(holders) == [id_of("right")] * 2


def test_fallbacks_are_tried_in_turn(signal: Signal) -> None:
    fallback = [{"label_selector": {"zone": "nowhere"}}, {"label_selector": {"zone": "b"}}]
    task = where.options(label_selector={"zone": "none"}, fallback_strategy=fallback)
    assert ray.get(task.remote(), timeout=PATIENCE) == id_of("right")
    task = where.options(label_selector={"zone": "a"}, fallback_strategy=fallback)
    assert [ray.get(task.remote(), timeout=PATIENCE) for _ in range(4)] == [id_of("left")] * 4
    holders = [where_when.options(label_selector={"zone": "a"}).remote(signal) for _ in range(2)]
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="zone a to be full")
    assert ray.get(task.remote(), timeout=PATIENCE) == id_of("right"), "a fallback does not wait for what is busy"
    signal.set()
    ray.get(holders)


def test_085_work_whose_labels_no_node_has_waits_for_one(new_node: Any) -> None:
    waiting = where.options(label_selector={"zone": "late"}).remote()
    with pytest.raises(GetTimeoutError):
        ray.get(waiting, timeout=0.2)
    node = new_node(num_cpus=1, labels={"zone": "late"})
    assert ray.get(waiting) == node


def test_085_a_driver_is_warned_once_of_what_no_node_can_run(machine_room: Any, tmp_path: Path, signal: Signal) -> None:
    driver = Driver(
        tmp_path,
        """
        import sys
        import redray as ray
        from redray.util.placement_group import placement_group
        from redray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
        from tests.helpers import Signal
        ray.init(sys.argv[1])
        @ray.remote
        def nothing():
            pass
        nowhere = nothing.options(label_selector={"zone": "nowhere"})
        group = placement_group([{"CPU": 99}])
        refs = [nothing.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()]
        refs += [nowhere.remote() for _ in range(3)]
        Signal(sys.argv[2] + "-1").wait()
        refs += [nowhere.remote(), nothing.options(num_gpus=9).remote()]
        Signal(sys.argv[2]).wait()
        """,
        [machine_room.address, signal.path],
    )
    try:
        driver.wait_for_output("zone=nowhere")
        Signal(Path(f"{signal.path}-1")).set()
        driver.wait_for_output("9 GPU")  # by then every node has seen both many times
        signal.set()
        out = driver.finish()
        assert out.count("zone=nowhere") == 1
        assert "no node of the cluster has such labels" in out
        assert "_group_" not in out, "a task that waits for its group can still run some day"
    finally:
        driver.kill()


def test_accelerator_type_is_a_resource(new_node: Any) -> None:
    waiting = where.options(accelerator_type="A100").remote()
    assert ray.wait([waiting], timeout=0.1)[0] == []
    node = new_node(num_cpus=1, resources={"accelerator_type:A100": 1})
    assert ray.get(waiting) == node


# ---- spread, pack, nearness ----------------------------------------------------------------------------------------
def test_spread_takes_nodes_by_turns() -> None:
    found = [ray.get(where.options(scheduling_strategy="SPREAD").remote()) for _ in range(8)]
    assert Counter(found) == {id_of("left"): 4, id_of("right"): 4}


def test_spread_divides_what_comes_at_once(signal: Signal) -> None:
    refs = [where_when.options(scheduling_strategy="SPREAD").remote(signal) for _ in range(4)]
    signal.set()
    assert Counter(ray.get(refs)) == {id_of("left"): 2, id_of("right"): 2}


def test_spread_actors() -> None:
    actors = [Actor.options(scheduling_strategy="SPREAD").remote() for _ in range(4)]
    assert Counter(ray.get([actor.where.remote() for actor in actors])) == {id_of("left"): 2, id_of("right"): 2}


def test_086_actors_without_resources_go_everywhere() -> None:
    actors = [Actor.options(num_cpus=0).remote() for _ in range(12)]
    assert set(ray.get([actor.where.remote() for actor in actors])) == {id_of(n) for n in ("head", "left", "right")}


def test_086_a_node_is_packed_until_half_of_it_is_used(signal: Signal) -> None:
    holders = [where_when.remote(signal) for _ in range(2)]
    signal.set()
    assert len(set(ray.get(holders))) == 2


def test_086_a_task_goes_to_its_large_arguments() -> None:
    @ray.remote
    def make() -> Any:
        return np.zeros(1_000_000)

    for name in ("left", "right", "left", "right"):
        big = make.options(resources={name: 1}).remote()
        assert ray.get(where.remote(big)) == id_of(name)


def test_086_but_not_when_that_node_is_busy(signal: Signal) -> None:
    @ray.remote
    def make() -> Any:
        return np.zeros(1_000_000)

    big = make.options(resources={"left": 1}).remote()
    strategy = NodeAffinitySchedulingStrategy(id_of("left"), soft=False)
    ray.wait([big], fetch_local=False)
    holders = [where_when.options(scheduling_strategy=strategy).remote(signal) for _ in range(2)]
    wait_until(lambda: ray.available_resources().get("CPU") == 2, what="two tasks to start")
    assert ray.get(where.remote(big), timeout=PATIENCE) == id_of("right")
    signal.set()
    ray.get(holders)
