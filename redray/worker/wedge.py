"""A node whose worker processes all wait, at the limit of their number, for tasks that wait for a process. Pure.

That would last for ever: every second one of those tasks, the deepest, is refused with an error that names the limit. A
node may only do so when nothing else can help, so it looks at everything its workers wait for: a task that another node
could run, a call of a living actor, or a task that runs somewhere else may yet end, and then one may simply wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redray.gcs.schema import TaskState
from redray.resources import fits, from_text, to_text
from redray.spec import ACTOR_CALL
from redray.worker import actions

if TYPE_CHECKING:
    from redray.worker.state import NodeState
    from redray.worker.workers import Worker

WEDGED_MS = 1_000


class Waited(NamedTuple):
    """A task that somebody waits for, as Redis has it; `behind` are the tasks that it waits for itself."""

    state: str
    node: str
    kind: int
    name: str = ""
    demand: str = "-"
    depth: int = 0
    behind: tuple[str, ...] = ()


class Waits(NamedTuple):
    """What the workers of a wedged node wait for, directly or not; the totals of the nodes that are not wedged, and the
    ids of those that are."""

    tasks: dict[str, Waited]
    others: list[dict[str, float]]
    wedged: set[str]


class Wedge:
    def __init__(self, node: NodeState, most_workers: int) -> None:
        self._node = node
        self._most = most_workers
        self._since: int | None = None
        self._told = False
        self._asked = False

    def moved(self) -> None:
        """Somebody began or ceased to wait."""
        self._since = None

    def tick(self, now: int) -> None:
        pool = self._pool()
        if len(pool) < self._most or not all(worker.ready and worker.blocked and worker.sent for worker in pool):
            self._since = None
            self._tell(False)
            return
        if self._since is None:
            self._since = now
            self._asked = False
        elif now - self._since > WEDGED_MS and not self._asked:
            self._asked = True
            self._tell(True)
            here = self._here()
            waited = sorted({task for worker in pool for task in worker.waits_for} - here)
            self._node.out.append(actions.LookUp(waited))

    def found(self, waits: Waits) -> None:
        if self._since is None:
            return
        self._since = None  # whatever comes of it, look again in a second
        pool, here = self._pool(), self._here()
        queued: dict[str, Waited] = {}
        if all(self._is_stuck(worker, waits, here, queued) for worker in pool) and queued:
            task = min(queued, key=lambda id: (-queued[id].depth, id))
            text = (
                f"Task {task} ({queued[task].name}) cannot start: each of the {self._most} worker processes of a node "
                "waits for other tasks in get() or wait(), and there may be no more. Let fewer tasks wait at "
                "a time, or set REDRAY_MAX_WORKERS to a higher limit where the node is started."
            )
            self._node.out.append(actions.Refuse(task, text))

    def _pool(self) -> list[Worker]:
        return [worker for worker in self._node.workers.values() if not worker.actor]

    def _here(self) -> set[str]:
        """Tasks that the waiting workers run themselves."""
        return {task for worker in self._pool() for task in worker.sent}

    def _tell(self, wedged: bool) -> None:
        if wedged != self._told:
            self._told = wedged
            self._node.out.append(actions.TellWedged(wedged))

    def _is_stuck(self, worker: Worker, waits: Waits, here: set[str], queued: dict[str, Waited]) -> bool:
        """Whether none of what the worker waits for can end. What has ended wakes it in a moment."""
        unready = [task for task in worker.waits_for if task in here or not _is_final(waits.tasks.get(task))]
        return bool(unready) and all(self._never_ends(task, waits, here, queued) for task in unready)

    def _never_ends(self, task: str, waits: Waits, here: set[str], queued: dict[str, Waited]) -> bool:
        if task in here:
            return True
        waited = waits.tasks.get(task)
        if waited is None or _is_final(waited):
            return False
        if waited.state in (TaskState.CLAIMED, TaskState.RUNNING):
            return waited.node in waits.wedged and waited.kind != ACTOR_CALL
        if waited.behind:
            never = any(self._never_ends(other, waits, here, queued) for other in waited.behind)
        else:
            never = self._lacks_a_process(waited.demand, waits)
        if never and waited.state == TaskState.QUEUED and waited.kind in (0, ACTOR_CALL):
            queued[task] = waited
        return never

    def _lacks_a_process(self, demand: str, waits: Waits) -> bool:
        """Whether a task with this demand would run here, were it not for the limit, and can run nowhere else."""
        return self._node.ledger.fits(demand) and not any(
            fits(demand, from_text(to_text(total))) for total in waits.others
        )


def _is_final(waited: Waited | None) -> bool:
    return waited is not None and waited.state in (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED)
