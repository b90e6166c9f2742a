"""The local scheduler: what it starts itself, what it asks the cluster for, and whom it gives what."""

from __future__ import annotations

from typing import Any

import pytest

from redray.gcs.schema import Outcome
from redray.messages import Exit
from redray.worker import actions, events
from redray.worker.policy import ONE_AHEAD_US
from redray.worker.pool import RESTART_MS
from redray.worker.state import SLICE, STUCK_MS
from tests.unit.bench import HERE, Bench, asked, creation, of, result_of, task, task_id


@pytest.fixture
def node() -> Bench:
    """Two CPUs, two workers that are ready, and nothing known of the cluster."""
    return Bench.with_workers(2)


class TestLocalFirst:
    def test_starts_what_it_can(self, node: Bench) -> None:
        assert node.submit(task(1), task(2)) == "RR"
        assert node.dispatched(node.settle()) == [1, 2]
        assert node.free() == 0

    def test_a_full_node_leaves_the_rest_to_the_cluster(self, node: Bench) -> None:
        assert node.submit(task(1), task(2), task(3)) == "RR-"

    def test_sends_ahead_what_is_known_to_be_short(self, node: Bench) -> None:
        node.submit(task(1))
        node.done(1, run_us=100)
        node.settle()
        assert node.submit(*(task(number) for number in range(2, 6))) == "RRCC"
        assert sorted(len(worker.sent) for worker in node.state.workers.values()) == [2, 2]

    def test_does_not_send_another_function_ahead(self, node: Bench) -> None:
        node.submit(task(1))
        node.done(1, run_us=100)
        assert node.submit(task(2), task(3), task(4, function="slow")) == "RR-"

    def test_an_unknown_argument_is_for_redis_to_wait_for(self, node: Bench) -> None:
        assert node.submit(task(2, needs=[result_of(task_id(1))])) == "-"
        assert not node.state.contended

    def test_an_argument_that_passed_through_here_is_sent_along(self, node: Bench) -> None:
        node.submit(task(1))
        node.done(1, value=b"Vone")
        assert node.submit(task(2, needs=[result_of(task_id(1))])) == "R"
        [dispatch] = of(actions.Dispatch, node.settle())[1:]
        assert dispatch.run.values == {result_of(task_id(1)): b"Vone"}

    def test_an_argument_in_shared_memory_is_near(self, node: Bench) -> None:
        node.state.here.add(result_of(task_id(1)))
        assert node.submit(task(2, needs=[result_of(task_id(1))])) == "R"

    def test_an_error_is_no_argument(self, node: Bench) -> None:
        """Redis fails what depends on it."""
        node.submit(task(1))
        node.done(1, Outcome.ERROR)
        assert node.submit(task(2, needs=[result_of(task_id(1))])) == "-"

    def test_waits_its_turn_behind_what_waits_in_the_cluster(self, node: Bench) -> None:
        node.handle(events.WorkReceived([], ["CPU:1"]))
        assert node.submit(task(1)) == "-"
        node.handle(events.WorkReceived([], []))
        assert node.submit(task(2)) == "R"

    @pytest.mark.parametrize(
        ("leftover", "claim"),
        [
            (["GPU:1"], "R"),
            (["CPU:3", "CPU:1,special:1"], "R"),
            (["GPU:1", "CPU:2"], "-"),  # it waits for both CPUs
            (["-"], "-"),
        ],
    )
    def test_what_it_can_never_run_has_no_turn_here(self, node: Bench, leftover: list[str], claim: str) -> None:
        """Else one task that no node can run would keep every node of the cluster from starting anything at once."""
        node.receive(leftover=leftover)
        assert node.submit(task(1)) == claim

    def test_what_it_can_never_run_is_not_asked_for_again(self, node: Bench) -> None:
        assert asked(node.receive(task(1), leftover=["GPU:1"])) == 0

    def test_waits_its_turn_behind_what_was_refused(self, node: Bench) -> None:
        """A large task that did not fit is not overtaken by small ones that would."""
        node.submit(task(1))
        assert node.submit(task(2, demand="CPU:2"), task(3)) == "--"

    def test_actors_go_through_redis(self, node: Bench) -> None:
        assert node.submit(creation(2)) == "-"

    @pytest.mark.parametrize(
        ("where", "claim"),
        [
            (f"ray.io/node-id={HERE}", "R"),
            ("ray.io/node-id=b", "-"),
            ("ray.io/node-id=b>*", "-"),
            ("zone=a,b", "R"),
            ("zone=b~zone=a", "-"),
            ("SPREAD", "-"),
        ],
    )
    def test_starts_what_is_at_its_best_place_here(self, node: Bench, where: str, claim: str) -> None:
        assert node.submit(task(1, where=where)) == claim
        assert not node.state.contended

    def test_beside_others_it_fills_up_to_a_half(self) -> None:
        node = Bench.with_workers(4)
        node.state.alone = False
        assert node.submit(*(task(number) for number in range(1, 5))) == "RR--"
        assert not node.state.contended, "that is for Redis to say, who knows the others"
        node.done(1)
        node.settle()
        node.receive()
        assert node.submit(task(5)) == "R"

    def test_beyond_a_half_it_may_still_send_ahead(self) -> None:
        node = Bench.with_workers(2)
        node.state.alone = False
        node.submit(task(1))
        node.done(1, run_us=100)
        node.settle()
        node.receive()
        assert node.submit(task(2), task(3)) == "RC"

    @pytest.mark.parametrize("options", [{"where": f"ray.io/node-id={HERE}"}, {"needs": ["large"]}, {"demand": "-"}])
    def test_beyond_a_half_what_is_at_its_place_here(self, options: dict[str, Any]) -> None:
        node = Bench.with_workers(2)
        node.state.alone = False
        node.state.here.add("large")
        assert node.submit(task(1), task(2, **options)) == "RR"

    def test_a_job_that_has_ended_starts_nothing(self, node: Bench) -> None:
        node.handle(events.JobEnded("ended"))
        assert node.submit(task(1, job="ended")) == "-"

    def test_a_worker_of_another_job_is_not_used(self) -> None:
        node = Bench(2)
        node.workers(1)
        node.receive()
        node.submit(task(1))
        node.done(1)
        assert node.submit(task(2, job="another")) == "-"
        assert len(of(actions.StartWorker, node.settle())) == 1

    def test_a_draining_node_starts_nothing(self, node: Bench) -> None:
        node.state.drain()
        assert node.submit(task(1)) == "-"


