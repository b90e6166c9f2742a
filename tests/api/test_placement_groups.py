"""Placement groups on one node: spec lines 83, 87 and 88."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    GetTimeoutError,
    RaySystemError,
    TaskPlacementGroupRemoved,
    WorkerCrashedError,
)
from redray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from redray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.helpers import Driver, Journal, Signal, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

ON_ONE_NODE = True

SOON = 20.0


@pytest.fixture
def group() -> Iterator[PlacementGroup]:
    """Two bundles: a CPU; a CPU and a GPU."""
    made = placement_group([{"CPU": 1}, {"CPU": 1, "GPU": 1}])
    assert made.wait(SOON)
    yield made
    remove_placement_group(made)


def inside(group: Any, index: int = -1, capture: bool | None = None) -> dict[str, Any]:
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, index, capture)}


@ray.remote
def facts() -> tuple[Any, ...]:
    context = ray.get_runtime_context()
    return (
        context.get_assigned_resources(),
        context.get_placement_group_id(),
        context.should_capture_child_tasks_in_placement_group,
        get_current_placement_group(),
    )


@ray.remote
def hold(begun: Signal, signal: Signal) -> str:
    begun.set()
    signal.wait()
    return "done"


@ray.remote
class Actor:
    def facts(self) -> tuple[Any, ...]:
        context = ray.get_runtime_context()
        return context.get_assigned_resources(), context.get_placement_group_id(), get_current_placement_group()

    def pid(self) -> int:
        return os.getpid()

    def hold(self, begun: Signal, signal: Signal) -> None:
        begun.set()
        signal.wait()


def state_of(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


# ---- made ------------------------------------------------------------------------------------------------------------
@pytest.mark.one_node("it names the node")
def test_087_a_group_is_ready_when_its_bundles_are_reserved(group: PlacementGroup) -> None:
    assert ray.get(group.ready(), timeout=SOON) == group
    assert group.wait(SOON) is True
    assert ray.wait([group.ready()], timeout=SOON)[1] == []
    row = placement_group_table(group)
    assert row["state"] == "CREATED"
    assert row["strategy"] == "PACK"
    assert row["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0, "GPU": 1.0}}
    assert set(row["bundles_to_node_id"].values()) == {ray.nodes()[0]["NodeID"]}
    assert placement_group_table()[group.id.hex()] == row


def test_087_what_is_reserved_is_taken_from_everybody_else(group: PlacementGroup) -> None:
    id = group.id.hex()
    wait_until(lambda: "CPU" not in ray.available_resources(), what="the group's CPUs to be taken")
    wait_until(lambda: ray.available_resources().get(f"CPU_group_{id}") == 2, what="the group's own to be known")
    free, total = ray.available_resources(), ray.cluster_resources()
    assert (free["GPU"], total["CPU"], total["GPU"]) == (1, 2, 2)
    for resources in (free, total):
        assert resources[f"CPU_group_{id}"] == 2
        assert resources[f"CPU_group_0_{id}"] == resources[f"CPU_group_1_{id}"] == 1
        assert resources[f"bundle_group_{id}"] == 2000
    outside = facts.remote()
    assert ray.wait([outside], timeout=0.2)[0] == []
    remove_placement_group(group)
    assert ray.get(outside, timeout=SOON)[1] is None


def test_087_a_group_that_does_not_fit_waits_all_or_nothing(signal: Signal, tmp_path: Path) -> None:
    begun = Signal(tmp_path / "begun")
    task = hold.remote(begun, signal)
    begun.wait()
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert group.wait(0.2) is False
    with pytest.raises(GetTimeoutError):
        ray.get(group.ready(), timeout=0)
    assert state_of(group) == "PENDING"
    assert ray.get(facts.remote(), timeout=SOON)[1] is None, "the CPU that is free was not taken for half a group"
    signal.set()
    assert ray.get(task) == "done"
    assert group.wait(SOON)
    remove_placement_group(group)


def test_087_a_group_that_can_never_fit_waits_for_ever() -> None:
    group = placement_group([{"CPU": 100}])
    assert group.wait(0.1) is False
    assert group.wait(0) is False
    later = placement_group([{"CPU": 1}])
    assert later.wait(SOON), "it does not stand in the way of others"
    for each in (group, later):
        remove_placement_group(each)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ('[{"CPU": 1}, {"unobtainable": 1}]', "bundle unobtainable:1"),
        ('[{"CPU": 1}] * 2, "STRICT_PACK"', "all of its bundles together"),
        ('[{"CPU": 0.1}] * 2, "STRICT_SPREAD"', "needs 2 nodes"),
        ('[{"CPU": 1}] * 2', "the whole cluster"),
    ],
)
def test_087_a_group_that_can_never_fit_is_warned_of(tmp_path: Path, arguments: str, reason: str) -> None:
    driver = Driver(
        tmp_path,
        f"""
        import redray as ray
        from redray.util import placement_group
        ray.init("local", num_cpus=1, include_dashboard=False)
        group = placement_group({arguments}, name="hopeless")
        assert not group.wait(20)
        """,
    )
    try:
        assert "hopeless" in driver.wait_for_output(reason)
    finally:
        driver.kill()


def test_087_a_group_waits_for_the_one_before_it(group: PlacementGroup) -> None:
    following = [placement_group([{"CPU": 2}]) for _ in range(3)]
    assert not following[0].wait(0.1)
    remove_placement_group(group)
    for each in following:
        assert each.wait(SOON)
        remove_placement_group(each)


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_087_strategies_that_one_node_can_follow(strategy: str) -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}, {"disk": 1}], strategy=strategy)
    assert group.wait(SOON)
    remove_placement_group(group)


def test_087_strict_spread_needs_a_node_for_each_bundle() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert not group.wait(0.2)
    remove_placement_group(group)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bundles": []},
        {"bundles": [{}]},
        {"bundles": [{"CPU": 0}]},
        {"bundles": [{"CPU": 1}, {"CPU": 0, "GPU": 0}]},
        {"bundles": "CPU"},
        {"bundles": {"CPU": 1}},
        {"bundles": [{"CPU": "1"}]},
        {"bundles": [{1: 1}]},
        {"bundles": [{"CPU": 1}], "strategy": "CLOSE"},
        {"bundles": [{"CPU": 1}], "lifetime": "short"},
        {"bundles": [{"CPU": 1}], "strategy": "PACK", "topology_strategy": {}},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": [{}, {}]},
        {"bundles": [{"CPU": 1}], "_soft_target_node_id": "00"},
    ],
)
def test_087_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        placement_group(**arguments)


def test_087_what_a_handle_says(group: PlacementGroup) -> None:
    assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert group.bundle_count == 2
    assert not group.is_empty
    copy = pickle.loads(pickle.dumps(group))
    assert (copy, hash(copy), copy.bundle_specs) == (group, hash(group), group.bundle_specs)
    assert PlacementGroup(group.id).bundle_count == 2, "a bare id finds its bundles"
    assert PlacementGroup.empty().is_empty
    assert ray.get(PlacementGroup.empty().ready(), timeout=SOON).is_empty

    @ray.remote
    def use(passed: PlacementGroup) -> bool:
        return passed.wait(SOON) and ray.get(passed.ready(), timeout=SOON) == passed

    assert ray.get(use.options(**inside(group)).remote(group), timeout=SOON)


# ---- used ------------------------------------------------------------------------------------------------------------
def test_087_a_task_runs_in_its_group(group: PlacementGroup) -> None:
    id = group.id.hex()
    assert ray.get(facts.options(**inside(group)).remote(), timeout=SOON) == ({"CPU": 1.0}, id, False, group)
    assert ray.get(facts.options(**inside(group, 1), num_gpus=1).remote(), timeout=SOON)[0] == {"CPU": 1.0, "GPU": 1.0}
    assert ray.get(facts.options(**inside(group), num_cpus=0).remote(), timeout=SOON) == ({}, id, False, group)
    old = facts.options(placement_group=group, placement_group_bundle_index=1)
    assert ray.get(old.remote(), timeout=SOON)[1] == id


def test_087_nothing_outside_of_a_group() -> None:
    assert get_current_placement_group() is None
    assert ray.get_runtime_context().get_placement_group_id() is None
    remove = {"placement_group": None}
    assert ray.get(facts.options(**remove).remote(), timeout=SOON) == ({"CPU": 1.0}, None, False, None)
    assert ray.get(facts.options(**inside(None)).remote(), timeout=SOON) == ({"CPU": 1.0}, None, False, None)


def test_087_actors_live_in_their_group(group: PlacementGroup) -> None:
    default = Actor.options(**inside(group)).remote()
    assert ray.get(default.facts.remote(), timeout=SOON) == ({}, group.id.hex(), group)
    held = Actor.options(**inside(group, 0), num_cpus=1).remote()
    assert ray.get(held.facts.remote(), timeout=SOON) == ({"CPU": 1.0}, group.id.hex(), group)
    other = facts.options(**inside(group, 0)).remote()
    assert ray.wait([other], timeout=0.2)[0] == [], "the actor holds the bundle's CPU"
    del held
    assert ray.get(other, timeout=SOON)


def test_087_gpus_of_a_bundle_are_its_own() -> None:
    groups = [placement_group([{"GPU": 1, "CPU": 1}]) for _ in range(2)]
    assert all(group.wait(SOON) for group in groups)

    @ray.remote(num_gpus=1)
    def gpus() -> list[Any]:
        return list(ray.get_gpu_ids())

    found = [ray.get(gpus.options(**inside(group)).remote(), timeout=SOON) for group in groups]
    assert sorted(map(str, [*found[0], *found[1]])) == ["0", "1"]
    assert found[0] == ray.get(gpus.options(**inside(groups[0])).remote(), timeout=SOON)
    for group in groups:
        remove_placement_group(group)


def test_087_a_task_waits_for_its_group(signal: Signal, tmp_path: Path) -> None:
    begun = Signal(tmp_path / "begun")
    task = hold.options(num_cpus=2).remote(begun, signal)
    begun.wait()
    group = placement_group([{"CPU": 1}])
    early = facts.options(**inside(group)).remote()
    assert ray.wait([early], timeout=0.2)[0] == []
    signal.set()
    assert ray.get(early, timeout=SOON)[1] == group.id.hex()
    ray.get(task)
    remove_placement_group(group)


@pytest.mark.parametrize("index", [2, -2, 7])
def test_087_a_bundle_that_does_not_exist(group: PlacementGroup, index: int) -> None:
    with pytest.raises(ValueError, match="bundle index"):
        facts.options(**inside(group, index)).remote()
    with pytest.raises(ValueError, match="bundle index"):
        Actor.options(placement_group=group, placement_group_bundle_index=index).remote()


@pytest.mark.parametrize("options", [{"num_cpus": 2}, {"resources": {"disk": 1}}, {"num_gpus": 2}])
def test_087_a_demand_that_fits_into_no_bundle(group: PlacementGroup, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        facts.options(**inside(group), **options).remote()
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        Actor.options(**inside(group), **options).remote()


def test_087_a_default_actor_needs_a_cpu_to_be_placed() -> None:
    group = placement_group([{"GPU": 1}])
    with pytest.raises(ValueError, match="CPU for creation"):
        Actor.options(**inside(group)).remote()
    remove_placement_group(group)


def test_087_the_group_is_named_once(group: PlacementGroup) -> None:
    with pytest.raises(ValueError):
        facts.options(placement_group=group, scheduling_strategy="SPREAD").remote()
    with pytest.raises(ValueError):
        facts.options(placement_group_bundle_index=1).remote()


def test_083_a_task_blocked_in_a_bundle_lends_the_bundles_cpu() -> None:
    group = placement_group([{"CPU": 1}])

    @ray.remote
    def factorial(number: int) -> int:
        if number <= 1:
            return 1
        return number * int(ray.get(factorial.options(**inside(group)).remote(number - 1)))

    assert ray.get(factorial.options(**inside(group)).remote(5), timeout=SOON) == 120
    indexed = factorial.options(**inside(group, 0, True))
    assert ray.get(indexed.remote(4), timeout=SOON) == 24
    remove_placement_group(group)


def test_088_children_are_captured_only_when_asked(group: PlacementGroup) -> None:
    @ray.remote
    def parent() -> tuple[Any, ...]:
        child = facts.options(num_cpus=0)
        return ray.get([child.remote(), child.options(placement_group=None).remote()])

    captured, left_out = ray.get(parent.options(**inside(group, 0, True)).remote(), timeout=SOON)
    assert captured[1:3] == (group.id.hex(), True)
    assert left_out[1:3] == (None, False)
    free, _ = ray.get(parent.options(**inside(group, 0)).remote(), timeout=SOON)
    assert free[1:3] == (None, False)


def test_088_what_a_captured_actor_starts_is_captured(group: PlacementGroup) -> None:
    @ray.remote
    class Parent:
        def child(self) -> Any:
            return ray.get(facts.options(num_cpus=0).remote())

    parent = Parent.options(**inside(group, 0, True)).remote()
    assert ray.get(parent.child.remote(), timeout=SOON)[1:3] == (group.id.hex(), True)


# ---- removed ---------------------------------------------------------------------------------------------------------
def test_088_removal_ends_running_and_waiting_tasks(group: PlacementGroup, signal: Signal, tmp_path: Path) -> None:
    begun = Signal(tmp_path / "begun")
    running = hold.options(**inside(group, 0), max_retries=3).remote(begun, signal)
    begun.wait()
    waiting = [facts.options(**inside(group, 0)).remote() for _ in range(3)]
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved) as killed:
        ray.get(running, timeout=SOON)
    assert isinstance(killed.value, WorkerCrashedError), "as Ray has it for a task without retries"
    for each in waiting:
        with pytest.raises(TaskPlacementGroupRemoved):
            ray.get(each, timeout=SOON)
    assert state_of(group) == "REMOVED"
    assert ray.get(facts.options(num_cpus=2).remote(), timeout=SOON)[1] is None, "everything is given back"


def test_088_removal_ends_actors(group: PlacementGroup, signal: Signal, tmp_path: Path) -> None:
    begun = Signal(tmp_path / "begun")
    holder = Actor.options(**inside(group, 0), num_cpus=1, max_restarts=-1).remote()
    default = Actor.options(**inside(group, 1)).remote()
    ray.get(default.pid.remote(), timeout=SOON)
    running = holder.hold.remote(begun, signal)
    begun.wait()
    never = Actor.options(**inside(group, 0), num_cpus=1).remote()
    waiting = never.pid.remote()
    remove_placement_group(group)
    for call in (running, holder.pid.remote(), waiting, never.pid.remote(), default.pid.remote()):
        with pytest.raises(ActorPlacementGroupRemoved) as killed:
            ray.get(call, timeout=SOON)
        assert isinstance(killed.value, ActorDiedError)


def test_088_after_the_removal(group: PlacementGroup) -> None:
    before = group.ready()
    assert ray.get(before, timeout=SOON) == group
    remove_placement_group(group)
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        ray.get(group.ready(), timeout=SOON)
    with pytest.raises(RaySystemError, match="does not exist"):
        group.wait(SOON)
    with pytest.raises(TaskPlacementGroupRemoved):
        ray.get(facts.options(**inside(group)).remote(), timeout=SOON)
    with pytest.raises(ActorPlacementGroupRemoved):
        ray.get(Actor.options(**inside(group)).remote().pid.remote(), timeout=SOON)
    assert ray.get(before, timeout=SOON) == group, "a value that was seen stays"


def test_088_removal_of_a_group_that_waits(signal: Signal) -> None:
    group = placement_group([{"CPU": 100}])
    ready = [group.ready(), group.ready()]
    task = facts.options(**inside(group)).remote()
    remove_placement_group(group)
    for ref in (*ready, task):
        with pytest.raises(TaskPlacementGroupRemoved):
            ray.get(ref, timeout=SOON)


def test_088_a_task_that_becomes_ready_in_a_group_that_is_gone(
    group: PlacementGroup, signal: Signal, tmp_path: Path
) -> None:
    @ray.remote
    def after(_: Any) -> None:
        pass

    first = hold.options(**inside(group, 0)).remote(Signal(tmp_path / "begun"), signal)
    other = hold.options(num_cpus=0).remote(Signal(tmp_path / "other"), signal)
    late = after.options(**inside(group, 0)).remote(other)
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        ray.get(first, timeout=SOON)
    signal.set()
    with pytest.raises(TaskPlacementGroupRemoved):
        ray.get(late, timeout=SOON)


def test_088_a_crash_in_a_group_is_retried_there(group: PlacementGroup, journal: Journal) -> None:
    @ray.remote(max_retries=2)
    def crash_once() -> Any:
        if journal.add("ran") == 1:
            os.kill(os.getpid(), 9)
        return ray.get_runtime_context().get_placement_group_id()

    assert ray.get(crash_once.options(**inside(group, 0)).remote(), timeout=SOON) == group.id.hex()


# ---- names and lifetimes ---------------------------------------------------------------------------------------------
def test_088_a_group_is_found_by_name() -> None:
    group = placement_group([{"CPU": 1}], name="known")
    found = get_placement_group("known")
    assert found == group
    assert found.bundle_specs == [{"CPU": 1.0}]
    with pytest.raises(RaySystemError, match="already exists"):
        placement_group([{"CPU": 1}], name="known")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="known"):
        get_placement_group("known")
    again = placement_group([{"CPU": 1}], name="known")
    assert get_placement_group("known") == again != group
    remove_placement_group(again)
    with pytest.raises(ValueError):
        get_placement_group("")
    with pytest.raises(AssertionError):
        remove_placement_group(None)  # type: ignore[arg-type]


DRIVER = """
import sys
import redray as ray
from redray.util.placement_group import placement_group
ray.init(sys.argv[1], namespace="shared", log_to_driver=False)
ending = placement_group([{"CPU": 1}], name="ending")
staying = placement_group([{"CPU": 1}], name="staying", lifetime="detached")
assert ending.wait(20) and staying.wait(20)

@ray.remote
def make():
    group = placement_group([{"disk": 1}])
    return group.wait(20), group

assert ray.get(make.remote(), timeout=20)[0] if len(sys.argv) > 2 else True
print("made", ending.id.hex(), staying.id.hex())
"""


def test_088_a_group_ends_with_its_job_unless_it_is_detached(tmp_path: Path, address: str) -> None:
    driver = Driver(tmp_path, DRIVER, [address])
    try:
        _, ending, staying = driver.finish().split()[-3:]
    finally:
        driver.kill()
    wait_until(lambda: placement_group_table()[ending]["state"] == "REMOVED", what="the job's group to go")
    assert placement_group_table()[staying]["state"] == "CREATED"
    wait_until(lambda: ray.available_resources().get("CPU") == 1, what="the CPU of one group to be free")
    remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(staying)))
