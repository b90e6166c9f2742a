"""Where ready work goes: labels, targets, turns, nearness, and nodes that leave work to others."""

from __future__ import annotations

import json

import pytest

from redray.gcs import nodes
from redray.gcs.schema import LIMITS
from tests.lua.builders import (
    DRIVER,
    NODE,
    NODE2,
    NOW,
    WORKER,
    Cluster,
    call,
    failure,
    handle,
    packed,
    put_id,
    task_id,
    text,
)

T1, T2, T3, T4, A = (task_id(number) for number in (1, 2, 3, 4, 100))
HERE, THERE = f"ray.io/node-id={NODE}", f"ray.io/node-id={NODE2}"
GONE = "ray.io/node-id=" + "9" * 16


@pytest.fixture
def zones(cluster: Cluster) -> Cluster:
    """NODE is in zone a and has a disk, NODE2 in zone b; four CPUs each."""
    for node, labels in ((NODE, {"zone": "a", "disk": "ssd"}), (NODE2, {"zone": "b"})):
        cluster.connection.call("HSET", cluster.keys.node(node), "labels", json.dumps(labels))
        cluster.connection.call("HSET", cluster.keys.node(node), "resources", json.dumps({"CPU": 4}))
    return cluster


def idle(cluster: Cluster, node: str, offer: str = "CPU:4 of 4") -> None:
    cluster.connection.call("HSET", cluster.keys.idle, node, offer)


def rung(cluster: Cluster) -> set[str]:
    offers = cluster.hash(cluster.keys.idle)
    return {node for node, offer in offers.items() if " rung " in offer}


# ---- labels ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "where, takers",
    [
        ("zone=a", {NODE}),
        ("zone=b,c", {NODE2}),
        ("zone!=a", {NODE2}),
        ("disk", {NODE}),
        ("!disk", {NODE2}),
        ("zone=a,b&disk!=ssd", {NODE2}),
        ("zone=c", set()),
        ("nothing!=x&zone=a", {NODE}),
        ("%7Aone=%61", {NODE}),
        (HERE, {NODE}),
        (THERE + "&zone=b", {NODE2}),
        ("zone=c>zone=b", {NODE2}),
        ("zone=c>*", {NODE, NODE2}),
    ],
)
def test_only_nodes_whose_labels_match_take_it(zones: Cluster, where: str, takers: set[str]) -> None:
    zones.submit(packed(T1, where=where), packed(T2, where=where))
    assert {node for node in (NODE, NODE2) if zones.claimed(node, free="CPU:1")} == takers


def test_work_for_others_is_no_reason_to_queue_behind(zones: Cluster) -> None:
    zones.submit(packed(T1, where="zone=b"), packed(T2, where=THERE), packed(T3, where="zone=c"))
    assert text(zones.claim(NODE)[2]) == []
    assert text(zones.claim(NODE2, free="-")[2]) == ["CPU:1"]


def test_what_only_one_node_may_run_does_not_hide_the_rest(zones: Cluster) -> None:
    """A claim looks at a bounded number of queues."""
    many = [
        packed(task_id(number), where=THERE, demand=f"CPU:1,r{number}:1")
        for number in range(1, LIMITS["QUEUES_EXAMINED"] + 10)
    ]
    resources = {"CPU": 4, **{f"r{number}": 1 for number in range(1, len(many) + 1)}}
    zones.connection.call("HSET", zones.keys.node(NODE2), "resources", json.dumps(resources))
    zones.submit(*many, packed(A))
    assert zones.claimed(NODE) == [A]


def test_what_nobody_can_run_does_not_hide_the_rest(zones: Cluster) -> None:
    count = LIMITS["QUEUES_EXAMINED"]
    many = [packed(task_id(number), demand=f"r{number}:1") for number in range(1, count)]
    labelled = [packed(task_id(number), where=f"zone=x{number}") for number in range(count, 2 * count)]
    zones.submit(*many, *labelled, packed(task_id(999)))
    assert zones.claimed(NODE) == [task_id(999)]