class TestAsking:
    def test_asks_when_it_has_started(self) -> None:
        node = Bench(2)
        assert asked(node.settle()) > 0

    def test_asks_once_at_a_time(self, node: Bench) -> None:
        node.handle(events.Rung())
        assert asked(node.settle()) > 0
        node.handle(events.Rung())
        assert node.settle() == []
        assert asked(node.receive()) > 0, "the ring came after the call that was under way"

    def test_is_quiet_when_nothing_happens(self, node: Bench) -> None:
        assert node.settle() == []
        assert node.tick() == []

    def test_a_submission_for_the_cluster_asks(self, node: Bench) -> None:
        node.submit(task(1, needs=["0" * 32]))
        assert asked(node.settle()) > 0

    def test_finishes_ask_in_the_same_call(self, node: Bench) -> None:
        node.submit(task(1), task(2))
        node.done(1)
        [record] = of(actions.RecordFinishes, node.settle())
        assert record.limit > 0
        assert record.free == "CPU:1 of 2"

    def test_what_was_offered_in_vain_is_not_offered_again(self, node: Bench) -> None:
        """The cluster has it written down, and rings when there is work: asking would cost as much as the end."""
        node.handle(events.Rung())
        [claim] = of(actions.Claim, node.settle())
        assert claim.free == "CPU:2 of 2"
        node.receive()
        node.submit(task(1))
        node.done(1)
        assert asked(node.settle()) == 0
        node.submit(task(2))
        node.done(2)
        node.handle(events.Rung())
        assert asked(node.settle()) > 0

    def test_a_ring_that_comes_before_the_answer_is_heard(self, node: Bench) -> None:
        node.handle(events.Rung())
        assert asked(node.settle()) > 0
        node.handle(events.Rung())
        assert asked(node.receive()) > 0

    def test_room_that_could_not_be_offered_is_offered_later(self, node: Bench) -> None:
        """The cluster may think that this node is full: it rings only nodes whose last offer fits."""
        node.submit(task(1), task(2))
        node.handle(events.Rung())
        assert of(actions.Claim, node.settle())[0].free == "- of 2"
        node.done(1)
        node.done(2)
        assert asked(node.settle()) == 0, "one question is under way"
        [claim] = node.receive(leftover=["CPU:1"])
        assert isinstance(claim, actions.Claim)
        assert claim.free == "CPU:2 of 2"

    def test_goes_on_while_the_cluster_has_more(self) -> None:
        node = Bench(SLICE + 100, most=SLICE + 100)
        node.workers(SLICE + 100)
        node.settle()
        slice_full = [task(number) for number in range(1, SLICE + 1)]
        assert asked(node.receive(*slice_full, leftover=["CPU:1"])) > 0, "an answer holds no more than a slice"
        assert asked(node.receive(task(SLICE + 1), leftover=["CPU:1"])) == 0, "what is left does not fit the offer"

    def test_does_not_ask_while_work_waits_here(self) -> None:
        node = Bench(2)
        node.settle()
        node.receive(task(1))
        node.handle(events.Rung())
        assert asked(node.settle()) == 0
        node.ready()
        assert asked(node.settle()) > 0

    def test_a_blocked_worker_makes_room(self, node: Bench) -> None:
        node.submit(task(1), task(2))
        node.settle()
        node.handle(events.WorkerBlocked(node.worker_of(1), []))
        [claim] = of(actions.Claim, node.settle())
        assert claim.free == "CPU:1 of 2"

    def test_an_actor_that_holds_less_than_it_was_placed_with_makes_room(self, node: Bench) -> None:
        node.receive(creation(1, demand="CPU:2"))
        node.done(1)
        [claim] = of(actions.Claim, node.settle())
        assert claim.free == "CPU:2 of 2"

    def test_rooms_are_what_busy_workers_would_take_ahead(self, node: Bench) -> None:
        node.submit(task(1))
        node.done(1, run_us=1_000)
        node.settle()
        node.receive()
        node.submit(task(2))
        node.handle(events.Rung())
        [claim] = of(actions.Claim, node.settle())
        assert claim.rooms == {"CPU:1|" + node.attempt(2).head.job: 4}

    def test_many_finishes_are_told_in_slices(self) -> None:
        node = Bench(SLICE + 100, most=SLICE + 200)
        node.workers(SLICE + 100)
        node.submit(*(task(number) for number in range(1, SLICE + 101)))
        for number in range(1, SLICE + 101):
            node.done(number)
        [first] = of(actions.RecordFinishes, node.settle())
        assert len(first.finishes) == SLICE
        assert node.state.has_more_to_settle()
        [second] = of(actions.RecordFinishes, node.settle())
        assert len(second.finishes) == 100
        assert (first.limit > 0, second.limit) == (True, 0)
        assert node.state.is_at_rest()

    def test_nothing_is_told_while_redis_is_busy(self, node: Bench) -> None:
        node.submit(task(1))
        node.done(1)
        node.state.settle(report=False)
        assert of(actions.RecordFinishes, node.state.take_actions()) == []
        assert node.finished(node.settle()) == {1: Outcome.VALUE}


