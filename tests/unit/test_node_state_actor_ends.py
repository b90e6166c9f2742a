"""The local scheduler as a host of actors: how they die, are killed, retired, and live again."""

from __future__ import annotations

from typing import Any

import pytest

from redray.gcs.schema import Outcome, Reply
from redray.messages import Exit
from redray.worker import actions, events
from tests.unit.bench import (
    ACTOR,
    DRIVER,
    JOB,
    Bench,
    answered,
    born,
    call,
    creation,
    of,
    received,
    task_id,
)


@pytest.fixture
def node() -> Bench:
    """Two CPUs and two workers; calls are known to be short, so that they do not wait for one another here."""
    bench = Bench.with_workers(2)
    bench.state.actors.run_times.record("Am", 10)
    return bench


class TestDeath:
    def test_calls_that_began_crash_and_those_not_sent_go_back(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1), call(3, 2, retries=1), call(4, 3), call(5, 4, needs=["0" * 32]))
        node.settle()
        node.gone(worker, started=2)
        out = node.settle()
        assert node.finished(out) == {
            2: Outcome.CRASHED,
            3: Outcome.HANDED_BACK,
            4: Outcome.CRASHED,  # sent is sent, as with Ray, where it may not be repeated
            5: Outcome.HANDED_BACK,
        }
        told = [type(action) for action in out]
        assert told.index(actions.RecordActorDied) < told.index(actions.RecordFinishes), (
            "calls return to where it is then"
        )
        assert node.free() == 2

    def test_with_threads_anything_sent_may_have_begun(self, node: Bench) -> None:
        worker = born(node, max_concurrency=2)
        node.submit(call(2, 1), call(3, 2))
        node.gone(worker, started=2)
        assert node.finished(node.settle()) == dict.fromkeys((2, 3), Outcome.CRASHED)

    def test_idle(self, node: Bench) -> None:
        worker = born(node)
        node.gone(worker, started=1, detail="It was killed by signal 9.")
        [died] = of(actions.RecordActorDied, node.settle())
        assert (died.actor, died.final) == (ACTOR, 0)
        assert "signal 9" in died.cause

    def test_of_its_own_will(self, node: Bench) -> None:
        worker = born(node)
        node.handle(events.ActorExiting(worker, "it ended itself"))
        assert node.submit(call(2, 1)) == "-"
        node.gone(worker, started=1)
        [died] = of(actions.RecordActorDied, node.settle())
        assert (died.final, died.cause) == (1, "The actor is dead because it ended itself.")

    def test_killed(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1))
        node.handle(events.KillRequested(ACTOR, "ray.kill"))
        assert of(actions.Kill, node.settle()) == [actions.Kill(worker)]
        node.gone(worker, started=2)
        out = node.settle()
        assert of(actions.RecordActorDied, out) == [actions.RecordActorDied(ACTOR, 1, 0, "ray.kill")]
        assert node.finished(out) == {2: Outcome.CRASHED}

    def test_killed_before_it_was_given_a_worker(self) -> None:
        node = Bench(1)
        node.receive(creation(1))
        node.handle(events.KillRequested(ACTOR, "ray.kill"))
        out = node.settle()
        assert [died.actor for died in of(actions.RecordActorDied, out)] == [ACTOR]
        assert node.state.is_at_rest()
        node.ready()
        assert node.dispatched(node.settle()) == []

    def test_killed_while_its_constructor_waits_in_its_worker(self, node: Bench) -> None:
        node.receive(creation(1))
        worker = node.worker_of(1)
        node.handle(events.KillRequested(ACTOR, "ray.kill"))
        node.gone(worker)
        out = node.settle()
        assert node.dispatched(out) == []
        assert len(of(actions.RecordActorDied, out)) == 1

    def test_with_its_job(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1))
        node.handle(events.JobEnded(JOB))
        assert of(actions.Kill, node.settle()) == [actions.Kill(worker)]
        node.gone(worker, started=2)
        assert node.finished(node.settle()) == {2: Outcome.CANCELLED}

    def test_while_redis_was_handing_over_its_calls(self, node: Bench) -> None:
        node.receive(creation(1))
        worker = node.worker_of(1)
        node.done(1)
        node.settle()
        node.gone(worker, started=1)
        out = answered(node, call(2, 1), call(3, 2), outcome=Reply.MORE)
        assert node.finished(out) == dict.fromkeys((2, 3), Outcome.HANDED_BACK)

    def test_lives_again_on_the_same_node(self, node: Bench) -> None:
        """A call that was under way to its earlier life comes behind those that were parked, in its caller's order."""
        node.gone(born(node), started=1)
        node.settle()
        node.receive(creation(1), attempt=2)
        received(node, call(3, 2))
        node.done(1)
        node.settle()
        assert node.dispatched(answered(node, call(2, 1), call(4, 3), callers={DRIVER: 3})) == [2, 3, 4]


class TestRetirement:
    def retire(self, node: Bench) -> list[Any]:
        node.handle(events.RetireRequested(ACTOR))
        return farewells(node.settle())

    def test_when_nothing_is_left_to_do(self, node: Bench) -> None:
        worker = born(node)
        [farewell] = self.retire(node)
        assert farewell.worker == worker
        node.gone(worker, started=1)
        [died] = of(actions.RecordActorDied, node.settle())
        assert died.final
        assert "out of scope" in died.cause

    def test_after_its_last_call(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1))
        assert self.retire(node) == []
        node.done(2)
        assert len(farewells(node.settle())) == 1

    def test_asked_twice(self, node: Bench) -> None:
        born(node)
        assert len(self.retire(node)) == 1
        assert self.retire(node) == []

    def test_before_it_is_alive(self, node: Bench) -> None:
        node.receive(creation(1))
        assert self.retire(node) == []
        node.done(1)
        node.settle()
        out = answered(node, call(2, 1), callers={DRIVER: 1})
        assert farewells(out) == []
        node.done(2)
        assert len(farewells(node.settle())) == 1

    def test_after_its_last_call_was_cancelled(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1, needs=["0" * 32]))
        assert self.retire(node) == []
        node.handle(events.CancelRequested(task_id(2), ""))
        assert len(farewells(node.settle())) == 1

    def test_unknown(self, node: Bench) -> None:
        assert self.retire(node) == []


def farewells(out: list[actions.Action]) -> list[actions.Send]:
    return [send for send in of(actions.Send, out) if isinstance(send.message, Exit)]