def test_only_nodes_that_may_take_it_are_rung(zones: Cluster) -> None:
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.submit(packed(T1, where="zone=b"), packed(T2, where="zone=b"))
    assert rung(zones) == {NODE2}
    assert zones.heard(NODE, "ring") == []


# ---- preferences -----------------------------------------------------------------------------------------------------
def test_a_fallback_waits_for_a_node_that_could_ever_do(zones: Cluster) -> None:
    zones.submit(packed(T1, where="zone=b>*"), packed(T2, where="zone=b>*", demand="CPU:5"))
    assert zones.claimed(NODE, free="CPU:8 of 8") == [T2], "zone b has no five CPUs"
    assert zones.claimed(NODE2) == [T1]


def test_a_fallback_when_the_better_nodes_are_gone(zones: Cluster) -> None:
    zones.submit(packed(T1, where="zone=b>*"))
    assert zones.claimed(NODE) == []
    zones.reap(NODE2)
    assert zones.claimed(NODE) == [T1]


def test_the_better_node_first_while_it_comes(zones: Cluster) -> None:
    idle(zones, NODE2)
    zones.submit(packed(T1, where="zone=b~zone=a"))
    assert rung(zones) == {NODE2}
    assert zones.claimed(NODE) == []
    assert zones.claimed(NODE2) == [T1]


@pytest.mark.parametrize("offer", ["CPU:0.5 of 4", "CPU:4 of 4 rung 1000"])
def test_any_node_when_the_better_one_has_no_room_or_does_not_come(zones: Cluster, offer: str) -> None:
    idle(zones, NODE2, offer)
    zones.submit(packed(T1, where="zone=b~zone=a"))
    assert zones.claimed(NODE) == [T1]


# ---- nodes that are not there ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("where, why", [(GONE, "cluster"), (HERE + "&zone=b", "match"), (HERE, "CPU:5")])
def test_work_for_a_node_that_cannot_run_it_fails_at_once(zones: Cluster, where: str, why: str) -> None:
    zones.submit(packed(T1, where=where, demand="CPU:5" if why == "CPU:5" else "CPU:1"))
    assert zones.state(T1) == "FAILED"
    assert "TaskUnschedulableError" in zones.task(T1)["value"] and why in zones.task(T1)["value"]
    assert zones.heard(DRIVER, "value")


def test_with_another_choice_it_goes_there(zones: Cluster) -> None:
    zones.submit(packed(T1, where=GONE + ">*"), packed(T2, where=GONE + ">zone=b"))
    assert zones.claimed(NODE) == [T1]
    assert zones.claimed(NODE2) == [T2]


def test_an_actor_for_a_node_that_is_not_there_is_dead_at_once(zones: Cluster) -> None:
    assert zones.create_actor(A, where=GONE) == ["OK"]
    assert zones.hash(zones.keys.actor(A))["state"] == "DEAD"
    zones.submit(call(T1, A, 1))
    zones.chores()
    assert "ActorUnschedulableError" in zones.task(T1)["value"]
    zones.release(handle(A))


def test_what_waits_for_a_node_that_dies(zones: Cluster) -> None:
    zones.submit(packed(T1, where=THERE), packed(T2, where=THERE + ">*"))
    zones.create_actor(A, where=THERE)
    assert zones.claimed(NODE) == []
    zones.reap(NODE2)
    zones.chores()
    assert (zones.state(T1), zones.state(T2)) == ("FAILED", "QUEUED")
    assert zones.hash(zones.keys.actor(A))["state"] == "DEAD"
    assert zones.claimed(NODE) == [T2]


def test_what_ran_on_a_node_that_dies_and_may_run_nowhere_else(zones: Cluster) -> None:
    zones.submit(packed(T1, where=THERE))
    assert zones.claimed(NODE2) == [T1]
    zones.reap(NODE2)
    zones.chores()
    assert "TaskUnschedulableError" in zones.task(T1)["value"]


def test_an_argument_comes_after_the_node_has_gone(zones: Cluster) -> None:
    zones.submit(packed(T1))
    zones.submit(packed(T2, where=THERE, waits_for=[T1 + "00000000"]))
    zones.reap(NODE2)
    zones.claim(NODE)
    zones.finish(failure(T1, "CANCELLED"))
    zones.chores()
    assert "TaskUnschedulableError" in zones.task(T2)["value"]


