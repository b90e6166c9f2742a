"""The local scheduler as a host of actors: born, called in order, killed, retired, lost."""

from __future__ import annotations

from typing import Any

import pytest

from redray.gcs.schema import Outcome, Reply
from redray.messages import Cancel, Done, Exit
from redray.worker import actions, events
from tests.unit.bench import DRIVER, JOB, OTHER, Bench, asked, call, creation, of, result_of, task, task_id

ACTOR = task_id(1)


@pytest.fixture
def node() -> Bench:
    return Bench.with_workers(2)


def born(node: Bench, *, attempt: int = 1, callers: dict[str, int] | None = None, **options: Any) -> str:
    """An actor that lives on the node; returns its worker."""
    node.receive(creation(1, **options), attempt=attempt)
    worker = node.worker_of(1)
    node.done(1)
    node.settle()
    answered(node, callers=callers)
    return worker


def answered(
    node: Bench, *calls: bytes, outcome: str = Reply.OK, callers: dict[str, int] | None = None
) -> list[actions.Action]:
    items: list[tuple[int, bytes, dict[str, bytes], list[str]]] = [(1, packed, {}, []) for packed in calls]
    node.handle(events.ActorStartAnswered(ACTOR, outcome, items, callers or {}))
    return node.settle()


def received(node: Bench, packed: bytes, attempt: int = 1) -> list[actions.Action]:
    node.handle(events.CallReceived(attempt, packed))
    return node.settle()


class TestBirth:
    def test_a_creation_takes_a_worker(self, node: Bench) -> None:
        out = node.receive(creation(1))
        assert node.dispatched(out) == [1]
        assert node.free() == 1

    def test_the_constructor_returned(self, node: Bench) -> None:
        node.receive(creation(1, demand="CPU:1", held="CPU:0.5"))
        worker = node.worker_of(1)
        node.done(1)
        out = node.settle()
        assert of(actions.RecordActorStarted, out) == [actions.RecordActorStarted(ACTOR, 1, worker)]
        assert node.free() == 1.5
        assert node.state.is_at_rest()

    def test_the_constructor_raised(self, node: Bench) -> None:
        node.receive(creation(1))
        worker = node.worker_of(1)
        node.handle(events.TaskDone(worker, Done(ACTOR, 1, Outcome.ERROR, [], 5, "ValueError: no")))
        out = node.settle()
        assert of(actions.RecordActorDied, out) == [actions.RecordActorDied(ACTOR, 1, 2, "ValueError: no")]
        assert of(actions.Kill, out) == [actions.Kill(worker)]
        node.gone(worker, started=1)
        assert of(actions.RecordActorDied, node.settle()) == []
        assert node.free() == 2

    def test_the_constructor_killed_its_process(self, node: Bench) -> None:
        node.receive(creation(1))
        node.gone(node.worker_of(1), started=1)
        [died] = of(actions.RecordActorDied, node.settle())
        assert (died.final, died.attempt) == (0, 1)

    def test_a_constructor_that_never_began_is_tried_again(self, node: Bench) -> None:
        node.receive(creation(1))
        first = node.worker_of(1)
        node.gone(first)
        out = node.settle()
        assert of(actions.RecordActorDied, out) == []
        assert node.dispatched(out) == [1]
        assert node.worker_of(1) != first

    def test_killed_elsewhere_meanwhile(self, node: Bench) -> None:
        node.receive(creation(1))
        worker = node.worker_of(1)
        node.done(1)
        node.settle()
        assert of(actions.Kill, answered(node, outcome=Reply.STALE)) == [actions.Kill(worker)]

    def test_a_process_of_an_actor_takes_no_tasks(self, node: Bench) -> None:
        born(node)
        assert node.submit(task(2), task(3)) == "R-"


