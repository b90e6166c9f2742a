"""The local scheduler: a worker serves one job and one environment."""

from __future__ import annotations

import pytest

from redray.gcs.schema import Outcome
from redray.messages import Done, Exit
from redray.worker import actions, events
from tests.unit.bench import Bench, creation, of, short_tasks_in_line, task, task_id

RED, BLUE = '{"env_vars":{"COLOUR":"red"}}', '{"env_vars":{"COLOUR":"blue"}}'


@pytest.fixture
def node() -> Bench:
    return Bench.with_workers(2)


def coloured(number: int, environment: str) -> bytes:
    return task(number, options={"runtime_env": environment})


def test_a_fresh_worker_takes_any_environment_and_is_told_which(node: Bench) -> None:
    assert node.submit(coloured(1, RED)) == "R"
    [dispatch] = of(actions.Dispatch, node.settle())
    assert dispatch.environment == RED and dispatch.worker == node.worker_of(1)


def test_its_next_task_is_of_the_same_environment(node: Bench) -> None:
    node.submit(coloured(1, RED))
    first = node.worker_of(1)
    node.done(1)
    node.settle()
    node.receive()
    assert node.submit(coloured(2, RED)) == "R" and node.worker_of(2) == first
    node.done(2)
    node.settle()
    node.receive()
    assert node.submit(task(3)) == "R" and node.worker_of(3) != first


def test_no_environment_is_one_too(node: Bench) -> None:
    for number in (1, 2):
        node.submit(task(number))
    for number in (1, 2):
        node.done(number)
    node.settle()
    started = node.started
    assert node.submit(coloured(3, RED)) == "-", "both workers serve the job as it is"
    assert node.started == started + 1, "a worker forks while the task makes its way through Redis"
    node.receive(coloured(3, RED))
    node.ready()
    assert node.dispatched(node.settle()) == [3]


def test_nothing_of_another_environment_is_sent_ahead() -> None:
    node = short_tasks_in_line(1)
    busy = next(worker for worker in node.state.workers.values() if worker.sent)
    node.receive(coloured(50, RED))
    assert node.worker_of(50) != busy.id


def test_at_the_limit_an_idle_worker_of_another_environment_makes_room() -> None:
    node = Bench(2, most=1)
    node.workers(1)
    node.receive(coloured(1, RED))
    node.done(1)
    out = [*node.settle(), *node.receive(coloured(2, BLUE))]
    assert [type(send.message) for send in of(actions.Send, out)] == [Exit]


def test_an_actor_that_has_no_environment_is_buried_for_that_reason(node: Bench) -> None:
    node.receive(creation(1, runtime_env=RED))
    worker = node.worker_of(1)
    done = Done(task_id(1), 1, Outcome.SETUP_FAILED, [], 0, "no such package")
    node.handle(events.TaskDone(worker, done))
    [died] = of(actions.RecordActorDied, node.settle())
    assert (died.final, died.cause) == (3, "no such package")