def test_cancelled_while_it_waits_for_one_node(zones: Cluster) -> None:
    zones.submit(packed(T1, where=THERE), packed(T2, where="zone=b"))
    assert zones.cancel(T1)[0] == zones.cancel(T2)[0] == "OK"
    assert zones.claimed(NODE2) == []


def test_handed_back_it_waits_for_the_same_node(zones: Cluster) -> None:
    zones.submit(packed(T1, where=THERE))
    zones.claim(NODE2)
    zones.finish(failure(T1, "HANDED_BACK"), node=NODE2)
    assert zones.claimed(NODE) == []
    assert zones.claimed(NODE2) == [T1]


# ---- by turns --------------------------------------------------------------------------------------------------------
def test_spread_goes_over_the_nodes_by_turns(zones: Cluster) -> None:
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.submit(*(packed(task_id(number), where="SPREAD") for number in range(1, 5)))
    assert rung(zones) == {NODE, NODE2}
    assert len(zones.claimed(NODE, free="CPU:4 of 4")) == len(zones.claimed(NODE2, free="CPU:4 of 4")) == 2


def test_spread_over_some_of_the_nodes(zones: Cluster) -> None:
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.submit(*(packed(id, where="SPREAD zone=b") for id in (T1, T2)))
    assert zones.claimed(NODE) == []
    assert len(zones.claimed(NODE2)) == 2


def test_what_was_meant_for_a_node_that_turns_out_full_goes_to_another(zones: Cluster) -> None:
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.submit(*(packed(task_id(number), where="SPREAD") for number in range(1, 5)))
    assert len(zones.claimed(NODE)) == 2
    assert zones.claimed(NODE2, free="- of 4") == []
    assert len(zones.claimed(NODE)) == 2


def test_an_actor_without_resources_goes_to_the_next_node(zones: Cluster) -> None:
    idle(zones, NODE)
    idle(zones, NODE2)
    for number in (100, 101):
        zones.create_actor(task_id(number), demand="-")
    assert len(zones.claimed(NODE)) == len(zones.claimed(NODE2)) == 1