class TestCalls:
    def test_the_short_way(self, node: Bench) -> None:
        worker = born(node)
        assert node.submit(call(2, 1), call(3, 2)) == "RC"
        assert node.dispatched(node.settle()) == [2, 3]
        assert node.worker_of(2) == worker

    def test_several_at_once_run_at_once(self, node: Bench) -> None:
        born(node, max_concurrency=4)
        assert node.submit(call(2, 1), call(3, 2)) == "RR"

    def test_to_an_actor_that_is_elsewhere_or_not_ready(self, node: Bench) -> None:
        assert node.submit(call(2, 1)) == "-"
        node.receive(creation(1))
        assert node.submit(call(3, 2)) == "-"
        node.done(1)
        assert node.submit(call(4, 3)) == "-"

    def test_parked_calls_come_first(self, node: Bench) -> None:
        node.receive(creation(1))
        node.done(1)
        node.settle()
        assert node.dispatched(answered(node, call(2, 1), call(3, 2), callers={DRIVER: 2})) == [2, 3]
        assert node.submit(call(4, 3)) == "C"
        assert node.dispatched(node.settle()) == [4]

    def test_many_parked_calls_are_asked_for_again(self, node: Bench) -> None:
        node.receive(creation(1))
        node.done(1)
        node.settle()
        out = answered(node, call(2, 1), outcome=Reply.MORE)
        assert len(of(actions.RecordActorStarted, out)) == 1
        assert node.submit(call(4, 3)) == "-"
        assert node.dispatched([*out, *answered(node, call(3, 2), callers={DRIVER: 3})]) == [2, 3]

    def test_a_call_that_is_faster_than_the_parked_ones_waits(self, node: Bench) -> None:
        """It comes through the inbox, they come in a reply: two ways, no order between them."""
        node.receive(creation(1))
        node.done(1)
        node.settle()
        assert node.dispatched(received(node, call(4, 3))) == []
        assert node.dispatched(answered(node, call(2, 1), call(3, 2), callers={DRIVER: 3})) == [2, 3, 4]

    def test_an_early_local_call_waits_for_those_on_their_way(self, node: Bench) -> None:
        born(node, callers={DRIVER: 1})
        assert node.submit(call(4, 3)) == "C"
        assert node.dispatched(node.settle()) == []
        assert node.dispatched(received(node, call(3, 2))) == [3, 4]

    def test_a_caller_of_an_earlier_life_goes_on_counting(self, node: Bench) -> None:
        born(node, attempt=2, callers={DRIVER: 7})
        assert node.submit(call(9, 8)) == "R"

    def test_a_retried_call_comes_late_and_runs(self, node: Bench) -> None:
        born(node, callers={DRIVER: 5})
        assert node.dispatched(received(node, call(3, 2), attempt=2)) == [3]
        assert node.submit(call(9, 6)) == "C"

    def test_an_argument_holds_back_its_own_caller_only(self, node: Bench) -> None:
        born(node)
        needed = result_of(task_id(77))
        node.submit(call(2, 1, needs=[needed]), call(3, 2))
        out = node.settle()
        assert of(actions.Learn, out) == [actions.Learn([needed])]
        node.submit(call(4, 1, maker=OTHER), maker=OTHER)
        assert node.dispatched([*out, *node.settle()]) == [4]
        node.handle(events.ObjectNews(needed, b"Vlate"))
        [first, second] = of(actions.Dispatch, node.settle())
        assert first.run.values == {needed: b"Vlate"}
        assert node.dispatched([first, second]) == [2, 3]

    def test_asks_for_arguments_behind_the_batch_that_may_make_them(self, node: Bench) -> None:
        """Redis calls an object lost that nobody has submitted."""
        born(node)
        node.submit(call(2, 1, needs=[result_of(task_id(3))]), call(3, 2))
        assert of(actions.Learn, node.state.out) == []
        assert len(of(actions.Learn, node.settle())) == 1
        assert node.settle() == []

    def test_a_call_from_another_job_leaves_the_actor_in_its_own(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1, job=OTHER, maker=OTHER), maker=OTHER)
        [dispatch] = of(actions.Dispatch, node.settle())
        assert (dispatch.job, node.worker(worker).job) == (JOB, JOB)
        node.handle(events.JobEnded(OTHER))
        assert of(actions.Kill, node.settle()) == []

    def test_waits_for_all_its_arguments(self, node: Bench) -> None:
        born(node)
        one, two = result_of(task_id(77)), result_of(task_id(78))
        node.submit(call(2, 1, needs=[one, two, one]))
        node.settle()
        node.handle(events.ObjectNews(two, None))
        assert node.dispatched(node.settle()) == []
        node.handle(events.ObjectNews(one, b"Vone"))
        assert node.dispatched(node.settle()) == [2]

    def test_a_result_goes_to_redis_and_asks(self, node: Bench) -> None:
        born(node)
        node.receive()
        node.submit(call(2, 1))
        node.done(2)
        out = node.settle()
        assert node.finished(out) == {2: Outcome.VALUE}
        assert asked(out) > 0

    def test_call_for_an_actor_that_left(self, node: Bench) -> None:
        out = received(node, call(2, 1))
        assert node.finished(out) == {2: Outcome.HANDED_BACK}


class TestCancel:
    def test_a_call_that_was_sent_is_asked_to_end(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1))
        node.handle(events.CancelRequested(task_id(2), True))
        out = node.settle()
        assert of(actions.Send, out) == [actions.Send(worker, Cancel(task_id(2)))]
        assert of(actions.Kill, out) == []

    def test_a_call_that_waits_for_an_argument_lets_the_next_pass(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1, needs=["0" * 32]), call(3, 2))
        node.handle(events.CancelRequested(task_id(2), False))
        out = node.settle()
        assert node.finished(out) == {2: Outcome.CANCELLED}
        assert node.dispatched(out) == [3]
        node.handle(events.ObjectNews("0" * 32, b"Vx"))
        assert node.dispatched(node.settle()) == []

    def test_an_early_call_keeps_its_number(self, node: Bench) -> None:
        born(node)
        node.submit(call(3, 2), call(4, 3))
        node.handle(events.CancelRequested(task_id(3), False))
        node.settle()
        assert node.dispatched(received(node, call(2, 1))) == [2, 4]

    def test_a_cancelled_call_ends_once(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1, needs=["0" * 32]))
        node.handle(events.CancelRequested(task_id(2), False))
        assert node.finished(node.settle()) == {2: Outcome.CANCELLED}
        node.gone(worker, started=1)
        assert node.finished(node.settle()) == {}

    def test_a_cancelled_call_that_comes_again_is_another(self, node: Bench) -> None:
        born(node)
        node.submit(call(3, 2))
        node.handle(events.CancelRequested(task_id(3), False))
        node.settle()
        received(node, call(3, 2), attempt=2)
        received(node, call(2, 1))
        runs = [dispatch.run.attempt for dispatch in of(actions.Dispatch, node.log) if dispatch.run.spec == call(3, 2)]
        assert runs == [2]


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
        assert (died.final, died.cause) == (1, "it ended itself")

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
        node.handle(events.CancelRequested(task_id(2), False))
        assert len(farewells(node.settle())) == 1

    def test_unknown(self, node: Bench) -> None:
        assert self.retire(node) == []


def farewells(out: list[actions.Action]) -> list[actions.Send]:
    return [send for send in of(actions.Send, out) if isinstance(send.message, Exit)]
