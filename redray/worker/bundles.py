"""What a node has set aside for placement groups. Pure.

A bundle that is set aside leaves what is free; once its group is complete on this node (`commit`) it is there again
under names of its own, which only tasks of the group demand. See docs/decisions/placement-groups.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redray.gcs.schema import Outcome
from redray.resources import group_of
from redray.spec import ACTOR_CREATION
from redray.worker import actions, events
from redray.worker.gpus import Share

if TYPE_CHECKING:
    from redray.worker.state import NodeState
    from redray.worker.workers import Attempt, Worker

FINAL_REMOVED = 4  # of RecordActorDied


class Bundle(NamedTuple):
    """`gpus` are those of the node that belong to it now."""

    demand: str
    gpus: Share


class Bundles:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._groups: dict[str, dict[int, Bundle]] = {}
        self._open: set[tuple[str, int]] = set()  # bundles that may be used
        self._answers: list[tuple[str, int, bool]] = []

    def all(self) -> list[Bundle]:
        return [bundle for group in self._groups.values() for bundle in group.values()]

    # ---- granted -----------------------------------------------------------------------------------------------------
    def reserve(self, event: events.BundlesWanted) -> None:
        """All of them, or none and a refusal."""
        taken: dict[int, Bundle] = {}
        for index, demand in event.bundles:
            gpus = None if self._node.draining else self._node.ledger.set_aside(demand)
            if gpus is None:
                break
            taken[index] = Bundle(demand, gpus)
        is_granted = len(taken) == len(event.bundles)
        self._answers.append((event.group, event.attempt, is_granted))
        if not is_granted:
            for bundle in taken.values():
                self._node.ledger.put_back(bundle.demand, bundle.gpus)
            return
        self._groups.setdefault(event.group, {}).update(taken)
        if event.is_alone:
            self.commit(event.group)

    def commit(self, group: str) -> None:
        for index, bundle in self._groups.get(group, {}).items():
            if (group, index) not in self._open:
                self._open.add((group, index))
                self._node.ledger.open_bundle(group, index, bundle.demand, bundle.gpus)
        self._node.ask_for_work()

    # ---- released ----------------------------------------------------------------------------------------------------
    def release(self, event: events.BundlesReleased) -> None:
        """Those of an attempt that failed elsewhere; or all, because the group was removed, with what runs in them."""
        if event.indexes:
            for index in event.indexes:
                self._drop(event.group, index)
        elif event.group in self._groups:
            self._node.ledger.ending.add(event.group)
            self._end_work(event.group)
            self._drop_ended()

    def _drop(self, group: str, index: int) -> None:
        bundles = self._groups.get(group, {})
        bundle = bundles.pop(index, None)
        if bundle is None:
            return
        if not bundles:
            del self._groups[group]
        if (group, index) in self._open:
            self._open.discard((group, index))
            self._node.ledger.close_bundle(group, index, bundle.demand)
        self._node.ledger.put_back(bundle.demand, bundle.gpus)
        self._node.ask_for_work()

    def _drop_ended(self) -> None:
        """Resources go back when the last worker that holds some of the group has ended."""
        held = {group_of(worker.holds) for worker in self._node.workers.values() if worker.holds}
        for group in self._node.ledger.ending - held:
            self._node.ledger.ending.discard(group)
            for index in list(self._groups[group]):
                self._drop(group, index)

    def _end_work(self, group: str) -> None:
        for attempt in self._node.backlog.drop(lambda waiting: group_of(waiting.head.demand) == group):
            self._end_waiting(attempt, group)
        for worker in self._node.workers.values():
            if worker.holds and group_of(worker.holds) == group:
                self._end_worker(worker, group)

    def _end_waiting(self, attempt: Attempt, group: str) -> None:
        text = f"The placement group {group} was removed before {attempt.head.name} was started."
        if attempt.head.kind == ACTOR_CREATION:
            self._node.book.forget(attempt)
            self._node.out.append(actions.RecordActorDied(attempt.task, attempt.attempt, FINAL_REMOVED, text))
        else:
            self._node.book.finish_without_value(attempt, Outcome.REMOVED, text)

    def _end_worker(self, worker: Worker, group: str) -> None:
        worker.doom = f"It was killed because its placement group {group} was removed."
        actor = self._node.actors.hosted.get(worker.actor)
        if actor is not None:
            actor.final, actor.cause = FINAL_REMOVED, f"The actor died. {worker.doom}"
        self._node.pool.kill(worker)

    def has_answers(self) -> bool:
        """Until they are said, what is free here would be misread: it lacks what Redis thinks is still to be taken."""
        return bool(self._answers)

    # ---- the end of a turn -------------------------------------------------------------------------------------------
    def settle(self) -> None:
        if self._node.ledger.ending:
            self._drop_ended()
        if self._answers:
            answers, self._answers = self._answers, []
            self._node.out.append(actions.RecordGranted(answers, self._node.ledger.bundle_room_text()))
