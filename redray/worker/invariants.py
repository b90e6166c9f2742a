"""What must be true of a node's books after every event. Pure; tests ask for it, nothing else does."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from redray.resources import give, gpu_units
from redray.spec import ACTOR_CALL

if TYPE_CHECKING:
    from redray.worker.bundles import Bundle
    from redray.worker.state import NodeState
    from redray.worker.workers import Ledger, Worker


def check(node: NodeState) -> None:
    """Raises AssertionError with a sentence that names what is wrong."""
    for worker in node.workers.values():
        _check_worker(node, worker)
    _check_ledger(node.ledger, list(node.workers.values()), node.bundles.all())
    _check_places(node)
    _check_actors(node)


def _check_worker(node: NodeState, worker: Worker) -> None:
    who = f"Worker {worker.id}"
    assert worker.sent or worker.actor or not worker.holds, f"{who} holds {worker.holds} for nothing."
    assert worker.holds or not worker.sent, f"{who} was sent {list(worker.sent)} and holds nothing."
    assert worker.ready or not worker.holds, f"{who} was given work before it was ready."
    assert worker.blocked or not worker.lent, f"{who} lends CPUs and is not blocked."
    for attempt in worker.sent.values():
        assert attempt.worker == worker.id, f"{who} was sent {attempt.task}, which says {attempt.worker or 'nowhere'}."
        if not worker.actor:
            assert attempt.head.job == worker.job, f"{who} was sent {attempt.task} of another job."
            assert attempt.head.demand == worker.holds, f"{who} holds {worker.holds}, not what {attempt.task} needs."
        else:
            assert worker.actor in (attempt.task, attempt.head.actor), f"{who} was sent {attempt.task}: not its actor."
    if worker.actor in node.actors.hosted:
        assert node.actors.hosted[worker.actor].worker == worker.id, f"{who} hosts {worker.actor}, which is elsewhere."


def _check_ledger(ledger: Ledger, workers: list[Worker], bundles: list[Bundle]) -> None:
    """Held, set aside and free make the total, of each resource and of each GPU."""
    sums = dict(ledger.free)
    for bundle in bundles:
        give(bundle.demand, sums)
    for worker in workers:
        if worker.holds:
            give(worker.holds, sums)
        for name, units in worker.lent.items():
            sums[name] -= units
    assert {k: v for k, v in sums.items() if v} == {k: v for k, v in ledger.total.items() if v}, (
        f"Held and free are {sums}, the node has {ledger.total}."
    )
    _check_gpus(ledger, workers, bundles)


def _check_gpus(ledger: Ledger, workers: list[Worker], bundles: list[Bundle]) -> None:
    pools = {name: Counter(pool.free) for name, pool in ledger.pools.items()}
    for worker in workers:
        wanted = gpu_units(worker.holds) if worker.holds else 0
        got = sum(units for _, units in worker.gpus)
        assert got == wanted, f"Worker {worker.id} holds {worker.holds} on {worker.gpus}."
        for number, units in worker.gpus:
            pools[worker.pool][number] += units
    for bundle in bundles:
        for number, units in bundle.gpus:
            pools[""][number] += units
    for name, pool in ledger.pools.items():
        assert pools[name] == Counter(pool.size), f"Units of GPU went astray: {dict(pools[name])}, not {pool.size}."
        assert all(units >= 0 for units in pool.free.values()), f"A GPU was given out twice: {pool.free}."


def _check_places(node: NodeState) -> None:
    """Every attempt is in exactly one place."""
    places = Counter(attempt.task for attempt in node.backlog)
    found = {attempt.task: attempt for attempt in node.backlog}
    for worker in node.workers.values():
        places.update(list(worker.sent))
        found.update(worker.sent)
    for _, attempt in node.shortage.waiting:
        if node.attempts.get(attempt.task) is attempt:  # a cancelled one stays in line until its time comes
            places[attempt.task] += 1
            found[attempt.task] = attempt
    for actor in node.actors.hosted.values():
        for caller in actor.callers.values():
            for attempt in (*caller.line, *caller.early.values()):
                if node.attempts.get(attempt.task) is attempt:  # a cancelled one stays in line until its turn comes
                    places[attempt.task] += 1
                    found[attempt.task] = attempt
    twice = [task for task, count in places.items() if count > 1]
    assert not twice, f"In more than one place: {twice}."
    assert set(places) == set(node.attempts), f"In no place, or unknown: {set(places) ^ set(node.attempts)}."
    assert all(found[task] is attempt for task, attempt in node.attempts.items()), "Another attempt of the same task."
    for attempt in node.backlog:
        assert not attempt.worker, f"{attempt.task} waits, and says it is at worker {attempt.worker}."
        assert attempt.head.kind != ACTOR_CALL, f"The actor's call {attempt.task} waits among the tasks."
    gone = node.book.cancelled - set(node.attempts)
    assert not gone, f"Cancelled and long gone: {gone}."


def _check_actors(node: NodeState) -> None:
    for id, actor in node.actors.hosted.items():
        worker = node.workers.get(actor.worker)
        assert worker is not None, f"Actor {id} lives in worker {actor.worker}, which is gone."
        assert worker.actor == id, f"Actor {id} lives in a worker of {worker.actor or 'nobody'}."
        assert actor.alive or set(worker.sent) <= {id}, f"Actor {id} was called before it was ready."
