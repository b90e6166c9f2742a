"""The local scheduler: workers that die, block, hand back; tasks that are cancelled; jobs that end; time."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from redray.messages import TakeBack
from redray.worker import actions, events
from redray.worker.pool import IDLE_MS
from redray.worker.state import TELL_RUNNING_MS
from redray.worker.withdrawals import SLOW_MS
from tests.unit.bench import JOB, OTHER, Bench, asked, creation, of, short_tasks_in_line, task, task_id


@pytest.fixture
def node() -> Bench:
    """Two CPUs, two workers that are ready, and nothing known of the cluster."""
    return Bench.with_workers(2)


class TestWorkerDeath:
    def test_what_ran_is_crashed_and_says_how(self, node: Bench) -> None:
        node.submit(task(1))
        node.gone(node.worker_of(1), started=1, detail="It was killed by signal 9.")
        [record] = of(actions.RecordFinishes, node.settle())
        [(end, values)] = record.finishes
        assert (end.outcome, values) == (Outcome.CRASHED, [])
        assert "signal 9" in end.detail
        assert task_id(1) in end.detail
        assert node.free() == 2

    def test_what_never_started_runs_again_for_free(self, node: Bench) -> None:
        node.submit(task(1))
        first = node.worker_of(1)
        node.settle()
        node.gone(first)
        assert node.dispatched(node.settle()) == [1]
        assert node.attempt(1).attempt == 1
        assert node.worker_of(1) != first

    def test_only_what_was_sent_behind_the_mark_never_started(self) -> None:
        node = Bench(1)
        node.workers(1)
        node.receive()
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(*(task(number) for number in range(2, 7)))
        node.settle()
        node.gone(node.worker_of(2), started=4)
        assert node.finished(node.settle()) == dict.fromkeys((2, 3, 4), Outcome.CRASHED)
        node.ready()
        assert node.dispatched(node.settle()) == [5, 6]

    def test_a_mark_of_something_finished_says_that_nothing_else_started(self, node: Bench) -> None:
        node.submit(task(1))
        worker = node.worker_of(1)
        node.done(1)
        node.gone(worker, started=1)
        assert node.finished(node.settle()) == {1: Outcome.VALUE}

    def test_a_mark_of_an_earlier_attempt_is_not_this_one(self, node: Bench) -> None:
        node.receive(task(1), attempt=2)
        node.gone(node.worker_of(1), started=1, attempt=1)
        assert node.finished(node.settle()) == {}

    def test_an_idle_worker_may_die(self, node: Bench) -> None:
        node.gone(next(iter(node.state.workers)))
        assert asked(node.settle()) > 0

    def test_a_dead_worker_is_dead(self, node: Bench) -> None:
        node.submit(task(1))
        worker = node.worker_of(1)
        node.gone(worker, started=1)
        for late in (
            events.WorkerGone(worker, None, ""),
            events.WorkerBlocked(worker, []),
            events.WorkerUnblocked(worker),
        ):
            node.handle(late)
        node.handle(events.WorkerReady(worker))
        node.handle(events.HandedBackTasks(worker, [node.serial(1)]))
        assert node.finished(node.settle()) == {1: Outcome.CRASHED}


class TestBlocking:
    def test_lends_cpus_and_keeps_the_rest(self) -> None:
        node = Bench(2, GPU=1, memory=4)
        node.workers(1)
        node.receive(task(1, demand="CPU:2,GPU:1,memory:4"))
        node.handle(events.WorkerBlocked(node.worker_of(1), []))
        assert (node.free("CPU"), node.free("GPU"), node.free("memory")) == (2, 0, 0)
        node.handle(events.WorkerUnblocked(node.worker_of(1)))
        assert node.free("CPU") == 0

    def test_waking_may_overdraw_for_a_moment(self, node: Bench) -> None:
        node.submit(task(1), task(2))
        node.handle(events.WorkerBlocked(node.worker_of(1), []))
        node.receive(task(3))
        node.ready()
        node.settle()
        node.handle(events.WorkerUnblocked(node.worker_of(1)))
        assert node.free() == -1
        node.handle(events.Rung())
        assert {action.free for action in of(actions.Claim, node.settle())} <= {"-"}
        for number in (1, 2, 3):
            node.done(number)
        assert node.free() == 2

    @pytest.mark.parametrize("end", ["gone", "done"])
    def test_ends_while_blocked(self, node: Bench, end: str) -> None:
        node.submit(task(1))
        worker = node.worker_of(1)
        node.handle(events.WorkerBlocked(worker, []))
        if end == "gone":
            node.gone(worker, started=1)
        else:
            node.done(1)
        node.handle(events.WorkerUnblocked(worker))
        assert node.free() == 2

    def test_the_next_task_of_a_worker_is_not_blocked(self, node: Bench) -> None:
        """Its predecessor ended without saying that it woke."""
        node.receive(*(task(number) for number in (1, 2, 3)))
        worker = node.worker_of(1)
        node.handle(events.WorkerBlocked(worker, []))
        node.done(1)
        assert node.worker_of(3) == worker
        assert not node.worker(worker).blocked
        assert node.free() == 0

    def test_blocking_without_work_lends_nothing(self, node: Bench) -> None:
        """A thread that user code left behind waits for something."""
        worker = next(iter(node.state.workers))
        node.handle(events.WorkerBlocked(worker, []))
        assert node.free() == 2
        node.submit(task(1), task(2))
        node.handle(events.WorkerUnblocked(worker))
        assert node.free() == 0
        node.done(1)
        node.done(2)
        assert node.free() == 2

    def test_said_twice_counts_once(self, node: Bench) -> None:
        node.submit(task(1))
        for _ in range(2):
            node.handle(events.WorkerBlocked(node.worker_of(1), []))
        assert node.free() == 2
        for _ in range(2):
            node.handle(events.WorkerUnblocked(node.worker_of(1)))
        assert node.free() == 1

    def test_what_was_sent_ahead_comes_back_and_goes_elsewhere(self) -> None:
        node = Bench(1)
        node.workers(2)
        node.receive()
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(task(2), task(3), task(4))
        node.settle()
        blocked = node.worker_of(2)
        node.handle(events.WorkerBlocked(blocked, [node.serial(3), node.serial(4)]))
        node.settle()
        assert node.worker_of(3) not in ("", blocked)

    def test_what_was_under_way_to_a_worker_that_blocks_is_taken_back(self) -> None:
        """It may be the very thing that the worker waits for."""
        node = Bench(1)
        [worker] = node.workers(1)
        node.receive()
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(task(2), task(3))
        node.handle(events.WorkerBlocked(worker, []))
        assert of(actions.Send, node.settle()) == [actions.Send(worker, TakeBack(node.serial(3)))]
        node.handle(events.HandedBackTasks(worker, [node.serial(3)]))
        node.settle()
        node.ready()
        node.settle()
        assert node.worker_of(3) not in ("", worker)

    def test_nothing_is_sent_ahead_to_a_blocked_worker(self) -> None:
        node = Bench(1)
        [worker] = node.workers(1)
        node.receive()
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(task(2))
        node.handle(events.WorkerBlocked(worker, []))
        node.receive(task(3))
        assert node.worker_of(3) == ""


class TestHandingBack:
    def test_a_worker_that_leaves_returns_what_it_did_not_start(self, node: Bench) -> None:
        """max_calls was reached."""
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(*(task(number) for number in range(2, 6)))
        worker = node.worker_of(2)
        waiting = [id for id in node.worker(worker).sent if id != task_id(2)]
        node.done(2)
        node.handle(events.HandedBackTasks(worker, [node.serial(number) for number in range(3, 6)]))
        node.gone(worker, started=2)
        node.settle()
        node.ready()
        node.settle()
        assert all(node.state.attempts[id].worker != worker for id in waiting)

    def test_the_emptied_worker_holds_nothing(self, node: Bench) -> None:
        node.submit(task(1))
        node.handle(events.HandedBackTasks(node.worker_of(1), [node.serial(1)]))
        node.settle()
        assert node.free() == 1

    def test_an_idle_worker_that_has_nothing_to_return_is_given_nothing(self, node: Bench) -> None:
        """It ran what it was asked to return. Work it gets must be paid for."""
        worker = next(iter(node.state.workers))
        node.submit(task(1), task(2, demand="CPU:1"))
        node.receive(task(3))
        node.done(1)
        node.done(2)
        node.settle()
        node.done(3)
        node.handle(events.WorkReceived([(1, task(4), {}, [])], []))
        node.handle(events.HandedBackTasks(worker, []))
        assert node.dispatched(node.settle())[-1:] == [4]

    def test_unknown_runs_do_not_matter(self, node: Bench) -> None:
        node.submit(task(1))
        node.handle(events.HandedBackTasks(node.worker_of(1), [7]))
        assert node.worker_of(1)


class TestCancel:
    def test_in_the_backlog(self) -> None:
        node = Bench(1)
        node.receive(task(1))
        node.handle(events.CancelRequested(task_id(1), ""))
        assert node.finished(node.settle()) == {1: Outcome.CANCELLED}
        node.ready()
        assert node.dispatched(node.settle()) == []

    def test_running(self, node: Bench) -> None:
        node.submit(task(1))
        node.handle(events.CancelRequested(task_id(1), ""))
        assert of(actions.Interrupt, node.settle()) == [actions.Interrupt(node.worker_of(1), task_id(1), 1)]
        node.done(1, Outcome.CANCELLED)
        assert node.finished(node.settle()) == {1: Outcome.CANCELLED}

    def test_by_force(self, node: Bench) -> None:
        node.submit(task(1))
        worker = node.worker_of(1)
        node.handle(events.CancelRequested(task_id(1), "force"))
        assert of(actions.Kill, node.settle()) == [], "another may run there by now"
        node.revoked(worker, started=1)
        assert of(actions.Kill, node.settle()) == [actions.Kill(worker)]
        node.gone(worker, started=1)
        assert node.finished(node.settle()) == {1: Outcome.CANCELLED}

    def test_by_force_spares_the_task_before_it(self) -> None:
        node = short_tasks_in_line(3)
        node.handle(events.CancelRequested(task_id(3), "force"))
        node.revoked(node.worker_of(1), started=1)
        out = node.settle()
        assert of(actions.Kill, out) == []
        assert node.finished(out) == {3: Outcome.CANCELLED}
        assert node.worker_of(1), "still runs"

    def test_by_force_spares_the_task_behind_it(self) -> None:
        """The target has ended, and its result is on its way."""
        node = short_tasks_in_line(3)
        worker = node.worker_of(1)
        node.handle(events.CancelRequested(task_id(1), "force"))
        node.revoked(worker, started=2)
        assert of(actions.Kill, node.settle()) == []
        node.done(1)
        node.done(2)
        assert node.finished(node.settle()) == {1: Outcome.VALUE, 2: Outcome.VALUE}

    def test_by_force_while_others_are_taken_back_anyway(self) -> None:
        node = short_tasks_in_line(3)
        worker = node.worker_of(1)
        assert len(of(actions.Revoke, node.tick(SLOW_MS + 1))) == 1
        node.handle(events.CancelRequested(task_id(1), "force"))
        assert of(actions.Revoke, node.settle()) == [], "one answer does for both"
        node.revoked(worker, started=1)
        assert of(actions.Kill, node.settle()) == [actions.Kill(worker)]

    def test_nothing_is_given_to_a_worker_that_is_about_to_be_killed(self, node: Bench) -> None:
        node.submit(task(1))
        worker = node.worker_of(1)
        node.handle(events.CancelRequested(task_id(1), "force"))
        node.revoked(worker, started=1)
        node.done(1)
        node.receive(task(2), task(3))
        assert worker not in (node.worker_of(2), node.worker_of(3))

    def test_several_in_one_line_are_interrupted_one_by_one(self) -> None:
        """The worker looks at one place for what to interrupt."""
        node = Bench(1)
        node.workers(1)
        node.receive()
        node.submit(task(1))
        node.done(1, run_us=100)
        node.submit(task(2), task(3), task(4))
        node.settle()
        node.handle(events.CancelRequested(task_id(3), ""))
        node.handle(events.CancelRequested(task_id(4), ""))
        assert {interrupt.task for interrupt in of(actions.Interrupt, node.settle())} == {task_id(3)}
        node.done(2)
        node.settle()
        node.done(3, Outcome.CANCELLED)
        assert [interrupt.task for interrupt in of(actions.Interrupt, node.settle())] == [task_id(4)]

    def test_too_late(self, node: Bench) -> None:
        node.submit(task(1))
        node.handle(events.CancelRequested(task_id(1), ""))
        node.done(1)
        assert node.finished(node.settle()) == {1: Outcome.VALUE}
        node.handle(events.CancelRequested(task_id(1), ""))
        assert node.settle() == []

    def test_a_cancelled_task_is_not_run_elsewhere_when_its_worker_dies(self, node: Bench) -> None:
        node.submit(task(1))
        node.handle(events.CancelRequested(task_id(1), ""))
        node.gone(node.worker_of(1))
        out = node.settle()
        assert node.finished(out) == {1: Outcome.CANCELLED}
        assert node.dispatched(out)[1:] == []

    def test_unknown(self, node: Bench) -> None:
        node.handle(events.CancelRequested(task_id(9), "force"))
        assert node.settle() == []


class TestJobEnd:
    def test_takes_its_work_and_its_workers(self, node: Bench) -> None:
        node.submit(task(1), task(2, job=OTHER))
        workers = node.worker_of(1), node.worker_of(2)
        node.receive(task(3))
        node.handle(events.JobEnded(JOB))
        out = node.settle()
        assert of(actions.Kill, out) == [actions.Kill(workers[0])]
        assert node.finished(out) == {3: Outcome.CANCELLED}
        node.gone(workers[0], started=1)
        assert node.finished(node.settle()) == {1: Outcome.CANCELLED}
        assert node.worker_of(2) == workers[1]

    def test_its_work_that_comes_late_is_not_started(self, node: Bench) -> None:
        node.handle(events.JobEnded("gone"))
        out = node.receive(task(1, job="gone"))
        assert node.finished(out) == {1: Outcome.CANCELLED}
        assert node.dispatched(out) == []


class TestDrain:
    def test_hands_back_what_has_not_started(self, node: Bench) -> None:
        node.receive(task(1), task(2), task(3))
        node.state.drain()
        out = node.settle()
        assert node.finished(out) == {3: Outcome.HANDED_BACK}
        assert asked(out) == 0
        assert not node.state.is_at_rest()
        node.done(1)
        node.done(2)
        assert asked(node.settle()) == 0
        assert node.state.is_at_rest()

    def test_work_that_was_under_way_goes_back(self, node: Bench) -> None:
        node.state.drain()
        assert node.finished(node.receive(task(1))) == {1: Outcome.HANDED_BACK}

    def test_what_a_dead_worker_did_not_start_goes_back(self, node: Bench) -> None:
        node.submit(task(1))
        node.state.drain()
        node.gone(node.worker_of(1))
        assert node.finished(node.settle()) == {1: Outcome.HANDED_BACK}


class TestTime:
    def test_long_tasks_are_told_once(self, node: Bench) -> None:
        node.receive(task(1))
        assert of(actions.RecordRunning, node.tick(TELL_RUNNING_MS)) == []
        assert of(actions.RecordRunning, node.tick(1)) == [actions.RecordRunning([task_id(1)])]
        assert of(actions.RecordRunning, node.tick()) == []

    def test_what_was_submitted_as_running_is_not_told_again(self, node: Bench) -> None:
        node.submit(task(1))
        assert of(actions.RecordRunning, node.tick(10 * TELL_RUNNING_MS)) == []

    def test_surplus_workers_leave_when_idle(self) -> None:
        node = Bench(2)
        node.workers(5)
        assert of(actions.Send, node.tick(IDLE_MS)) == []
        assert len(of(actions.Send, node.tick(1))) == 3
        assert of(actions.Send, node.tick(10 * IDLE_MS)) == []

    def test_busy_workers_and_actors_are_no_surplus(self) -> None:
        node = Bench(2)
        node.workers(4)
        node.receive(creation(1, demand="-"), creation(2, demand="-"))
        node.done(1)
        node.done(2)
        assert of(actions.Send, node.tick(10 * IDLE_MS)) == []
