"""Placement groups in Redis: placing, granting, waiting, removal; and every fault that docs/decisions names."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from redray.resources import group_demand
from redray.spec import unpack_head
from tests.lua.builders import (
    DRIVER,
    LATER,
    NODE,
    NODE2,
    OTHER,
    Cluster,
    call,
    failure,
    finish,
    packed,
    put_id,
    ready_id,
    returned,
    task_id,
)

G, H, K = task_id(101), task_id(102), task_id(103)
THIRD = "f0" * 8


@pytest.fixture
def nodes(cluster: Cluster) -> Cluster:
    """Two nodes that have 4 CPUs each."""
    for node in (NODE, NODE2):
        cluster.tell_free(node, "CPU:4,GPU:1")
    return cluster


def asked(cluster: Cluster, node: str) -> list[tuple[str, int, bool, list[Any]]]:
    """What a node was asked to set aside: (group, attempt, alone, [[index, demand], ...])."""
    found = []
    for _, parts in cluster.connection.call("XRANGE", cluster.keys.inbox(node), "-", "+"):
        for at in range(0, len(parts) - 2, 3):
            if parts[at] == b"reserve":
                attempt, alone, bundles = msgspec.msgpack.decode(parts[at + 2])
                found.append((parts[at + 1].decode(), attempt, bool(alone), bundles))
    return found


def places(cluster: Cluster, group: str) -> list[str]:
    return str(cluster.group(group)["places"]).split()


def waiting(cluster: Cluster) -> list[str]:
    return [id.decode() for id in cluster.connection.call("ZRANGE", cluster.keys.waiting_groups, 0, -1)]


def free(cluster: Cluster, node: str) -> dict[str, float]:
    parts = str(cluster.hash(cluster.keys.node(node))["free"]).split(",")
    return {part.split(":")[0]: float(part.split(":")[1]) for part in parts if part != "-"}


# ---- placing ---------------------------------------------------------------------------------------------------------
def test_one_node_takes_all_and_commits_alone(nodes: Cluster) -> None:
    assert nodes.create_group(G, ["CPU:1", "CPU:2"]) == ["OK"]
    assert asked(nodes, NODE) == [(G, 1, True, [[1, "CPU:2"], [0, "CPU:1"]])] or asked(nodes, NODE) == [
        (G, 1, True, [[0, "CPU:1"], [1, "CPU:2"]])
    ]
    assert asked(nodes, NODE2) == []
    assert free(nodes, NODE)["CPU"] == 1
    assert nodes.group(G)["state"] == "PENDING"
    nodes.answer(G)
    assert nodes.group(G)["state"] == "CREATED"
    assert nodes.heard(NODE, "commit") == []
    assert nodes.heard(DRIVER, "value") == [(ready_id(G), "Vgroup")]


def test_two_nodes_commit_when_both_have_granted(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:3", "CPU:3"])
    assert [asked(nodes, node)[0][2] for node in (NODE, NODE2)] == [False, False]
    nodes.answer(G)
    assert (nodes.group(G)["state"], nodes.heard(NODE, "commit"), nodes.heard(DRIVER, "value")) == ("PENDING", [], [])
    nodes.answer(G, node=NODE2)
    assert nodes.group(G)["state"] == "CREATED"
    assert nodes.heard(NODE, "commit") == nodes.heard(NODE2, "commit") == [(G, "")]


@pytest.mark.parametrize(
    "strategy, bundles, expected",
    [
        ("PACK", ["CPU:2", "CPU:2"], [[0, 0]]),
        ("PACK", ["CPU:2", "CPU:3"], [[0, 1], [1, 0]]),
        ("PACK", ["CPU:1", "GPU:1", "GPU:1"], [[0, 0, 1], [0, 1, 0]]),
        ("PACK", ["CPU:5"], None),
        ("STRICT_PACK", ["CPU:2", "CPU:2"], [[0, 0]]),
        ("STRICT_PACK", ["CPU:2", "CPU:3"], None),
        ("SPREAD", ["CPU:1", "CPU:1"], [[0, 1]]),
        ("SPREAD", ["CPU:1", "CPU:1", "CPU:1"], [[0, 1, 0], [0, 1, 1]]),
        ("SPREAD", ["CPU:3", "CPU:3", "CPU:2"], None),
        ("STRICT_SPREAD", ["CPU:1", "CPU:1"], [[0, 1]]),
        ("STRICT_SPREAD", ["CPU:1", "CPU:1", "CPU:1"], None),
        ("PACK", ["CPU:1,mark:1"], None),
    ],
)
def test_strategies(nodes: Cluster, strategy: str, bundles: list[str], expected: Any) -> None:
    nodes.create_group(G, bundles, strategy)
    if expected is None:
        assert (places(nodes, G), waiting(nodes)) == (["-"] * len(bundles), [G])
        assert free(nodes, NODE)["CPU"] == free(nodes, NODE2)["CPU"] == 4, "nothing is kept for half a group"
    else:
        assert [[NODE, NODE2].index(place) for place in places(nodes, G)] in expected


def test_packing_prefers_the_node_that_takes_most(nodes: Cluster) -> None:
    nodes.tell_free(NODE, "CPU:1")
    nodes.create_group(G, ["CPU:1", "CPU:1", "CPU:1"])
    assert places(nodes, G) == [NODE2] * 3


def test_draining_and_dead_nodes_are_not_asked(nodes: Cluster) -> None:
    nodes.connection.call("HSET", nodes.keys.node(NODE), "draining", "1")
    nodes.create_group(G, ["CPU:1"])
    assert places(nodes, G) == [NODE2]
    nodes.reap(NODE2)
    assert waiting(nodes) == [G]


# ---- refusals and waiting --------------------------------------------------------------------------------------------
def test_after_a_refusal_another_node_is_asked(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:2"])
    nodes.answer(G, granted=False, free="CPU:1")
    assert places(nodes, G) == [NODE2]
    assert (free(nodes, NODE)["CPU"], free(nodes, NODE2)["CPU"]) == (1, 2)
    nodes.answer(G, attempt=2, node=NODE2)
    assert nodes.group(G)["state"] == "CREATED"


def test_a_refusal_releases_what_others_granted(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:3", "CPU:3"])
    nodes.answer(G)
    nodes.answer(G, granted=False, node=NODE2, free="CPU:1")
    index = nodes.heard(NODE, "release")[0]
    assert index[0] == G and index[1] in ("0", "1")
    assert (places(nodes, G), waiting(nodes)) == (["-", "-"], [G])
    assert (free(nodes, NODE)["CPU"], free(nodes, NODE2)["CPU"]) == (4, 1)
    nodes.tell_free(NODE2, "CPU:4")
    assert (sorted(places(nodes, G)), waiting(nodes)) == ([NODE, NODE2], [])


def test_a_refusal_while_another_node_has_not_answered(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:3", "CPU:3"])
    nodes.answer(G, granted=False, node=NODE2, free="CPU:1")
    assert len(nodes.heard(NODE, "release")) == 1, "it will grant, and must release again"
    before = nodes.group(G)
    nodes.answer(G)
    assert nodes.group(G) == before, "a late answer of an attempt that is over"
    nodes.tell_free(NODE, "CPU:4,GPU:1")
    assert free(nodes, NODE)["CPU"] == 4


def test_room_is_counted_once_while_answers_are_on_their_way(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:4"])
    nodes.tell_free(NODE, "CPU:4,GPU:1")  # it has not heard yet
    nodes.create_group(H, ["CPU:4"])
    nodes.create_group(K, ["CPU:4"])
    assert [places(nodes, group) for group in (G, H, K)] == [[NODE], [NODE2], ["-"]]


def test_who_waits_longest_is_tried_first(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:6"], "STRICT_PACK")
    nodes.create_group(H, ["CPU:5"], "STRICT_PACK")
    assert waiting(nodes) == [G, H]
    nodes.tell_free(NODE, "CPU:6")
    assert (places(nodes, G), waiting(nodes)) == ([NODE], [H])
    nodes.answer(G, granted=False, free="CPU:5")
    assert waiting(nodes) == [G, H], "a refusal costs no place in the line"


def test_what_cannot_be_placed_does_not_block_the_rest(nodes: Cluster) -> None:
    never = [task_id(200 + number) for number in range(20)]
    for group in never:
        nodes.create_group(group, ["mark:1"])
    nodes.create_group(G, ["CPU:5"])
    nodes.tell_free(NODE, "CPU:5")
    nodes.tell_free(NODE, "CPU:5")
    assert places(nodes, G) == [NODE]
    assert sorted(waiting(nodes)) == sorted(never)


def test_a_new_node_is_room(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:8"])
    nodes.run(_register(nodes, THIRD, "CPU:8"))
    assert places(nodes, G) == [THIRD]


def _register(cluster: Cluster, id: str, free: str) -> Any:
    from redray.gcs import nodes as table

    cluster.routes[id] = "direct"
    return table.register(cluster.keys, id, 1_000_000, 1, {"free": free})


def test_a_renewal_tries_too(nodes: Cluster) -> None:
    from redray.gcs import nodes as table

    nodes.create_group(G, ["CPU:8"])
    reply = nodes.run(table.renew(nodes.keys, f"node:{NODE}", 1_000_000, "CPU:3"))
    assert reply[5] == 1
    reply = nodes.run(table.renew(nodes.keys, f"node:{NODE}", 1_000_000, "CPU:8"))
    assert (places(nodes, G), reply[5]) == ([NODE], 0)


# ---- ready -----------------------------------------------------------------------------------------------------------
def test_ready_objects_before_and_after(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:1"])
    early, late = put_id(1), put_id(2)
    nodes.group_ready(G, early)
    nodes.wait(early)
    nodes.answer(G)
    nodes.group_ready(G, late)
    assert [value for id, value in nodes.heard(DRIVER, "value") if id in (early, late)] == ["Vgroup", "Vgroup"]
    nodes.release(early, late, ready_id(G))
    assert nodes.members(nodes.keys.holds(DRIVER)) == set()
    assert nodes.object(early) == {}


def test_a_ready_object_that_nobody_wants_any_more(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:100"])
    nodes.release(ready_id(G))
    assert nodes.object(ready_id(G)) == {}
    nodes.create_group(H, ["CPU:100"])
    nodes.end(DRIVER)
    nodes.chores()
    assert nodes.object(ready_id(H)) == {}


def test_a_task_may_wait_for_a_group(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:100"])
    nodes.submit(packed(task_id(1), waits_for=[ready_id(G)]))
    nodes.release(ready_id(G))
    assert nodes.state(task_id(1)) == "WAITING"
    nodes.remove_group(G)
    assert nodes.state(task_id(1)) == "QUEUED"
    assert nodes.claimed() == [task_id(1)]


def test_more_waiters_than_a_slice(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:1"])
    for number in range(1, 701):
        nodes.group_ready(G, put_id(1000 + number))
    nodes.answer(G)
    nodes.chores()
    assert len(nodes.heard(DRIVER, "value")) == 701


# ---- removed ---------------------------------------------------------------------------------------------------------
def inside(group: str, task: str, **changes: Any) -> bytes:
    return packed(task, demand=group_demand("CPU:1", group, -1), **changes)


@pytest.fixture
def created(nodes: Cluster) -> Cluster:
    """G has 2 CPUs of NODE."""
    nodes.create_group(G, ["CPU:2"])
    nodes.answer(G)
    return nodes


def test_tasks_that_wait_in_a_group_end_with_it(created: Cluster) -> None:
    created.submit(inside(G, task_id(1)), inside(G, task_id(2), max_retries=-1))
    assert created.remove_group(G) == ["OK", 1]
    assert [created.state(task_id(number)) for number in (1, 2)] == ["FAILED", "FAILED"]
    assert all("TaskPlacementGroupRemoved" in value for _, value in created.heard(DRIVER, "value")[-2:])
    assert created.heard(NODE, "release") == [(G, "")]
    assert free(created, NODE)["CPU"] == 4
    assert created.remove_group(G) == ["OK", 0]


def test_more_tasks_than_a_slice(created: Cluster) -> None:
    created.submit(*(inside(G, task_id(number)) for number in range(1, 121)))
    created.remove_group(G)
    created.chores()
    assert {created.state(task_id(number)) for number in range(1, 121)} == {"FAILED"}


def test_what_comes_after_the_removal(created: Cluster) -> None:
    created.submit(packed(task_id(1)), inside(G, task_id(2), waits_for=[returned(task_id(1))]))
    created.claim(free="CPU:1", limit=1)
    created.remove_group(G)
    created.submit(inside(G, task_id(3)))
    assert created.state(task_id(3)) == "FAILED"
    created.finish(finish(task_id(1)))
    created.chores()
    assert created.state(task_id(2)) == "FAILED"


def test_a_running_task_is_not_retried(created: Cluster) -> None:
    created.submit(inside(G, task_id(1), max_retries=5))
    assert created.claimed(free=f"CPU_group_{G}:2") == [task_id(1)]
    created.remove_group(G)
    created.finish(failure(task_id(1), "REMOVED"))
    assert created.state(task_id(1)) == "FAILED"
    assert "TaskKilledWithPlacementGroup" in created.task(task_id(1))["value"]


def test_a_task_that_is_handed_back_too_late_ends(created: Cluster) -> None:
    created.submit(inside(G, task_id(1)))
    assert created.claimed(free=f"CPU_group_{G}:2") == [task_id(1)]
    created.remove_group(G)
    created.finish(failure(task_id(1), "HANDED_BACK"))
    created.chores()
    assert created.state(task_id(1)) == "FAILED"


def test_actors_end_with_their_group(created: Cluster) -> None:
    waiting_actor, alive = task_id(5), task_id(6)
    demand = group_demand("CPU:1", G, 0)
    created.create_actor(alive, demand=demand)
    assert created.claimed(free=f"CPU_group_{G}:2,CPU_group_0_{G}:2") == [alive]
    created.start_actor(alive)
    created.create_actor(waiting_actor, demand=demand)
    created.submit(call(task_id(7), waiting_actor, 1))
    created.remove_group(G)
    created.actor_died(alive, final=4)  # type: ignore[arg-type]
    created.submit(call(task_id(8), alive, 1))
    created.chores()
    for task in (7, 8):
        assert "ActorKilledWithPlacementGroup" in created.task(task_id(task))["value"]


def test_a_late_grant_of_a_group_that_was_removed(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:2"])
    nodes.remove_group(G)
    assert nodes.answer(G) == ["OK"]
    assert nodes.group(G)["state"] == "REMOVED"
    assert "TaskPlacementGroupRemoved" in nodes.heard(DRIVER, "value")[0][1]
    assert (free(nodes, NODE)["CPU"], nodes.heard(NODE, "release")) == (4, [(G, "")])


def test_a_removal_makes_room(created: Cluster) -> None:
    created.create_group(H, ["CPU:4", "CPU:4"])
    assert waiting(created) == [H]
    created.remove_group(G)
    assert waiting(created) == []


def test_names(nodes: Cluster) -> None:
    assert nodes.create_group(G, ["CPU:1"], name="n") == ["OK"]
    assert nodes.create_group(H, ["CPU:1"], name="n") == ["EXISTS", G]
    nodes.remove_group(G)
    assert nodes.create_group(H, ["CPU:1"], name="n") == ["OK"]


def test_removed_groups_are_remembered_up_to_a_limit(nodes: Cluster) -> None:
    for number in range(1, 1012):
        nodes.create_group(task_id(1000 + number), ["mark:1"])
        nodes.remove_group(task_id(1000 + number))
    assert nodes.connection.call("LLEN", nodes.keys.removed_groups) == 1000
    assert nodes.group(task_id(1001)) == {}


# ---- jobs and nodes end ----------------------------------------------------------------------------------------------
def test_groups_end_with_their_job(nodes: Cluster) -> None:
    nodes.driver(OTHER)
    nodes.create_group(G, ["CPU:1"], by=OTHER)
    nodes.create_group(H, ["CPU:1"], by=OTHER, detached=True)
    nodes.end(OTHER)
    nodes.chores()
    assert (nodes.group(G)["state"], nodes.group(H)["state"]) == ("REMOVED", "PENDING")
    assert nodes.create_group(K, ["CPU:1"], job=OTHER) == ["JOB_ENDED"]


def test_a_job_of_many_groups(nodes: Cluster) -> None:
    nodes.driver(OTHER)
    for number in range(120):
        nodes.create_group(task_id(200 + number), ["CPU:0.01"], by=OTHER)
    nodes.end(OTHER)
    nodes.chores()
    assert nodes.members(nodes.keys.groups) == set()
    assert free(nodes, NODE)["CPU"] == 4


def test_lost_bundles_are_placed_again(created: Cluster) -> None:
    created.submit(inside(G, task_id(1)))
    created.claim(free=f"CPU_group_{G}:2")
    created.reap(NODE)
    assert (created.group(G)["state"], places(created, G)) == ("RESCHEDULING", [NODE2])
    assert asked(created, NODE2)[-1][:3] == (G, 2, True)
    created.answer(G, attempt=2, node=NODE2)
    assert created.group(G)["state"] == "CREATED"
    assert [unpack_head(item[1]).task for item in created.claim(NODE2, free=f"CPU_group_{G}:2")[1]] == [task_id(1)]


def test_only_what_was_lost_is_placed_again(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:3", "CPU:2"])
    nodes.answer(G)
    nodes.answer(G, node=NODE2)
    before = places(nodes, G)
    nodes.reap(NODE)
    assert (nodes.group(G)["state"], waiting(nodes)) == ("RESCHEDULING", [G])
    assert places(nodes, G) == ["-" if place == NODE else place for place in before]
    nodes.create_group(H, ["CPU:5"])
    nodes.run(_register(nodes, THIRD, "CPU:5"))
    assert places(nodes, G) == [THIRD if place == NODE else place for place in before], "ahead of the others"
    nodes.answer(G, attempt=2, node=THIRD)
    assert nodes.group(G)["state"] == "CREATED"


def test_a_strict_spread_keeps_apart_what_is_placed_again(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:1", "CPU:1"], "STRICT_SPREAD")
    nodes.answer(G)
    nodes.answer(G, node=NODE2)
    nodes.reap(NODE)
    assert waiting(nodes) == [G], "the other node has room, but has a bundle already"


def test_a_node_dies_before_it_grants(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:3", "CPU:3"])
    nodes.answer(G, node=NODE2)
    nodes.reap(NODE)
    assert (nodes.group(G)["state"], waiting(nodes)) == ("PENDING", [G])
    assert len(nodes.heard(NODE2, "release")) == 1
    assert free(nodes, NODE2)["CPU"] == 4


def test_ready_objects_of_a_group_that_is_placed_again_wait(created: Cluster) -> None:
    created.reap(NODE)
    created.group_ready(G, put_id(1))
    assert put_id(1) not in dict(created.heard(DRIVER, "value"))
    created.answer(G, attempt=2, node=NODE2)
    assert dict(created.heard(DRIVER, "value"))[put_id(1)] == "Vgroup"


def test_a_reaped_nodes_late_grant_is_fenced(nodes: Cluster) -> None:
    nodes.create_group(G, ["CPU:2"])
    nodes.reap(NODE, LATER)
    assert nodes.answer(G) == ["FENCED"]
    assert places(nodes, G) == [NODE2]
