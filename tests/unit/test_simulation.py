"""Seeded runs of a simulated cluster under faults.

A failure names its seed: REDRAY_SIMULATION_SEED=17 runs that one alone, REDRAY_SIMULATION_SEEDS=5000 so many.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from redray.gcs.schema import ActorState
from redray.spec import ACTOR_CALL, ACTOR_CREATION, TaskHead
from tests.unit.simulated_clock import World
from tests.unit.simulated_cluster import FINAL
from tests.unit.simulated_processes import Driver, pack, pack_task
from tests.unit.simulation import Node

SEEDS = int(os.environ.get("REDRAY_SIMULATION_SEEDS", "200"))
ONE = os.environ.get("REDRAY_SIMULATION_SEED")
CHUNK = 20
LIMIT_MS = 300_000
DEMANDS = ["CPU:1", "CPU:1", "CPU:1", "CPU:0.5", "CPU:2", "-", "CPU:1,GPU:0.5", "GPU:1", "CPU:1,special:1"]


class Scenario:
    """A workload, and what befalls it."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.random = self.world.random
        self.programs: dict[str, dict[str, Any]] = {}  # by task
        self.makers: dict[str, Driver] = {}
        self.actors: dict[str, dict[str, Any]] = {}
        self.sequences: dict[tuple[str, str], int] = {}
        self.nodes: list[Node] = []
        self.most = self.random.choice([64, 64, 64, 4])  # worker processes on a node
        self.pending = 0  # things that are still to happen
        for number in range(self.random.choice([1, 2, 2, 3])):
            resources = {"CPU": float(self.random.choice([1, 2, 4])), "GPU": float(self.random.choice([0, 2]))}
            if number == 0:
                resources = {"CPU": 2.0, "GPU": 2.0, "special": 1.0}
            self.join(resources)
        self.drivers = [
            Driver(self.world, self.random.choice([*self.nodes, None]), f"job{number}")
            for number in range(self.random.choice([1, 2]))
        ]
        for driver in self.drivers:
            for _ in range(self.random.randint(3, 14)):
                self.at(self.random.randint(0, 1_500), lambda driver=driver: self.something(driver))
        if self.random.random() < 0.1:
            self.at(self.random.randint(200, 2_000), lambda: self.world.cluster.end_job(self.drivers[-1].job))
        self.befall()

    def join(self, resources: dict[str, float]) -> None:
        self.nodes.append(Node(self.world, resources, self.most))

    def at(self, time: int, what: Any) -> None:
        self.pending += 1

        def happen() -> None:
            self.pending -= 1
            what()

        self.world.later(time, happen)

    # ---- what the drivers do -------------------------------------------------------------------------------------
    def something(self, driver: Driver) -> None:
        kinds = [self.tasks, self.tasks, self.tasks, self.create, self.calls, self.calls, self.cancel, self.kill]
        self.random.choices([*kinds, self.close], [3, 3, 3, 2, 3, 3, 1, 0.5, 0.5])[0](driver)

    def tasks(self, driver: Driver) -> None:
        packed = []
        function = self.random.choice("fgh")
        for _ in range(self.random.choice([1, 1, 2, 3, 8, 20])):
            id = self.new_task(driver)
            program = self.programs[id] = self.program(driver, 0) | {"function": function}
            packed.append(pack_task(id, driver.job, program))
        driver.call("task_submit", "", packed)

    def new_task(self, driver: Driver) -> str:
        id = f"{driver.id}{len(self.makers) + 1:08x}"
        self.makers[id] = driver
        return id

    def program(self, driver: Driver, depth: int) -> dict[str, Any]:
        dice = self.random
        program: dict[str, Any] = {"ms": dice.choice([0, 0, 1, 5, 60]), "value": dice.randint(1, 1_000)}
        program["demand"] = dice.choice(DEMANDS) if dice.random() < 0.4 else "CPU:1"
        program["priority"] = dice.choice([0, 0, 0, 0, 1])
        program["retries"] = dice.choice([0, 1, 3])
        if dice.random() < 0.1:
            program["dies_in"] = dice.sample([1, 2, 3, 4], dice.randint(1, 2))
        if dice.random() < 0.05:
            program["raises"] = True
        if dice.random() < 0.05:
            program["leaves"] = True
        if depth < 3 and dice.random() < (0.15, 0.5, 0.3)[depth]:
            program["children"] = [self.program(driver, depth + 1) for _ in range(dice.randint(1, 3))]
            for child in program["children"]:
                child["demand"] = "CPU:1"  # what a child needs beyond, its blocked parent might hold
        if depth == 0 and dice.random() < 0.15:
            program["items"] = dice.randint(1, 9)
        if depth == 0:
            program["needs"] = self.needs(driver)
        return program

    def needs(self, driver: Driver) -> list[str]:
        """Results of its own job's tasks: another job's might end with that job."""
        mine = [id for id, maker in self.makers.items() if maker is driver and id in self.programs]
        if not mine or self.random.random() < 0.7:
            return []
        return [id + "00000000" for id in self.random.choices(mine, k=self.random.randint(1, 3))]

    def create(self, driver: Driver) -> None:
        id = self.new_task(driver)
        at_once = self.random.choice([1, 1, 3])
        held = self.random.choice(["-", "-", "CPU:0.5"])
        actor = self.actors[id] = {
            "ms": self.random.choice([0, 5]),
            "value": 0,
            "at_once": at_once,
            "restarts": self.random.choice([0, 1, 3]),
            "raises": self.random.random() < 0.05,
            "dies_in": [1] if self.random.random() < 0.1 else [],
        }
        options = {"demand_held": held, "max_concurrency": at_once}
        head = TaskHead(id, ACTOR_CREATION, driver.job, "A", "CPU:1", 0, 0, [], [], 0, 0, "", "A", id, options=options)
        driver.call("actor_create", pack(head, actor), actor["restarts"])

        if held != "-":  # not for ever: somebody may need all the CPUs of a node
            self.at(self.random.randint(3_000, 6_000), lambda: self.end_actor(driver, id))

    def calls(self, driver: Driver) -> None:
        known = [id for id in self.actors if id in self.world.cluster.actors or self.makers[id] is driver]
        if not known:
            return
        actor = self.random.choice(known)
        packed = []
        for _ in range(self.random.choice([1, 2, 5, 9])):
            id = self.new_task(driver)
            sequence = self.sequences[driver.id, actor] = self.sequences.get((driver.id, actor), 0) + 1
            retries = self.random.choice([0, 0, 1])
            program = self.programs[id] = {
                "ms": self.random.choice([0, 0, 3]),
                "value": self.random.randint(1, 1_000),
                "retries": retries,
                "needs": self.needs(driver),
                "dies_in": [1] if self.random.random() < 0.03 else [],
                "actor": actor,
            }
            needs = program["needs"]
            head = TaskHead(id, ACTOR_CALL, driver.job, "m", "-", 1, retries, needs, [], 0, 0, "", "m", actor, sequence)
            packed.append(pack(head, program))
        driver.call("task_submit", "", packed)

    def cancel(self, driver: Driver) -> None:
        mine = [id for id, maker in self.makers.items() if maker is driver and id in self.programs]
        if mine:
            id = self.random.choice(mine[-10:])
            self.world.cancelled.add(id)
            driver.call("task_cancel", self.random.choice(["", "force", "recursive", "force recursive"]), "", [id])

    def close(self, driver: Driver) -> None:
        mine = [id for id, maker in self.makers.items() if maker is driver and self.programs.get(id, {}).get("items")]
        if mine:
            driver.call("task_consume", self.random.choice(mine), -1)

    def kill(self, driver: Driver) -> None:
        mine = [id for id in self.actors if self.makers[id] is driver and id in self.world.cluster.actors]
        if mine:
            driver.call("actor_kill", self.random.choice(mine), self.random.random() < 0.7)

    def end_actor(self, driver: Driver, id: str) -> None:
        if id in self.world.cluster.actors:
            driver.call("actor_kill", id, True)
        elif driver._unacknowledged:  # its creation may still be on its way, through a node that was stopped
            self.at(1_000, lambda: self.end_actor(driver, id))

    # ---- what befalls them ---------------------------------------------------------------------------------------
    def befall(self) -> None:
        dice = self.random
        for _ in range(dice.choice([0, 0, 1, 4])):
            self.at(dice.randint(0, 2_500), lambda: dice.choice(self.nodes).cut())
        for _ in range(dice.choice([0, 0, 1, 5])):
            self.at(dice.randint(0, 2_500), self.kill_worker)
        if dice.random() < 0.1:
            self.at(dice.randint(100, 2_000), self.die_unheard)
        if dice.random() < 0.35:
            end = dice.choice([Node.die, Node.drain, lambda node: node.stop(dice.choice([500, 9_000]))])
            self.at(dice.randint(100, 2_500), lambda: self.end_node(end))

    def kill_worker(self) -> None:
        workers = [worker for node in self.nodes if not node.is_dead for worker in node.workers.values()]
        if workers:
            self.random.choice(workers).die("killed by signal 9")

    def die_unheard(self) -> None:
        """A node loses Redis, goes on starting what its drivers submit, and dies before it has told anybody."""
        node = self.random.choice(self.nodes)
        node.cut()
        for driver in node.drivers.values():
            self.tasks(driver)
            self.calls(driver)
        self.at(self.random.randint(5, 45), lambda: self.end_node(Node.die, node))

    def end_node(self, end: Any, node: Node | None = None) -> None:
        """Another with the same resources comes: every task can run somewhere."""
        node = node or self.random.choice(self.nodes)
        end(node)
        total = {name: units / 10_000 for name, units in node.state.ledger.total.items()}
        self.at(self.random.randint(100, 3_000), lambda: self.join(total))

    # ---- its end -------------------------------------------------------------------------------------------------
    def is_over(self) -> bool:
        if self.pending or any(driver._unacknowledged for driver in self.drivers):
            return False
        cluster = self.world.cluster
        waiting = (task for task in cluster.tasks.values() if task.state not in FINAL)
        return next(waiting, None) is None and all(node.is_quiet() for node in self.nodes)

    def run(self) -> None:
        if not self.world.run(self.is_over, LIMIT_MS):
            stuck = {id: (task.state, task.node, task.head.demand) for id, task in self.world.cluster.tasks.items()}
            left = {id: what for id, what in stuck.items() if what[0] not in FINAL}
            raise AssertionError(f"Not over after {LIMIT_MS / 1000:g} s: {left}; to happen: {self.pending}")
        self.world.run(lambda: False, self.world.now + 5_000)  # stragglers, and idle workers that leave
        assert self.world.run(self.is_over, self.world.now + 5_000), "never quiet again"

    def verify(self) -> None:
        self.verify_rest()
        self.verify_order()
        for id, program in self.programs.items():
            if id in self.world.cluster.tasks:
                self.verify_result(id, program)
        for id, task in self.world.cluster.tasks.items():
            bound = self.actors[id]["restarts"] if id in self.actors else task.head.max_retries
            assert self.world.starts[id] <= bound + 1, f"{id} was started {self.world.starts[id]} times"

    def verify_rest(self) -> None:
        for node in self.nodes:
            if node.is_dead:
                continue
            node.state.validate()
            held = [worker for worker in node.state.workers.values() if worker.holds]
            assert all(worker.actor for worker in held), f"held at rest: {[worker.holds for worker in held]}"
            alive = {id for id, actor in self.world.cluster.actors.items() if actor.node == node.id}
            assert set(node.state.actors.hosted) == alive, "who lives here"
            assert node.state.ledger.free == node.state.ledger.total or held

    def verify_order(self) -> None:
        """An incarnation hears each caller's calls in the order they were made, but for those that come again."""
        ordered = {id for id, actor in self.actors.items() if actor["at_once"] == 1}
        last: dict[tuple[str, str], int] = {}
        heads = [(task, task.head) for task in self.world.cluster.tasks.values()]
        tasks = {(head.task[:16], head.actor, head.sequence): task for task, head in heads}
        for process, actor, caller, sequence in self.world.heard:
            task = tasks.get((caller, actor, sequence))  # None: its job had ended when it was submitted
            if actor in ordered and task is not None and not task.returned:
                assert last.get((process, caller), 0) < sequence, f"{caller}'s call {sequence} to {actor} came late"
                last[process, caller] = sequence

    def verify_result(self, id: str, program: dict[str, Any]) -> None:
        task = self.world.cluster.tasks[id]
        value, maker = task.value, self.makers[id]
        assert maker.results.get(id + "00000000") == value, f"{id}: the driver heard something else, or nothing"
        items = [maker.results.get(f"{id}{index:08x}") for index in range(1, len(task.items) + 1)]
        assert items == task.items == [b"I%d" % index for index in range(1, len(items) + 1)], f"{id}: other items"
        if value.startswith(b"V"):
            assert task.closed or len(items) == program.get("items", 0), f"{id} lacks items"
            assert value == b"V%d" % self.expected(program), f"{id} has a wrong value"
        elif value == b"E":
            assert self.may_raise(program), f"{id} raised out of the blue"
        elif value == b"S crashed":
            died = program.get("actor") in self.world.died_actors
            lost = self.world.crashes[id] > 0 and task.attempt > program["retries"]
            assert lost or died, f"{id} crashed too early"
        elif value == b"S refused":
            assert self.most < 64, f"{id} was refused although there was room"
        elif value == b"S cancelled":
            ended = maker.job in self.world.cluster.ended_jobs
            assert id in self.world.cancelled or ended, f"{id} was cancelled by nobody"
        else:
            assert self.world.cluster.actors[program["actor"]].state == ActorState.DEAD, f"{id}: its actor lives"

    def expected(self, program: dict[str, Any]) -> int:
        own: int = program["value"]
        children = sum(self.expected(child) for child in program.get("children", ()))
        return own + children + sum(self.expected(self.programs[id[:24]]) for id in program.get("needs", ()))

    def may_raise(self, program: dict[str, Any]) -> bool:
        tasks = self.world.cluster.tasks
        if program.get("raises") or any(not tasks[id[:24]].value.startswith(b"V") for id in program.get("needs", ())):
            return True
        below = [task for task in tasks.values() if task.head.depth > 0]
        return bool(program.get("children")) and any(not task.value.startswith(b"V") for task in below)


def run(seed: int) -> Scenario:
    scenario = Scenario(seed)
    try:
        scenario.run()
        scenario.verify()
    except BaseException as error:
        raise AssertionError(f"REDRAY_SIMULATION_SEED={seed}: {error}") from error
    return scenario


@pytest.mark.parametrize("first", [int(ONE)] if ONE else range(0, SEEDS, CHUNK))
def test_every_task_ends_once_and_nothing_is_left(first: int) -> None:
    for seed in range(first, first + 1 if ONE else min(first + CHUNK, SEEDS)):
        run(seed)
