"""Placement groups under random events: nodes that hear, grant, refuse, tell, die; groups that come and go.

Nodes here are a few lines of Python with a true ledger. Whatever happens in between, once everybody has heard
everything each node must hold exactly the bundles that Redis thinks it does, and no group may wait where there is room
for it.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from redray.gcs import nodes as node_table
from redray.gcs import placement_groups
from redray.gcs.audit import judge
from redray.gcs.client import Connection
from redray.gcs.scripts import Scripts
from redray.gcs.snapshot import Snapshot
from redray.resources import group_demand
from tests.lua import builders
from tests.lua.builders import LATER, NOW, Cluster, packed, ready_id, task_id

_QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
_PROFILES = {
    "default": settings(max_examples=60, stateful_step_count=40, **_QUIET),
    "glance": settings(max_examples=8, stateful_step_count=40, phases=[Phase.generate], derandomize=True, **_QUIET),
    "thorough": settings(max_examples=3000, stateful_step_count=80, **_QUIET),
}
_BUNDLES = [["CPU:1"], ["CPU:2"], ["CPU:3"], ["CPU:1", "CPU:2"], ["CPU:2", "CPU:2"], ["CPU:1", "CPU:1", "CPU:1"]]
_STRATEGIES = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
_CPUS = 3
_MOST_GROUPS = 4


def cpus(demand: str) -> int:
    return int(demand.partition(":")[2])


@dataclass
class Node:
    """What a node really has set aside: group -> index -> CPUs; and what its tasks use."""

    held: dict[str, dict[int, int]] = field(default_factory=dict)
    busy: int = 0
    read: int = 0  # messages of its inbox

    @property
    def free(self) -> int:
        return _CPUS - self.busy - sum(sum(bundles.values()) for bundles in self.held.values())


class GroupMachine(RuleBasedStateMachine):
    connection: Connection
    scripts: Scripts

    def __init__(self) -> None:
        super().__init__()
        self.connection.call("FLUSHALL")
        self.cluster = Cluster(self.connection, self.scripts)
        self.made = 0
        self.nodes: dict[str, Node] = {}
        self.groups: dict[str, list[str]] = {}  # bundles
        self.drivers: set[str] = set()
        self.history: list[tuple[str, list[str], list[Any]]] = []
        for _ in range(2):
            self._new_node()
        for letter in "de":
            self.drivers.add(self.cluster.driver(letter * 16))

    def _number(self) -> int:
        self.made += 1
        return self.made

    def _new_node(self) -> None:
        id = f"b{self._number():015x}"
        self.cluster.routes[id] = "direct"
        reply = self.cluster.run(node_table.register(self.cluster.keys, id, NOW, 1, {"free": f"CPU:{_CPUS}"}))
        assert reply[0] == b"OK"
        self.nodes[id] = Node()

    def _pick(self, data: st.DataObject, choices: Any, label: str) -> Any:
        return data.draw(st.sampled_from(sorted(choices)), label=label)

    def _noted(self, reply: Any) -> Any:
        self.history.append(self.cluster.last_sent)
        return reply

    # ---- groups ------------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.drivers and len(self.groups) < _MOST_GROUPS)
    @rule(
        data=st.data(), bundles=st.sampled_from(_BUNDLES), strategy=st.sampled_from(_STRATEGIES), detached=st.booleans()
    )
    def create(self, data: st.DataObject, bundles: list[str], strategy: str, detached: bool) -> None:
        driver = self._pick(data, self.drivers, "driver")
        group = task_id(self._number(), driver)
        if self.nodes and data.draw(st.booleans(), label="somewhere tasks have begun meanwhile"):
            node = self.nodes[self._pick(data, self.nodes, "node")]
            node.busy += min(2, max(0, node.free))
        reply = self.cluster.create_group(group, bundles, strategy, by=driver, detached=detached)
        assert self._noted(reply) == ["OK"]
        self.groups[group] = bundles

    @precondition(lambda self: self.groups and self.drivers)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        group = self._pick(data, self.groups, "group")
        self._noted(self.cluster.remove_group(group, by=self._pick(data, self.drivers, "driver")))
        del self.groups[group]

    @precondition(lambda self: self.groups and self.drivers)
    @rule(data=st.data())
    def ask_ready(self, data: st.DataObject) -> None:
        driver = self._pick(data, self.drivers, "driver")
        group = self._pick(data, self.groups, "group")
        self._noted(self.cluster.group_ready(group, builders.put_id(self._number(), driver), by=driver))

    @precondition(lambda self: self.groups and self.drivers)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        driver = self._pick(data, self.drivers, "driver")
        demand = group_demand("CPU:1", self._pick(data, self.groups, "group"), -1)
        self._noted(self.cluster.submit(packed(task_id(self._number(), driver), demand=demand), by=driver))

    # ---- nodes -------------------------------------------------------------------------------------------------------
    @precondition(lambda self: any(self._unheard(node) for node in self.nodes))
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        self._hear(self._pick(data, [node for node in self.nodes if self._unheard(node)], "node"))

    def _unheard(self, node: str) -> list[tuple[str, str, bytes]]:
        messages = []
        for _, parts in self.connection.call("XRANGE", self.cluster.keys.inbox(node), "-", "+"):
            for at in range(0, len(parts) - 2, 3):
                messages.append((parts[at].decode(), parts[at + 1].decode(), parts[at + 2]))
        return messages[self.nodes[node].read :]

    def _hear(self, id: str) -> None:
        """The next message, as a node takes it."""
        node = self.nodes[id]
        kind, group, data = self._unheard(id)[0]
        node.read += 1
        if kind == "reserve":
            attempt, _, bundles = msgspec.msgpack.decode(data)
            granted = sum(cpus(demand) for _, demand in bundles) <= node.free
            if granted:
                node.held.setdefault(group, {}).update({index: cpus(demand) for index, demand in bundles})
            reply = self.cluster.answer(group, granted, attempt, node=id, free=f"CPU:{node.free}")
            assert self._noted(reply) == ["OK"]
        elif kind == "release":
            indexes = [int(index) for index in data.split()] or list(node.held.get(group, {}))
            for index in indexes:
                node.held.get(group, {}).pop(index, None)
            if not node.held.get(group):
                node.held.pop(group, None)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        self._tell(self._pick(data, self.nodes, "node"))

    def _tell(self, node: str) -> None:
        command = placement_groups.tell_free(self.cluster.keys, node, f"CPU:{max(0, self.nodes[node].free)}", "-")
        assert self.cluster.run(command)[0] == b"OK"

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), busy=st.integers(0, 2))
    def use(self, data: st.DataObject, busy: int) -> None:
        """Tasks begin or end, which Redis hears later."""
        node = self.nodes[self._pick(data, self.nodes, "node")]
        node.busy = min(busy, node.busy + node.free)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), replaced=st.booleans())
    def die(self, data: st.DataObject, replaced: bool) -> None:
        node = self._pick(data, self.nodes, "node")
        assert self.cluster.reap(node, LATER) == "DONE"
        del self.nodes[node]
        if replaced or not self.nodes:
            self._new_node()

    # ---- jobs --------------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.drivers) > 1)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        driver = self._pick(data, self.drivers, "driver")
        self.cluster.end(driver)
        self.drivers.discard(driver)
        self._chores()
        self.drivers.add(self.cluster.driver(f"d{self._number():015x}"))

    def _chores(self) -> None:
        self.connection.call("SCRIPT", "FLUSH")
        self.cluster.chores()
        living = {id.decode() for id in self.connection.call("SMEMBERS", self.cluster.keys.groups)}
        self.groups = {group: bundles for group, bundles in self.groups.items() if group in living}

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def repeat_any_earlier_call(self, data: st.DataObject) -> None:
        verb, keys, args = data.draw(st.sampled_from(self.history), label="call")
        before = self.cluster.dump()
        self.connection.run(self.scripts[verb], keys, args)
        assert self.cluster.dump() == before

    # ---- what must hold ----------------------------------------------------------------------------------------------
    @invariant()
    def everything_adds_up(self) -> None:
        findings = judge(Snapshot(self.connection, self.cluster.keys))
        assert not findings, findings

    @rule()
    def everybody_has_heard_everything(self) -> None:
        for _ in range(30):
            self._chores()
            for node in list(self.nodes):
                while self._unheard(node):
                    self._hear(node)
                self._tell(node)
            if not any(self._unheard(node) for node in self.nodes):
                break
        else:
            raise AssertionError("the nodes are asked again and again")
        self._nodes_hold_what_redis_thinks()
        self._nobody_waits_for_nothing()

    def _nodes_hold_what_redis_thinks(self) -> None:
        held = {
            (id, group, index) for id, node in self.nodes.items() for group in node.held for index in node.held[group]
        }
        said = set()
        for group in self.groups:
            record = self.cluster.group(group)
            assert record["awaited"] == "", f"{group} waits for an answer of {record['awaited']}"
            said |= {(place, group, index) for index, place in enumerate(record["places"].split()) if place != "-"}
        assert held == said

    def _nobody_waits_for_nothing(self) -> None:
        snapshot = Snapshot(self.connection, self.cluster.keys)
        for group in snapshot.waiting_groups:
            record = self.cluster.group(group)
            assert not self._could_be_placed(group, record), f"{group} waits, and there is room: {self.nodes}"
        for task, record in snapshot.hashes["task"].items():
            if record["state"] == "QUEUED":
                wanted = [group for group in self.groups if group in snapshot.heads[task].demand]
                assert wanted, f"{task} waits in a group that is gone"

    def _could_be_placed(self, group: str, record: dict[str, Any]) -> bool:
        """By trying everything."""
        bundles, places = self.groups[group], record["places"].split()
        lacking = [index for index, place in enumerate(places) if place == "-"]
        for choice in itertools.product(self.nodes, repeat=len(lacking)):
            trial = list(places)
            for index, node in zip(lacking, choice, strict=True):
                trial[index] = node
            needed: dict[str, int] = {}
            for index, node in zip(lacking, choice, strict=True):
                needed[node] = needed.get(node, 0) + cpus(bundles[index])
            fits = all(amount <= self.nodes[node].free for node, amount in needed.items())
            different = len(set(trial))
            allowed = {"STRICT_PACK": different == 1, "STRICT_SPREAD": different == len(trial)}
            if fits and allowed.get(record["strategy"], True):
                return True
        return False

    def teardown(self) -> None:
        """Everybody leaves: nothing may stay."""
        for node in self.nodes.values():
            node.busy = 0
        self.everybody_has_heard_everything()
        last = self.cluster.driver("9" * 16)
        for group in list(self.groups):
            self.cluster.remove_group(group, by=last)
        for driver in (*self.drivers, last):
            self.cluster.end(driver)
        self._chores()
        for node in list(self.nodes):
            while self._unheard(node):
                self._hear(node)
            assert self.nodes[node].held == {}, f"{node} has kept {self.nodes[node].held}"
            self.cluster.reap(node, LATER)
        self._chores()
        left = judge(Snapshot(self.connection, self.cluster.keys), at_rest=True)
        assert not left, left


@pytest.mark.timeout(1200)  # a failure takes minutes to be made small
def test_groups_and_nodes_agree(redis: Connection, scripts: Scripts) -> None:
    machine = type("Machine", (GroupMachine,), {"connection": redis, "scripts": scripts})
    run_state_machine_as_test(machine, settings=_PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")])


def test_the_ready_object_of_builders_is_the_one_that_is_made() -> None:
    assert ready_id(task_id(1)) == builders.put_id(1)
