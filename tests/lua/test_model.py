"""The scripts beside a plain-Python model: after each step the whole state is compared, and audited.

Few processes, nodes and tasks, so that everything collides with everything. HYPOTHESIS_PROFILE=thorough looks longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from redray import spec as specs
from redray.gcs import objects, streams, tasks
from redray.gcs.actors import ActorRecord
from redray.gcs.audit import judge
from redray.gcs.client import Connection
from redray.gcs.schema import TASK_MOVES, Outcome, TaskState
from redray.gcs.scripts import Scripts
from redray.gcs.snapshot import Snapshot
from redray.where import NODE_ID
from tests.lua import builders
from tests.lua.builders import LATER, Cluster, head
from tests.lua.model import LARGE, PLACED, Control, Task, first, handle

_QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
_PROFILES = {
    "default": settings(max_examples=70, stateful_step_count=40, **_QUIET),
    "glance": settings(max_examples=8, stateful_step_count=40, phases=[Phase.generate], derandomize=True, **_QUIET),
    "quick": settings(max_examples=800, stateful_step_count=40, phases=[Phase.generate], **_QUIET),
    "thorough": settings(max_examples=3000, stateful_step_count=80, **_QUIET),
}
_OUTCOMES = [
    Outcome.ERROR,
    Outcome.RETRY,
    Outcome.CRASHED,
    Outcome.CANCELLED,
    Outcome.HANDED_BACK,
    Outcome.OUT_OF_MEMORY,
]
_MOST_TASKS = 4
_MOST_PROCESSES = 4


class ControlMachine(RuleBasedStateMachine):
    connection: Connection
    scripts: Scripts

    def __init__(self) -> None:
        super().__init__()
        self.connection.call("FLUSHALL")
        self.cluster = Cluster(self.connection, self.scripts)
        self.model = Control()
        self.made = 0  # ids
        self.owed: list[tuple[str, str, int]] = []  # process, object, how much it had heard when it asked
        self.history: list[tuple[str, list[str], list[Any]]] = []
        self.states: dict[str, str] = {}
        for letter in "bc":
            self._new_node(letter)
        for letter in "de":
            self._new_process("driver", "direct", letter * 16)

    # ---- ids ---------------------------------------------------------------------------------------------------------
    def _number(self) -> int:
        self.made += 1
        return self.made

    def _new_node(self, letter: str) -> None:
        self.model.nodes.add(self.cluster.node(f"{letter}{self._number():015x}"))

    def _new_process(self, kind: str, route: str, job: str = "") -> None:
        id = job if kind == "driver" else f"a{self._number():015x}"
        assert self.cluster.open(id, route, kind, job or id)[0] == b"OK"
        self.model.open(id, kind, route, job or id)

    def _pick(self, data: st.DataObject, choices: Iterable[Any], label: str) -> Any:
        return data.draw(st.sampled_from(sorted(choices)), label=label)

    def _process(self, data: st.DataObject) -> str:
        return str(self._pick(data, self.model.processes, "process"))

    def _objects(self, data: st.DataObject, most: int = 2, handles: bool = True) -> list[str]:
        known = [*self.model.values, *([handle(actor) for actor in self.model.actors] if handles else [])]
        known.append(builders.put_id(0))  # never put
        return data.draw(st.lists(st.sampled_from(sorted(known)), max_size=most), label="objects")

    def _done(self, *args: Any) -> None:
        self.history.append(self.cluster.last_sent)
        self.model.collect()

    def _some(self, states: tuple[str, ...]) -> list[str]:
        return [id for id, task in self.model.tasks.items() if task.state in states]

    def _busy_nodes(self) -> set[str]:
        """Nodes whose death would be felt."""
        busy = {task.node for task in self.model.tasks.values() if task.state in PLACED}
        busy |= {actor.node for actor in self.model.actors.values()}
        busy |= {node for value in self.model.values.values() for node in value.at}
        return (busy | {process.route for process in self.model.processes.values()}) & self.model.nodes

    # ---- tasks -------------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.model.processes and len(self.model.tasks) < _MOST_TASKS)
    @rule(data=st.data(), returns=st.sampled_from([1, 1, 2, 0, -1]), retries=st.sampled_from([0, 1, -1]))
    def submit(self, data: st.DataObject, returns: int, retries: int) -> None:
        process = self._process(data)
        record = self.model.processes[process]
        waits = self._objects(data, handles=False)
        task = head(
            builders.task_id(self._number(), process),
            job=record.job,
            num_returns=returns,
            max_retries=retries,
            waits_for=waits,
            keeps=self._objects(data, 1),
            where=data.draw(st.sampled_from(self._places()), label="where"),
        )
        ready = not any(self.model.must_wait_for(id) for id in waits)
        local = record.route != "direct" and ready
        claim = data.draw(st.sampled_from("RC-" if local else "-"), label="claim")
        self._submit(process, task, claim)

    def _places(self) -> list[str]:
        nodes = [f"{NODE_ID}={node}" for node in sorted(self.model.nodes)[:2]]
        return ["", "", "", "SPREAD", f"{NODE_ID}=9999>*", *nodes, *(f"{node}>*" for node in nodes), f"{NODE_ID}=9999"]

    def _submit(self, process: str, task: specs.TaskHead, claim: str = "-") -> None:
        reply = self.cluster.submit(specs.pack(task, b"payload"), by=process, claims=claim)
        if self.model.processes[process].job not in self.model.running_jobs:
            assert reply == [b"JOB_ENDED"]
        else:
            assert reply[0] == b"OK"
            heard = len(self.cluster.inbox(process))
            self.model.submit(process, task, claim)
            ids = self.model.tasks[task.task].returns
            self.owed += [(process, id, 0 if self.model.values[id].present else heard) for id in ids]
        self._done()

    @precondition(lambda self: self.model.nodes)
    @rule(data=st.data(), free=st.integers(0, 3))
    def claim(self, data: st.DataObject, free: int) -> None:
        self._claim(data, free)

    def _claim(self, data: st.DataObject, free: int) -> None:
        node = self._pick(data, self.model.nodes, "node")
        queued = [
            id
            for id, task in self.model.tasks.items()
            if task.state == TaskState.QUEUED and task.head.kind != specs.ACTOR_CALL
        ]
        ready = [id for id in queued if not any(map(self.model.must_wait_for, self.model.tasks[id].head.waits_for))]
        reply = self.cluster.claim(node, free=f"CPU:{free}")
        for attempt, spec, news in reply[1]:
            id = specs.unpack_head(spec).task
            task = self.model.tasks[id]
            assert id in ready, f"{id} was handed out, but is {task.state}"
            assert attempt == task.attempt
            assert {item[1].decode() for item in news} == {i for i in task.head.waits_for if i in self.model.values}
            assert self.model.only_node(task) in ("", node)
            task.state, task.node = TaskState.CLAIMED, node
        elsewhere = [id for id in ready if self._is_better_elsewhere(id)]
        assert len(reply[1]) <= min(free, len(ready))
        assert len(reply[1]) >= min(free, len(ready) - len(elsewhere)) or set(queued) - set(ready)
        for id in set(queued) - set(ready):
            if self.cluster.state(id) == TaskState.WAITING:  # it was looked at
                self.model.queue(self.model.tasks[id])
        self._done()

    def _is_better_elsewhere(self, id: str) -> bool:
        head = self.model.tasks[id].head
        return bool(head.where) or any(self.model.values[arg].at for arg in head.waits_for if arg in self.model.values)

    @precondition(lambda self: self.model.tasks and self.model.nodes)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """What happens most of the time: without it, too few examples would get anywhere."""
        self._claim(data, 3)
        if self._starting():
            self._start_actor(self._pick(data, self._starting(), "actor"))
        elif self._some(PLACED):
            self._finish(data, Outcome.VALUE)

    @precondition(lambda self: self._some(PLACED))
    @rule(data=st.data(), outcome=st.sampled_from(_OUTCOMES))
    def finish(self, data: st.DataObject, outcome: str) -> None:
        self._finish(data, outcome)

    def _finish(self, data: st.DataObject, outcome: str) -> None:
        id = self._pick(data, self._some(PLACED), "task")
        task = self.model.tasks[id]
        if task.head.kind == specs.ACTOR_CREATION:
            outcome = Outcome.HANDED_BACK
        values: list[str] = []
        if outcome == Outcome.VALUE or (outcome == Outcome.ERROR and data.draw(st.booleans(), label="packed")):
            values = [self._value(data, index) for index in range(task.head.num_returns)]
            if task.streams:
                values = [f"V{self._number()} end"] + [f"V{self._number()} error"] * (outcome == Outcome.ERROR)
        contains = [inner for inner in self._objects(data, 1) if inner[:24] != id] if values else []
        kept = data.draw(st.lists(st.sampled_from(task.pins), max_size=1)) if task.pins and values else []
        borrower = self._process(data) if self.model.processes and kept else ""
        end = builders.finish(
            id,
            [None if value == LARGE else value.encode() for value in values],
            attempt=task.attempt,
            outcome=outcome,
            contains={0: contains},
            borrower=borrower,
            kept=kept,
        )
        node = task.node
        if node not in self.model.nodes:
            return
        assert self.cluster.finish(end, node=node)[:2] == [b"OK", []]
        self.model.finish(node, task, outcome, values, contains, borrower, kept)
        self._done()

    def _streaming(self) -> list[str]:
        """Streams that run on a node that lives."""
        return [id for id in self._some(PLACED) if self.model.tasks[id].streams and self._node_of(id)]

    def _node_of(self, task: str) -> str:
        node = self.model.tasks[task].node
        return node if node in self.model.nodes else ""

    @precondition(lambda self: self._streaming())
    @rule(data=st.data(), again=st.integers(0, 2), number=st.integers(0, 2))
    def yield_items(self, data: st.DataObject, again: int, number: int) -> None:
        """`again`: from how many items before the last that was published. Without items it asks, as later attempts
        do first."""
        id = self._pick(data, self._streaming(), "stream")
        task, node = self.model.tasks[id], self._node_of(id)
        start = max(1, task.items + 1 - again) if number else 1
        values = [self._value(data, start + offset) for offset in range(number)]
        contains = [inner for inner in self._objects(data, 1) if inner[:24] != id]
        heard = {process: len(self.cluster.inbox(process)) for process in self.model.processes}
        before = task.items
        items = builders.items(id, start, [None if value == LARGE else value.encode() for value in values],
                               attempt=task.attempt, contains=contains)  # fmt: skip
        ((published, _taken, missing),) = self.cluster.call(node, streams.publish([items]))[1]
        self.model.yield_items(node, task, start, values, contains)
        self.model.collect()
        if id in self.model.tasks:
            assert (published, missing) == (task.items, len(self.model.missing(task)))
        maker = id[:16]
        self.owed += [(maker, task.item(index), heard[maker]) for index in range(before + 1, task.items + 1)]
        self._done()

    @precondition(lambda self: self.model.nodes and any(task.streams for task in self.model.tasks.values()))
    @rule(data=st.data(), late=st.integers(-1, 1))
    def stale_items(self, data: st.DataObject, late: int) -> None:
        node = self._pick(data, self.model.nodes, "node")
        id = self._pick(data, [id for id, task in self.model.tasks.items() if task.streams], "stream")
        task = self.model.tasks[id]
        if task.state in PLACED and task.node == node and not late:
            return
        items = builders.items(id, task.items + 1, [b"Vlate"], attempt=task.attempt + late)
        assert self.cluster.call(node, streams.publish([items]))[1] == [[-1]]
        self._done()

    @precondition(lambda self: any(task.streams for task in self.model.tasks.values()))
    @rule(data=st.data(), gone=st.booleans(), unheard=st.integers(0, 2))
    def consume(self, data: st.DataObject, gone: bool, unheard: int) -> None:
        id = self._pick(data, [id for id, task in self.model.tasks.items() if task.streams], "stream")
        task, reader = self.model.tasks[id], self._process(data) if self.model.processes else ""
        if not reader:
            return
        heard = max(0, task.items - unheard)
        assert self.cluster.call(reader, streams.consume(id, streams.GONE if gone else heard, heard)) == [b"OK"]
        if reader == id[:16]:
            self.model.consume(task, heard, gone)
        self._done()

    def _value(self, data: st.DataObject, index: int) -> str:
        return str(data.draw(st.sampled_from([f"V{self._number()} {index}", LARGE]), label="value"))

    @precondition(lambda self: self.model.nodes and self.model.tasks)
    @rule(data=st.data(), late=st.integers(-1, 1))
    def stale_finish(self, data: st.DataObject, late: int) -> None:
        node = self._pick(data, self.model.nodes, "node")
        id = self._pick(data, self.model.tasks, "task")
        task = self.model.tasks[id]
        if task.state in PLACED and task.node == node and not late:
            return
        reply = self.cluster.finish(builders.finish(id, [b"Vlate"], attempt=task.attempt + late), node=node)
        assert reply[1] == [id.encode()]
        self._done()

    @precondition(lambda self: any(task.state == TaskState.CLAIMED for task in self.model.tasks.values()))
    @rule(data=st.data())
    def running(self, data: st.DataObject) -> None:
        id = self._pick(data, self._some((TaskState.CLAIMED,)), "task")
        if self.model.tasks[id].node in self.model.nodes:
            self.cluster.call(self.model.tasks[id].node, tasks.running([id]))
            self.model.tasks[id].state = TaskState.RUNNING
            self._done()

    @precondition(lambda self: self.model.tasks and self.model.processes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = self.model.tasks[self._pick(data, self.model.tasks, "task")]
        assert self.cluster.cancel(task.head.task, by=self._process(data))[0] == "OK"
        self.model.cancel(task)
        self._done()

    # ---- objects -----------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.model.processes and len(self.model.values) < 2 * _MOST_TASKS)
    @rule(data=st.data(), large=st.booleans())
    def put(self, data: st.DataObject, large: bool) -> None:
        process = self._process(data)
        id = builders.put_id(self._number(), process)
        contains = self._objects(data)
        at = self._pick(data, {*self.model.nodes, "b" * 16}, "node") if large else ""
        content = f"V{self._number()}"
        self.cluster.put(id, content.encode(), by=process, node=at, contains=contains)
        self.model.put(process, id, content, at, contains)
        self._done()

    @precondition(lambda self: any(self.model.holds.get(process) for process in self.model.processes))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        process = self._pick(data, [id for id in self.model.processes if self.model.holds[id]], "process")
        ids = data.draw(
            st.lists(st.sampled_from(sorted(self.model.holds[process])), min_size=1, max_size=3, unique=True)
        )
        self.cluster.release(*ids, by=process)
        self.model.holds[process] -= set(ids)
        self._done()

    @precondition(lambda self: self.model.processes)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        process, ids = self._process(data), self._objects(data)
        self.cluster.hold(*ids, by=process)
        self.model.holds[process].update(id for id in ids if self.model.exists(id))
        self._done()

    @precondition(lambda self: self.model.processes)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        process, ids = self._process(data), self._objects(data, handles=False)
        heard = len(self.cluster.inbox(process))
        self.cluster.wait(*ids, by=process)
        self.owed += [(process, id, heard) for id in ids]
        self._done()

    @precondition(lambda self: self.model.nodes and any(value.at for value in self.model.values.values()))
    @rule(data=st.data(), present=st.booleans())
    def located(self, data: st.DataObject, present: bool) -> None:
        id = self._pick(data, [id for id, value in self.model.values.items() if value.at], "object")
        node = self._pick(data, self.model.nodes if present else self.model.values[id].at, "node")
        self.cluster.call(node, objects.located(present, [id]))
        if present:
            self.model.values[id].at.add(node)
        else:
            self.model.lose(node, id)
        self._done()

    # ---- actors ------------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.model.processes and len(self.model.actors) < 2)
    @rule(data=st.data(), restarts=st.sampled_from([0, 1, -1]), named=st.booleans(), detached=st.booleans())
    def create_actor(self, data: st.DataObject, restarts: int, named: bool, detached: bool) -> None:
        process = self._process(data)
        runs = self.model.processes[process].job in self.model.running_jobs
        job = f"f{self._number():015x}" if detached else self.model.processes[process].job
        id = builders.task_id(self._number(), process)
        waits = self._objects(data, 1, handles=False)
        fields = {"kind": specs.ACTOR_CREATION, "job": job, "num_returns": 0, "actor": id, "waits_for": waits}
        name = "name" if named else ""
        taken = [other for other, actor in self.model.actors.items() if named and actor.name and actor.state != "DEAD"]
        record = ActorRecord(name, "space", "A", int(detached), restarts, 0)
        reply = self.cluster.create_actor(id, by=process, record=record, job=job, waits_for=waits)
        if not runs:
            assert reply == ["JOB_ENDED"]
        elif taken:
            assert reply == ["EXISTS", *taken]
        else:
            assert reply == ["OK"]
            self.model.create_actor(process, head(id, **fields), name, restarts, detached)
        self._done()

    @precondition(lambda self: self.model.actors and self.model.processes and len(self.model.tasks) < 2 * _MOST_TASKS)
    @rule(data=st.data(), retries=st.sampled_from([0, 1]))
    def call(self, data: st.DataObject, retries: int) -> None:
        process, actor = self._process(data), self._pick(data, self.model.actors, "actor")
        number = self._number()
        fields = {"kind": specs.ACTOR_CALL, "actor": actor, "sequence": number, "max_retries": retries}
        job = self.model.processes[process].job
        self._submit(process, head(builders.task_id(number, process), job=job, **fields))

    def _starting(self) -> list[str]:
        """Creations that a node has."""
        return [
            id
            for id, actor in self.model.actors.items()
            if actor.state in ("PENDING", "RESTARTING") and self.model.tasks[id].node in self.model.nodes
        ]

    @precondition(lambda self: self._starting())
    @rule(data=st.data())
    def start_actor(self, data: st.DataObject) -> None:
        self._start_actor(self._pick(data, self._starting(), "actor"))

    def _start_actor(self, id: str) -> None:
        creation = self.model.tasks[id]
        parked = {task.head.task for task in self.model.parked(id)}
        outcome, calls, _ = self.cluster.start_actor(id, creation.node, creation.attempt, "a" * 16)
        assert outcome == b"OK"
        order = [specs.unpack_head(spec) for _, spec, _ in calls]
        assert {call.task for call in order} == parked
        assert [call.sequence for call in order] == sorted(call.sequence for call in order)
        self.model.started(creation.node, id)
        self._done()

    @precondition(lambda self: self.model.actors)
    @rule(data=st.data(), final=st.booleans())
    def actor_died(self, data: st.DataObject, final: bool) -> None:
        id = self._pick(data, self.model.actors, "actor")
        creation = self.model.tasks.get(id)
        if creation is None or creation.node not in self.model.nodes:
            return
        assert self.cluster.actor_died(id, creation.node, creation.attempt, final)[0] == "OK"
        self.model.actor_died(id, final)
        self._done()

    @precondition(lambda self: self.model.actors and self.model.processes)
    @rule(data=st.data(), final=st.booleans())
    def kill_actor(self, data: st.DataObject, final: bool) -> None:
        id = self._pick(data, self.model.actors, "actor")
        assert self.cluster.kill_actor(id, by=self._process(data), final=final) == ["OK"]
        if final:
            self.model.bury(id)
        self._done()

    # ---- processes and nodes -----------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.model.processes) < _MOST_PROCESSES)
    @rule(data=st.data(), driver=st.booleans())
    def open(self, data: st.DataObject, driver: bool) -> None:
        route = self._pick(data, {*self.model.nodes, "direct"} if driver else self.model.nodes, "route")
        job = f"d{self._number():015x}" if driver else self._pick(data, self.model.running_jobs or {"d" * 16}, "job")
        self._new_process("driver" if driver else "worker", route, job)

    @precondition(lambda self: len(self.model.processes) > 2)
    @rule(data=st.data(), crashed=st.booleans())
    def end(self, data: st.DataObject, crashed: bool) -> None:
        process = self._process(data)
        self.cluster.routes[process] = self.model.processes[process].route
        assert self.cluster.end(process, crashed=crashed) == [b"OK"]
        self.model.end_process(process, crashed)
        self.owed = [entry for entry in self.owed if entry[0] != process]
        self._done()

    @precondition(lambda self: self._busy_nodes())
    @rule(data=st.data())
    def reap(self, data: st.DataObject) -> None:
        node = self._pick(data, self._busy_nodes(), "node")
        assert self.cluster.reap(node, LATER) == "DONE"
        self.model.reap(node)
        for id, process in self.model.processes.items():
            self.cluster.routes[id] = process.route
        self.owed = [entry for entry in self.owed if entry[0] in self.model.processes]
        self._new_node("b")
        self._done()

    @precondition(lambda self: self.connection.call("LLEN", self.cluster.keys.chores))
    @rule()
    def chores(self) -> None:
        self.connection.call("SCRIPT", "FLUSH")  # which must be invisible
        self.cluster.chores()
        self.model.do_chores()
        self.model.collect()

    # ---- what must be invisible --------------------------------------------------------------------------------------
    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def repeat_any_earlier_call(self, data: st.DataObject) -> None:
        verb, keys, args = data.draw(st.sampled_from(self.history), label="call")
        before = self.cluster.dump()
        reply = self.cluster.connection.run(self.scripts[verb], keys, args)
        assert verb in ("process_end", "node_reap") or reply[0] != b"GAP"
        assert self.cluster.dump() == before

    @precondition(lambda self: self.model.processes)
    @rule(data=st.data(), ahead=st.integers(2, 3))
    def a_call_ahead_of_its_turn(self, data: st.DataObject, ahead: int) -> None:
        process = self._process(data)
        number = self.cluster.numbers.get(process, 0) + ahead
        before = self.cluster.dump()
        reply = self.cluster.call(process, objects.hold(self._objects(data)), number=number)
        assert reply == [b"GAP", number - ahead]
        assert self.cluster.dump() == before

    @precondition(lambda self: self.model.processes)
    @rule(data=st.data())
    def a_call_by_a_way_that_was_left(self, data: st.DataObject) -> None:
        process = self._process(data)
        route, before = self.cluster.routes[process], self.cluster.dump()
        self.cluster.routes[process] = "0" * 16
        number = self.cluster.numbers.get(process, 0) + 1
        assert self.cluster.call(process, objects.hold(self._objects(data)), number=number) == [b"FENCED"]
        self.cluster.routes[process] = route
        assert self.cluster.dump() == before

    # ---- the comparison ----------------------------------------------------------------------------------------------
    @invariant()
    def both_agree_and_everything_adds_up(self) -> None:
        snapshot = Snapshot(self.connection, self.cluster.keys)
        findings = judge(snapshot)
        assert not findings, findings
        model = self.model
        _agree("tasks", self._real_tasks(snapshot), {id: _seen(task) for id, task in model.tasks.items()})
        values = {id: (value.content, set(value.at), sorted(value.contains)) for id, value in model.values.items()}
        _agree("values", self._real_values(snapshot), values)
        holds = {id: set(held) for id, held in snapshot.members["holds"].items()}
        _agree("holds", holds, {id: held for id, held in model.holds.items() if held})
        actors = {
            id: (record["state"], _place(record), int(record["restarts"]))
            for id, record in snapshot.hashes["actor"].items()
        }
        _agree(
            "actors",
            actors,
            {id: (actor.state, _place(vars(actor)), actor.restarts) for id, actor in model.actors.items()},
        )
        self._only_legal_moves()
        self._everybody_heard()

    def _real_tasks(self, snapshot: Snapshot) -> dict[str, tuple[str, str, int, int, int]]:
        found = {}
        for id, record in snapshot.hashes["task"].items():
            node = record["node"] if record["state"] in PLACED else ""
            numbers = (int(record["attempt"]), int(record["retries"]), int(record.get("unready", 0)))
            found[id] = (record["state"], node, *numbers)
        return found

    def _real_values(self, snapshot: Snapshot) -> dict[str, Any]:
        keys = self.cluster.keys
        ids = [
            first(id)
            for id, record in snapshot.hashes["task"].items()
            if int(record["refs"] if "refs" in record else -1) >= 0
        ]
        ids = [id for id in ids if id[:24] in snapshot.heads or "refs" in snapshot.hash("task", id[:24])]
        ids = [id for id in ids if not self._is_without_returns(snapshot, id[:24])] + snapshot.ids("object")
        contents = self.connection.pipeline([("HGET", keys.of_object(id), "value") for id in ids])
        found = {}
        for id, content in zip(ids, contents, strict=True):
            record = snapshot.of_object(id)
            found[id] = (
                _content(content),
                set(record.get("at", "").split()),
                sorted(record.get("contains", "").split()),
            )
        return found

    def _is_without_returns(self, snapshot: Snapshot, task: str) -> bool:
        return task in snapshot.heads and snapshot.heads[task].num_returns == 0

    def _only_legal_moves(self) -> None:
        now = {id: task.state for id, task in self.model.tasks.items()}
        for id, state in now.items():
            before = self.states.get(id, "")
            onward = TASK_MOVES[before]  # one script may make two moves: to the queue, and out of it
            legal = {before, *onward, *(move for between in onward for move in TASK_MOVES[between])}
            assert state in legal, f"{id}: {before} -> {state}"
        self.states = now

    def _everybody_heard(self) -> None:
        """Nobody waits for what is there, or will never be: its inbox has said so since it asked."""
        waiting = []
        for process, id, since in self.owed:
            value = self.model.values.get(id)
            if process in self.model.processes and value is not None and not value.present:
                waiting.append((process, id, since))
            elif process in self.model.processes:
                heard = [found for _, found, _ in self.cluster.inbox(process)[since:]]
                asked = value is not None or id in heard or self._let_go(process, id)
                assert asked, f"{process} was never told of {id}"
                assert value is None or id in heard or self._let_go(process, id), f"{process} was never told of {id}"
        self.owed = waiting

    def _let_go(self, process: str, id: str) -> bool:
        """A maker that released its value hears of it no more, unless it asked."""
        return id.startswith(process) and id not in self.model.holds[process]

    def teardown(self) -> None:
        """Everybody leaves: nothing may stay."""
        for process in list(self.model.processes):
            self.cluster.routes[process] = self.model.processes[process].route
            self.cluster.end(process)
        self.cluster.chores()
        self.cluster.driver("9" * 16)
        for id, record in Snapshot(self.connection, self.cluster.keys).hashes["actor"].items():
            if record["detached"] == "1":
                self.cluster.kill_actor(id, by="9" * 16)
        self.cluster.end("9" * 16)
        for node in self.model.nodes:
            self.cluster.reap(node, LATER)
        self.cluster.chores()
        left = judge(Snapshot(self.connection, self.cluster.keys), at_rest=True)
        assert not left, left


def _seen(task: Task) -> tuple[str, str, int, int, int]:
    node = task.node if task.state in PLACED else ""
    return task.state, node, task.attempt, task.retries, len(task.unready)


def _place(actor: dict[str, Any]) -> str:
    return str(actor["node"]) if actor["state"] == "ALIVE" else ""


def _agree(what: str, real: dict[str, Any], expected: dict[str, Any]) -> None:
    differences = [
        f"{what} {id}: Redis has {real.get(id)}, the model {expected.get(id)}"
        for id in sorted(real.keys() | expected.keys())
        if real.get(id) != expected.get(id)
    ]
    assert not differences, differences


def _content(value: bytes | None) -> str | None:
    if value is None or value[:1] != b"S":
        return value.decode() if value is not None else None
    return "S " + str(msgspec.msgpack.decode(value[1:])[0])


@pytest.mark.timeout(1200)  # a failure takes minutes to be made small
def test_the_scripts_do_what_the_model_does(redis: Connection, scripts: Scripts) -> None:
    machine = type("Machine", (ControlMachine,), {"connection": redis, "scripts": scripts})
    run_state_machine_as_test(machine, settings=_PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")])
