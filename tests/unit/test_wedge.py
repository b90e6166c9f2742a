"""A node whose processes all wait for tasks that wait for a process: when it may say so, and to whom."""

from __future__ import annotations

import pytest

from redray.spec import ACTOR_CALL, TASK
from redray.worker import actions, events
from redray.worker.wedge import WEDGED_MS, Waited, Waits
from tests.unit.bench import Bench, of, result_of, task, task_id

OTHER_NODE = "0" * 16
CHILD, SECOND, DEEP, CREATION = (task_id(number) for number in (11, 12, 13, 14))


def wedged(waits_for: dict[int, list[str]] | None = None) -> Bench:
    """Two processes, and no more; each runs a task that waits for others."""
    node = Bench(2, most=2)
    node.workers(2)
    node.receive(task(1), task(2))
    for number, tasks in (waits_for or {1: [CHILD], 2: [SECOND]}).items():
        waited = [result_of(id) for id in tasks]
        node.handle(events.WorkerBlocked(node.worker_of(number), [], waited))
    node.tick(1)
    return node


def looked_up(node: Bench) -> list[str]:
    """What it asks for when nothing has moved for long enough."""
    assert of(actions.LookUp, node.tick(WEDGED_MS)) == []
    [lookup] = of(actions.LookUp, node.tick(1))
    return lookup.tasks


def refused(node: Bench, *, others: list[dict[str, float]] | None = None, **tasks: Waited) -> list[str]:
    looked_up(node)
    known = {
        {"child": CHILD, "second": SECOND, "deep": DEEP, "creation": CREATION}[name]: t for name, t in tasks.items()
    }
    node.handle(events.WaitsFound(Waits(known, others or [], {OTHER_NODE})))
    return [refuse.task for refuse in of(actions.Refuse, node.settle())]


def queued(depth: int = 1, demand: str = "CPU:1") -> Waited:
    return Waited("QUEUED", "", TASK, "f", demand, depth)


RUNNING = Waited("RUNNING", "f" * 16, TASK)


def test_it_looks_at_what_its_workers_wait_for() -> None:
    assert looked_up(wedged({1: [CHILD, task_id(2)], 2: [SECOND]})) == [CHILD, SECOND], "it knows its own"


def test_it_asks_once_and_tells_the_others() -> None:
    node = wedged()
    looked_up(node)
    assert actions.TellWedged(True) in node.log
    assert of(actions.LookUp, node.tick(5 * WEDGED_MS)) == []


def test_one_of_the_deepest_tasks_is_refused_with_the_limit_and_the_way_out() -> None:
    node = wedged()
    assert refused(node, child=queued(1), second=queued(2)) == [SECOND]
    [refuse] = of(actions.Refuse, node.log)
    assert "each of the 2 worker processes" in refuse.reason
    assert "REDRAY_MAX_WORKERS" in refuse.reason


def test_a_second_later_it_looks_again() -> None:
    node = wedged()
    refused(node, child=queued(), second=queued())
    node.tick(1)
    assert looked_up(node) == [CHILD, SECOND]


@pytest.mark.parametrize("how", ["unblocked", "blocked", "done", "gone", "not at the limit", "one works"])
def test_nothing_is_asked_while_anything_moves(how: str) -> None:
    node = wedged()
    node.tick(WEDGED_MS)
    worker = node.worker_of(1)
    if how == "unblocked":
        node.handle(events.WorkerUnblocked(worker))
    elif how == "blocked":
        node.handle(events.WorkerBlocked(worker, [], [result_of(DEEP)]))
    elif how == "done":
        node.done(1)
    elif how == "gone":
        node.gone(worker, started=1)
    elif how == "not at the limit":
        node = Bench(2, most=3)
        node.workers(2)
        node.receive(task(1), task(2))
        for number in (1, 2):
            node.handle(events.WorkerBlocked(node.worker_of(number), [], [result_of(CHILD)]))
        node.tick(WEDGED_MS)
    else:
        node.handle(events.WorkerUnblocked(node.worker_of(2)))
    assert of(actions.LookUp, node.tick(1)) == []
    assert of(actions.LookUp, node.tick(WEDGED_MS - 1)) == []


def test_an_answer_that_comes_when_things_have_moved_says_nothing() -> None:
    node = wedged()
    looked_up(node)
    node.handle(events.WorkerBlocked(node.worker_of(1), [], [result_of(DEEP)]))
    node.handle(events.WaitsFound(Waits({CHILD: queued(), SECOND: queued()}, [], set())))
    assert of(actions.Refuse, node.settle()) == []


def test_the_others_are_told_when_it_goes_on() -> None:
    node = wedged()
    looked_up(node)
    node.done(1)
    assert actions.TellWedged(False) in node.tick()


@pytest.mark.parametrize(
    "second",
    [
        RUNNING,
        Waited("CLAIMED", "f" * 16, TASK),
        Waited("RUNNING", OTHER_NODE, ACTOR_CALL),
        Waited("FINISHED", "", TASK),
        Waited("WAITING", "", TASK, "f", "CPU:1", 1, (DEEP,)),
        Waited("QUEUED", "", ACTOR_CALL, "m", "-", 1, (DEEP,)),
        queued(demand="CPU:3"),
        queued(demand="GPU:1"),
    ],
    ids=[
        "runs",
        "claimed",
        "a call",
        "ended",
        "its argument runs",
        "a call of an actor that starts",
        "too large",
        "no GPU",
    ],
)
def test_it_waits_on_while_one_of_its_workers_may_go_on(second: Waited) -> None:
    assert refused(wedged(), child=queued(), second=second, deep=RUNNING) == []


def test_it_waits_on_while_another_node_could_run_it() -> None:
    assert refused(wedged(), child=queued(), second=queued(), others=[{"GPU": 1}, {"CPU": 1}]) == []
    assert refused(wedged(), child=queued(), second=queued(), others=[{"GPU": 1}, {"CPU": 0.5}]) == [CHILD]


def test_a_worker_that_waits_for_several_may_go_on_with_any_of_them() -> None:
    """`wait` needs only some of them; `get` is woken by each, and waits again for the rest."""
    node = wedged({1: [CHILD, SECOND], 2: [CHILD]})
    assert refused(node, child=queued(), second=RUNNING) == []


def test_what_has_ended_of_several_does_not_help() -> None:
    node = wedged({1: [CHILD, SECOND], 2: [CHILD]})
    assert refused(node, child=queued(), second=Waited("FINISHED", "", TASK)) == [CHILD]


def test_a_chain_is_followed_to_its_end() -> None:
    waiting = Waited("WAITING", "", TASK, "f", "CPU:1", 1, (DEEP,))
    assert refused(wedged(), child=waiting, second=waiting, deep=queued()) == [DEEP]


def test_two_nodes_that_wait_for_each_other_are_both_stuck() -> None:
    there = Waited("RUNNING", OTHER_NODE, TASK)
    assert refused(wedged(), child=queued(), second=there) == [CHILD]


def test_a_call_of_an_actor_that_cannot_be_started_is_refused() -> None:
    call = Waited("QUEUED", "", ACTOR_CALL, "m", "-", 1, (CREATION,))
    creation = Waited("QUEUED", "", 1, "A", "CPU:1", 0)
    assert refused(wedged(), child=call, second=call, creation=creation) in ([CHILD], [SECOND])


def test_without_anything_to_refuse_it_waits_on() -> None:
    """They wait for each other: a program's own deadlock."""
    node = wedged({1: [task_id(2)], 2: [task_id(1)]})
    assert refused(node) == []