class TestPlacing:
    def test_claimed_work_goes_to_idle_workers(self, node: Bench) -> None:
        assert node.dispatched(node.receive(task(1), task(2))) == [1, 2]

    def test_priority_first_then_depth_then_arrival(self) -> None:
        node = Bench(1)
        node.workers(1)
        node.receive(
            task(1, demand="CPU:0.25"), task(2, depth=2), task(3, depth=2), task(4, depth=1), task(5, priority=1)
        )
        order = []
        for _ in range(4):
            [number] = [number for number in range(1, 6) if number in _running(node)]
            order.append(number)
            node.done(number, run_us=10 * ONE_AHEAD_US)
            node.settle()
        assert order == [5, 2, 3, 4]

    def test_a_task_that_does_not_fit_lets_others_pass(self, node: Bench) -> None:
        node.submit(task(1))
        assert node.dispatched(node.receive(task(2, demand="CPU:2"), task(3))) == [1, 3]

    def test_four_tasks_start_four_workers(self) -> None:
        node = Bench(4)
        assert node.submit(*(task(number) for number in range(1, 5))) == "----"
        node.settle()
        node.receive(*(task(number) for number in range(1, 5)))
        assert len(of(actions.StartWorker, node.log)) == 4
        node.ready()
        assert sorted(node.dispatched(node.settle())) == [1, 2, 3, 4]

    def test_workers_on_their_way_count(self) -> None:
        node = Bench(4)
        node.receive(*(task(number) for number in range(1, 5)))
        for _ in range(3):
            assert of(actions.StartWorker, node.settle()) == []

    def test_no_more_workers_than_resources(self) -> None:
        node = Bench(2)
        node.receive(*(task(number) for number in range(1, 9)))
        assert len(of(actions.StartWorker, node.log)) == 2

    def test_a_blocked_worker_is_replaced(self) -> None:
        node = Bench(1)
        node.workers(1)
        node.receive(task(1))
        node.handle(events.WorkerBlocked(node.worker_of(1), []))
        out = node.receive(task(2, depth=1))
        assert len(of(actions.StartWorker, out)) == 1
        node.ready()
        assert node.dispatched(node.settle()) == [2]

    def test_nested_blocking_goes_as_deep_as_the_cap(self) -> None:
        node = Bench(1, most=50)
        for depth in range(50):
            node.receive(task(depth + 1, depth=depth))
            node.ready()
            node.settle()
            node.handle(events.WorkerBlocked(node.worker_of(depth + 1), []))
        assert len(node.state.workers) == 50
        assert asked(node.settle()) == 0, "no process is left for more"

    def test_the_cap_on_processes_does_not_count_actors(self) -> None:
        node = Bench(2, most=2)
        node.receive(*(creation(number, demand="-") for number in range(1, 3)))
        node.ready()
        node.settle()
        node.done(1)
        node.done(2)
        node.receive(task(3))
        node.ready()
        assert node.dispatched(node.settle()) == [3]

    def test_at_the_cap_an_idle_worker_of_another_job_makes_place(self) -> None:
        node = Bench(2, most=2)
        node.workers(2)
        node.submit(task(1), task(2))
        node.done(1)
        node.done(2)
        node.settle()
        out = node.receive(task(3, job="another"))
        [farewell] = of(actions.Send, out)
        assert isinstance(farewell.message, Exit)
        assert of(actions.Send, node.settle()) == [], "asked once"
        node.gone(farewell.worker)
        node.settle()
        node.ready()
        assert node.dispatched(node.settle()) == [3]

    def test_a_worker_that_dies_before_it_is_ready_is_not_started_again_at_once(self) -> None:
        node = Bench(1)
        node.receive(task(1))
        for _ in range(3):
            [starting] = node.state.workers
            node.gone(starting)
            assert of(actions.StartWorker, node.settle()) == []
            assert len(of(actions.StartWorker, node.tick(RESTART_MS))) == 1

    def test_work_that_lost_its_place_goes_back(self, node: Bench) -> None:
        """Both CPUs were taken while it was on its way here: others may have room, and this node for other work."""
        node.submit(task(1))
        node.receive(task(2, demand="CPU:2"))
        assert node.finished(node.tick(STUCK_MS)) == {}
        out = node.tick(1)
        assert node.finished(out) == {2: Outcome.HANDED_BACK}
        assert asked(out) > 0

    def test_work_that_waits_for_a_worker_stays(self) -> None:
        node = Bench(1)
        node.receive(task(1))
        assert node.finished(node.tick(10 * STUCK_MS)) == {}

    def test_a_demand_is_kept_from_task_to_task(self, node: Bench) -> None:
        node.receive(*(task(number) for number in range(1, 5)))
        first = node.worker_of(1)
        node.done(1)
        assert node.worker_of(3) == first
        assert node.free() == 0

    def test_a_demand_is_given_up_for_something_more_urgent(self, node: Bench) -> None:
        node.receive(task(1), task(2))
        node.receive(task(3), task(4, demand="CPU:2", priority=1))
        node.done(1)
        node.done(2)
        assert node.dispatched(node.settle()) == [4]


