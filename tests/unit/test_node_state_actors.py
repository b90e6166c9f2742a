"""The local scheduler as a host of actors: born, called in order, killed, retired, lost."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome, Reply
from redray.messages import Cancel, Done
from redray.worker import actions, events
from tests.unit.bench import (
    ACTOR,
    DRIVER,
    JOB,
    OTHER,
    Bench,
    answered,
    asked,
    born,
    call,
    creation,
    of,
    received,
    result_of,
    task,
    task_id,
)


@pytest.fixture
def node() -> Bench:
    """Two CPUs and two workers; calls are known to be short, so that they do not wait for one another here."""
    bench = Bench.with_workers(2)
    bench.state.actors.run_times.record("Am", 10)
    return bench


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

    def test_long_ones_are_sent_one_by_one(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1), call(3, 2), call(4, 3))
        node.done(2, run_us=100_000)
        node.submit(call(5, 4), call(6, 5))
        assert node.dispatched(node.settle()) == [2, 3, 4]
        node.done(3, run_us=100_000)
        assert node.dispatched(node.settle()) == []
        node.done(4, run_us=100_000)
        assert node.dispatched(node.settle()) == [5]

    def test_callers_take_turns(self, node: Bench) -> None:
        born(node)
        node.state.actors.run_times.record("Am", 100_000)
        node.submit(call(2, 1), call(3, 2), call(4, 3))
        node.submit(call(12, 1, maker=OTHER), call(13, 2, maker=OTHER), maker=OTHER)
        for number, maker in ((2, DRIVER), (3, DRIVER), (12, OTHER), (4, DRIVER), (13, OTHER)):
            node.done(number, maker=maker, run_us=100_000)
        assert node.dispatched(node.settle()) == [2, 3, 12, 4, 13]

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

    def test_the_end_of_its_own_job_is_its_death_to_callers_of_others(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1, job=OTHER, maker=OTHER), maker=OTHER)
        node.submit(call(3, 1))
        node.settle()
        node.handle(events.JobEnded(JOB))
        node.gone(worker, started=2)
        assert node.finished(node.settle()) == {2: Outcome.CRASHED, 3: Outcome.CANCELLED}

    def test_the_end_of_a_callers_job_ends_its_calls_that_wait_for_earlier_ones(self, node: Bench) -> None:
        """Those will not come any more, and an actor that waits for them for ever could not be retired."""
        worker = born(node)
        node.submit(call(2, 2, job=OTHER, maker=OTHER), maker=OTHER)
        assert node.dispatched(node.settle()) == []
        node.handle(events.JobEnded(OTHER))
        assert node.finished(node.settle()) == {2: Outcome.CANCELLED}
        assert node.submit(call(3, 3, job=OTHER, maker=OTHER), maker=OTHER) == "-"
        node.handle(events.RetireRequested(ACTOR))
        assert node.worker(worker).leaving

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
        node.handle(events.Rung())
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
        node.handle(events.CancelRequested(task_id(2), "force"))
        assert of(actions.Interrupt, node.settle()) == [actions.Interrupt(worker, task_id(2), 1)]

    def test_the_main_thread_of_a_concurrent_actor_reads_frames(self, node: Bench) -> None:
        worker = born(node, max_concurrency=2)
        node.submit(call(2, 1))
        node.handle(events.CancelRequested(task_id(2), ""))
        out = node.settle()
        assert of(actions.Send, out) == [actions.Send(worker, Cancel(task_id(2)))]
        assert of(actions.Kill, out) == []

    def test_whatever_a_cancelled_call_returns_it_is_cancelled(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1))
        node.handle(events.CancelRequested(task_id(2), ""))
        node.done(2)
        (record,) = of(actions.RecordFinishes, node.settle())
        assert [(end.outcome, end.returns) for end, _ in record.finishes] == [(Outcome.CANCELLED, [])]

    def test_a_call_that_waits_for_an_argument_lets_the_next_pass(self, node: Bench) -> None:
        born(node)
        node.submit(call(2, 1, needs=["0" * 32]), call(3, 2))
        node.handle(events.CancelRequested(task_id(2), ""))
        out = node.settle()
        assert node.finished(out) == {2: Outcome.CANCELLED}
        assert node.dispatched(out) == [3]
        node.handle(events.ObjectNews("0" * 32, b"Vx"))
        assert node.dispatched(node.settle()) == []

    def test_an_early_call_keeps_its_number(self, node: Bench) -> None:
        born(node)
        node.submit(call(3, 2), call(4, 3))
        node.handle(events.CancelRequested(task_id(3), ""))
        node.settle()
        assert node.dispatched(received(node, call(2, 1))) == [2, 4]

    def test_a_cancelled_call_ends_once(self, node: Bench) -> None:
        worker = born(node)
        node.submit(call(2, 1, needs=["0" * 32]))
        node.handle(events.CancelRequested(task_id(2), ""))
        assert node.finished(node.settle()) == {2: Outcome.CANCELLED}
        node.gone(worker, started=1)
        assert node.finished(node.settle()) == {}

    def test_a_cancelled_call_that_comes_again_is_another(self, node: Bench) -> None:
        born(node)
        node.submit(call(3, 2))
        node.handle(events.CancelRequested(task_id(3), ""))
        node.settle()
        received(node, call(3, 2), attempt=2)
        received(node, call(2, 1))
        runs = [dispatch.run.attempt for dispatch in of(actions.Dispatch, node.log) if dispatch.run.spec == call(3, 2)]
        assert runs == [2]


def test_the_answer_to_its_start_may_come_after_calls_that_were_made_after_it() -> None:
    """Answers and the inbox come on two connections: an old number in the answer must not undo a newer one."""
    node = Bench.with_workers(2)
    node.receive(creation(1))
    node.done(1)
    node.settle()
    received(node, call(3, 2))
    answered(node, call(2, 1), callers={DRIVER: 1})
    node.done(2)
    node.settle()
    node.done(3)
    node.settle()
    assert node.submit(call(4, 3)) == "R"
