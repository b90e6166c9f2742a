"""Placement groups on a node: bundles set aside, renamed, lent, and given back."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from redray.resources import bundle_resources, group_demand, group_of, plain
from redray.worker import actions, events
from tests.unit.bench import Bench, born, call, creation, of, received, task, task_id

G, H = "ab" * 12, "cd" * 12


def want(node: Bench, *bundles: str, group: str = G, attempt: int = 1, alone: bool = True, first: int = 0) -> bool:
    """Ask for bundles; whether they were granted."""
    pairs = [(first + index, demand) for index, demand in enumerate(bundles)]
    node.handle(events.BundlesWanted(group, attempt, alone, pairs))
    answers = [answer for action in of(actions.RecordGranted, node.settle()) for answer in action.answers]
    assert [answer[:2] for answer in answers] == [(group, attempt)]
    return answers[0][2]


def release(node: Bench, *indexes: int, group: str = G) -> None:
    node.handle(events.BundlesReleased(group, list(indexes)))


def inside(number: int, demand: str = "CPU:1", index: int = -1, group: str = G) -> bytes:
    return task(number, demand=group_demand(demand, group, index))


@pytest.fixture
def node() -> Bench:
    return Bench.with_workers(2)


def test_names_of_resources() -> None:
    both = {f"CPU_group_{G}:1", f"CPU_group_3_{G}:1", f"GPU_group_{G}:0.5", f"GPU_group_3_{G}:0.5"}
    assert set(group_demand("CPU:1,GPU:0.5", G, 3).split(",")) == both
    assert group_demand("-", G, -1) == f"bundle_group_{G}:0.001"
    assert plain(group_demand("CPU:1,my_group_x:2", G, 0)) == {"CPU": 10_000, "my_group_x": 20_000}
    assert plain(group_demand("-", G, 0)) == {}
    assert plain("CPU:1,my_group_x:2") == {"CPU": 10_000, "my_group_x": 20_000}
    assert (group_of(group_demand("mark:1", G, 0)), group_of("CPU:1,my_group_x:2"), group_of("-")) == (G, None, None)
    assert bundle_resources("CPU:2", G, 1)[f"bundle_group_1_{G}"] == 10_000_000


class TestGranted:
    def test_a_bundle_leaves_what_is_free_and_comes_back_renamed(self, node: Bench) -> None:
        assert want(node, "CPU:1", "CPU:0.5")
        ledger = node.state.ledger
        assert ledger.free_text() == "CPU:0.5"
        assert ledger.free[f"CPU_group_{G}"] == 15_000
        assert (ledger.free[f"CPU_group_0_{G}"], ledger.free[f"CPU_group_1_{G}"]) == (10_000, 5_000)
        assert f"CPU_group_{G}:1.5" in ledger.claimable_text()
        assert ledger.bundle_room_text() == "CPU:0.5"

    def test_all_or_none(self, node: Bench) -> None:
        assert not want(node, "CPU:1", "CPU:2")
        assert node.state.ledger.free_text() == "CPU:2"
        assert not want(node, "mark:1")

    def test_nothing_runs_before_the_commit(self, node: Bench) -> None:
        assert want(node, "CPU:1", alone=False)
        assert node.submit(inside(1)) == "-"
        node.handle(events.BundlesCommitted(G))
        node.settle()
        node.receive(inside(1))
        assert node.worker_of(1)

    def test_a_draining_node_refuses(self, node: Bench) -> None:
        node.state.drain()
        assert not want(node, "CPU:1")

    def test_bundles_of_a_later_attempt_join_the_others(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        assert want(node, "CPU:0.5", attempt=2, first=1)
        assert node.state.ledger.free[f"CPU_group_{G}"] == 15_000

    def test_an_answer_is_said_before_what_is_free(self, node: Bench) -> None:
        node.handle(events.BundlesWanted(G, 1, True, [(0, "CPU:1")]))
        assert node.state.bundles.has_answers()
        node.settle()
        assert not node.state.bundles.has_answers()


class TestUsed:
    def test_a_task_of_the_group_starts_here_at_once(self, node: Bench) -> None:
        assert want(node, "CPU:2")
        node.settle()
        node.receive()
        assert node.submit(inside(1)) == "R"
        assert node.submit(task(2)) == "-", "nothing is left outside"

    def test_a_bundle_is_not_overdrawn(self, node: Bench) -> None:
        assert want(node, "CPU:1", "CPU:1")
        node.receive(inside(1, index=0), inside(2, index=0), inside(3, index=1))
        assert {number for number in (1, 2, 3) if node.state.attempts[task_id(number)].worker} == {1, 3}

    def test_a_blocked_task_lends_its_bundles_cpu_only(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        node.receive(inside(1, index=0))
        node.handle(events.WorkerBlocked(node.worker_of(1), [], []))
        ledger = node.state.ledger
        assert ledger.free_text() == "CPU:1"
        assert ledger.free[f"CPU_group_{G}"] == ledger.free[f"CPU_group_0_{G}"] == 10_000
        node.handle(events.WorkerUnblocked(node.worker_of(1)))
        assert ledger.free[f"CPU_group_{G}"] == 0

    def test_gpus_belong_to_their_bundle(self) -> None:
        node = Bench(4, GPU=2)
        node.workers(4)
        assert want(node, "GPU:1") and want(node, "GPU:0.5", group=H)
        assert not want(node, "GPU:1", group="ef" * 12), "the other one is half taken"
        node.receive(inside(1, "GPU:1"), inside(2, "GPU:0.5", 0, H), task(3, demand="GPU:0.5"))
        runs = {dispatch.run.spec: dispatch.run.gpus for dispatch in of(actions.Dispatch, node.log)}
        assert sorted(map(tuple, runs.values())) == [(0,), (1,), (1,)]


class TestReleased:
    def test_an_attempt_that_failed_elsewhere(self, node: Bench) -> None:
        assert want(node, "CPU:1", "CPU:1", alone=False)
        release(node, 0, 1)
        assert node.state.ledger.free_text() == "CPU:2"
        node.handle(events.BundlesCommitted(G))  # cannot come any more; and would find nothing

    def test_part_of_a_group(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        assert want(node, "CPU:1", attempt=2, first=1, alone=False)
        release(node, 1)
        assert node.state.ledger.free_text() == "CPU:1"
        assert node.state.ledger.free[f"CPU_group_{G}"] == 10_000

    def test_an_idle_group_is_gone_at_once(self, node: Bench) -> None:
        assert want(node, "CPU:2")
        release(node)
        assert node.state.ledger.free == {"CPU": 20_000}
        assert node.state.ledger.total == {"CPU": 20_000}
        release(node)

    def test_what_runs_is_killed_and_never_retried(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        node.receive(inside(1), inside(2))
        worker = node.worker_of(1)
        release(node)
        assert [kill.worker for kill in of(actions.Kill, node.state.out)] == [worker]
        assert node.finished(node.settle()) == {2: Outcome.REMOVED}
        assert node.state.ledger.free_text() == "CPU:1", "not before the worker has ended"
        assert not want(node, "CPU:2", group=H)
        assert f"CPU_group_{G}" not in node.state.ledger.claimable_text()
        node.gone(worker, started=1)
        assert node.finished(node.settle()) == {1: Outcome.REMOVED}
        assert node.state.ledger.free == {"CPU": 20_000}
        assert want(node, "CPU:2", group=H)

    def test_a_result_that_was_faster_counts(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        node.receive(inside(1))
        worker = node.worker_of(1)
        release(node)
        node.done(1)
        assert node.finished(node.settle()) == {1: Outcome.VALUE}
        assert node.state.ledger.free == {"CPU": 20_000}
        node.gone(worker)

    def test_actors_die_for_good(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        held = group_demand("CPU:1", G, -1)
        worker = born(node, demand=held, held=held)
        release(node)
        assert of(actions.Dispatch, received(node, call(2, 1))) == [], "it is being killed"
        node.gone(worker)
        out = node.settle()
        died = of(actions.RecordActorDied, out)
        assert [(action.actor, action.final) for action in died] == [(task_id(1), 4)]
        assert "placement group" in died[0].cause
        assert node.finished(out) == {2: Outcome.HANDED_BACK}, "Redis knows what became of the actor"
        assert node.state.ledger.free == {"CPU": 20_000}

    def test_a_creation_that_waits_dies_too(self, node: Bench) -> None:
        assert want(node, "CPU:1")
        held = group_demand("CPU:1", G, -1)
        node.receive(inside(1), creation(2, demand=held, held=held))
        release(node)
        died = of(actions.RecordActorDied, node.settle())
        assert [(action.actor, action.final) for action in died] == [(task_id(2), 4)]