def _running(node: Bench) -> list[int]:
    return [int(id[16:], 16) for id, attempt in node.state.attempts.items() if attempt.worker]


class TestGpus:
    def test_whole_ones_are_numbered(self) -> None:
        node = Bench(4, GPU=2)
        node.workers(2)
        node.receive()
        node.submit(task(1, demand="CPU:1,GPU:1"), task(2, demand="CPU:1,GPU:1"))
        runs = [dispatch.run.gpus for dispatch in of(actions.Dispatch, node.settle())]
        assert sorted(runs) == [[0], [1]]

    def test_fractions_share_one(self) -> None:
        node = Bench(4, GPU=2)
        node.workers(3)
        node.receive(*(task(number, demand="CPU:1,GPU:0.5") for number in (1, 2)), task(3, demand="GPU:1"))
        assert [node.worker(node.worker_of(number)).gpus[0][0] for number in (1, 2, 3)] == [0, 0, 1]

    def test_two_halves_are_not_one(self) -> None:
        node = Bench(8, GPU=2)
        node.workers(5)
        node.receive(*(task(number, demand="GPU:0.5") for number in (1, 2, 3, 4)))
        node.done(1)
        node.done(3)
        [record] = of(actions.RecordFinishes, node.settle())
        assert record.free == "CPU:8,GPU:0.5 of 8"
        assert node.receive(task(5, demand="GPU:1")) == []
        node.done(2)
        assert node.dispatched(node.settle()) == [5]

    def test_an_actor_stays_on_the_gpu_its_constructor_saw(self) -> None:
        node = Bench(4, GPU=2)
        node.workers(2)
        node.receive(task(1, demand="GPU:1"), creation(2, demand="CPU:1,GPU:1", held="GPU:1"))
        before = list(node.worker(node.worker_of(2)).gpus)
        body = node.worker_of(2)
        node.done(1)
        node.done(2)
        assert node.worker(body).gpus == before
        assert (node.free("CPU"), node.free("GPU")) == (4, 1)

    def test_a_worker_that_ran_without_gets_none(self) -> None:
        node = Bench(4, GPU=1)
        [used] = node.workers(1)
        node.receive(task(1))
        node.done(1)
        assert node.dispatched(node.receive(task(2, demand="GPU:1"))) == []
        node.ready()
        assert node.dispatched(node.settle()) == [2]
        assert node.worker_of(2) != used

    def test_at_the_limit_a_worker_that_may_have_none_makes_room(self) -> None:
        node = Bench(4, most=1, GPU=1)
        [used] = node.workers(1)
        node.receive(task(1))
        node.done(1)
        node.receive(task(2, demand="GPU:1"))
        assert node.worker(used).leaving
        node.gone(used)
        node.settle()
        node.ready()
        assert node.dispatched(node.settle()) == [2]

    def test_a_worker_that_ran_with_one_does_not_go_on_without(self) -> None:
        node = Bench(4, GPU=1)
        [used] = node.workers(1)
        node.receive(task(1, demand="GPU:1"))
        node.done(1)
        node.receive(task(2))
        node.ready()
        node.settle()
        assert node.worker_of(2) != used

    def test_by_the_names_that_this_machine_has_for_them(self) -> None:
        node = Bench(4, GPU=2)
        node.state.gpu_names = {0: "4", 1: "GPU-abc"}
        node.workers(1)
        [dispatch] = of(actions.Dispatch, node.receive(task(1, demand="GPU:2")))
        assert dispatch.run.gpus == ["4", "GPU-abc"]

    def test_a_worker_that_ran_with_one_may_have_another(self) -> None:
        node = Bench(4, GPU=1)
        [used] = node.workers(1)
        node.receive(task(1, demand="GPU:1"))
        node.done(1)
        assert node.dispatched(node.receive(task(2, demand="GPU:0.5"))) == [2]
        assert node.worker_of(2) == used

    def test_nothing_is_sent_ahead_of_a_gpu_task(self) -> None:
        node = Bench(4, GPU=1)
        node.workers(1)
        node.receive()
        node.submit(task(1, demand="GPU:1"))
        node.done(1, run_us=10)
        node.settle()
        node.receive()
        assert node.submit(task(2, demand="GPU:1"), task(3, demand="GPU:1")) == "R-"