# ---- near the arguments ----------------------------------------------------------------------------------------------
def test_a_task_is_offered_to_the_node_with_its_arguments(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.submit(packed(T1, waits_for=[put_id(50)]))
    assert rung(zones) == {NODE2}
    assert zones.claimed(NODE) == []
    assert zones.claimed(NODE2) == [T1]


def test_when_that_node_is_busy_another_takes_it(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    idle(zones, NODE)
    zones.submit(packed(T1, waits_for=[put_id(50)]))
    assert rung(zones) == {NODE}
    assert zones.claimed(NODE) == [T1]


def test_of_two_a_node_takes_first_what_is_near(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    zones.put(put_id(51), node=NODE)
    near = [packed(id, waits_for=[put_id(number)]) for id, number in ((T1, 50), (T2, 51), (T3, 50), (T4, 51))]
    zones.submit(packed(task_id(9)), *near)
    assert zones.claimed(NODE, free="CPU:2") == [T2, T4]
    assert zones.claimed(NODE2, free="CPU:2") == [T1, T3]


def test_what_is_near_another_node_does_not_wait_for_ever(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    plain = [task_id(number) for number in range(10, 10 + 3 * LIMITS["NEAR_TURNS"])]
    zones.submit(packed(T1, waits_for=[put_id(50)]), *(packed(id) for id in plain))
    taken = [id for _ in range(2 * LIMITS["NEAR_TURNS"]) for id in zones.claimed(NODE, free="CPU:1")]
    assert T1 in taken and T1 not in taken[: LIMITS["NEAR_TURNS"]]


def test_a_node_that_cannot_run_it_is_not_near(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    zones.put(put_id(51), node=NODE)
    zones.connection.call("HSET", zones.keys.node(NODE2), "resources", json.dumps({"CPU": 0}))
    zones.submit(packed(T1, waits_for=[put_id(50)]), packed(T2, waits_for=[put_id(50), put_id(51)]))
    queues = text(zones.connection.call("ZRANGE", zones.keys.queues, 0, -1))
    assert sorted(queues) == sorted([f"CPU:1|{DRIVER}", f"CPU:1|{HERE}~*|{DRIVER}"])


@pytest.mark.parametrize(
    "where, fits", [("", 1), ("zone=a", 1), (HERE, 1), ("zone=b~zone=a", 1), ("zone=b", 0), (THERE, 0), ("zone=c", 0)]
)
def test_a_renewal_says_whether_something_waits_that_fits(zones: Cluster, where: str, fits: int) -> None:
    def renewed(free: str) -> int:
        return int(zones.run(nodes.renew(zones.keys, f"node:{NODE}", NOW, free))[-1])

    assert renewed("CPU:4") == 0
    zones.submit(packed(T1, where=where))
    assert (renewed("CPU:4"), renewed(""), renewed("CPU:0.5")) == (fits, fits, 0)


def test_actors_do_not_follow_their_arguments(zones: Cluster) -> None:
    zones.put(put_id(50), node=NODE2)
    idle(zones, NODE)
    idle(zones, NODE2)
    zones.create_actor(A, waits_for=[put_id(50)])
    assert zones.claimed(NODE) == [A]


# ---- half full, then the least used ----------------------------------------------------------------------------------
def test_a_node_leaves_to_others_what_is_beyond_half_of_it(zones: Cluster) -> None:
    idle(zones, NODE2)
    zones.submit(*(packed(task_id(number)) for number in range(1, 5)))
    assert len(zones.claimed(NODE, free="CPU:4 of 4")) == 2
    assert rung(zones) == {NODE2}
    assert len(zones.claimed(NODE2, free="CPU:4 of 4")) == 2


def test_alone_it_takes_all(zones: Cluster) -> None:
    zones.submit(*(packed(task_id(number)) for number in range(1, 5)))
    assert len(zones.claimed(NODE, free="CPU:4 of 4")) == 4


@pytest.mark.parametrize("offer", ["CPU:4 of 4 rung 1000", "CPU:0.5 of 4"])
def test_others_that_cannot_come_do_not_count(zones: Cluster, offer: str) -> None:
    idle(zones, NODE2, offer)
    zones.submit(*(packed(task_id(number)) for number in range(1, 5)))
    assert len(zones.claimed(NODE, free="CPU:4 of 4")) == 4


def test_beyond_half_the_least_used_takes_it(zones: Cluster) -> None:
    idle(zones, NODE2, "CPU:1 of 4")
    zones.submit(packed(T1), packed(T2))
    assert zones.claimed(NODE, free="CPU:2 of 4") == [T1, T2], "up to the three of four that the other one has in use"
    idle(zones, NODE2, "CPU:2 of 4")
    zones.submit(packed(T3))
    assert zones.claimed(NODE, free="CPU:1 of 4") == []
    assert zones.claimed(NODE2, free="CPU:2 of 4") == [T3]


def test_the_least_used_node_is_rung(zones: Cluster) -> None:
    idle(zones, NODE, "CPU:1 of 4")
    idle(zones, NODE2, "CPU:2 of 4")
    zones.submit(packed(T1))
    assert rung(zones) == {NODE2}


def test_what_uses_no_cpus_is_not_counted(zones: Cluster) -> None:
    idle(zones, NODE2)
    zones.submit(*(packed(task_id(number), demand="-") for number in range(1, 5)))
    assert len(zones.claimed(NODE, free="CPU:1 of 4")) == 4


def test_a_node_that_joins_is_announced(bare: Cluster) -> None:
    bare.node(NODE)
    bare.node(NODE2, NOW)
    assert bare.heard(NODE, "joined") == [(NODE2, "")]
    assert bare.heard(NODE2, "joined") == []


def test_a_worker_process_does_not_matter_here(zones: Cluster) -> None:
    """A task that a worker of NODE2 submits is placed like any other."""
    zones.worker(WORKER, NODE2)
    zones.submit(packed(task_id(1, WORKER), job=DRIVER, where="zone=a"), by=WORKER)
    assert zones.claimed(NODE2) == []
    assert zones.claimed(NODE) == [task_id(1, WORKER)]
