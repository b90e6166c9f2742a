"""A local scheduler on a bench: events go in by short names, actions come out, the books are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from redray import spec as specs
from redray.gcs.schema import Outcome, Reply
from redray.messages import Done, Returned
from redray.where import NODE_ID
from redray.worker import actions, events
from redray.worker.state import NodeState
from redray.worker.workers import Attempt, Worker

JOB = "00000000000000j1"
DRIVER = "aaaaaaaaaaaaaaaa"
OTHER = "bbbbbbbbbbbbbbbb"
ACTOR = "aaaaaaaaaaaaaaaa00000001"
Kind = TypeVar("Kind")

HERE = "a" * 16  # the node's id


def task_id(number: int, maker: str = DRIVER) -> str:
    return f"{maker}{number:08x}"


def result_of(task: str) -> str:
    return task + "00000000"


def task(
    number: int,
    *,
    demand: str = "CPU:1",
    job: str = JOB,
    needs: Sequence[str] = (),
    depth: int = 0,
    priority: int = 0,
    function: str = "f",
    maker: str = DRIVER,
    returns: int = 1,
    options: dict[str, Any] | None = None,
    where: str = "",
) -> bytes:
    id = task_id(number, maker)
    head = specs.TaskHead(
        id,
        specs.TASK,
        job,
        function,
        demand,
        returns,
        3,
        list(needs),
        [],
        depth,
        priority,
        "",
        function,
        options=options or {},
        where=where,
    )
    return specs.pack(head, b"payload")


def creation(number: int, *, demand: str = "CPU:1", held: str = "-", job: str = JOB, **options: Any) -> bytes:
    id = task_id(number)
    head = specs.TaskHead(
        id,
        specs.ACTOR_CREATION,
        job,
        "Actor",
        demand,
        0,
        0,
        [],
        [],
        0,
        0,
        "",
        "A",
        id,
        options={"demand_held": held, **options},
    )
    return specs.pack(head, b"payload")


def call(
    number: int,
    sequence: int,
    actor: int = 1,
    *,
    needs: Sequence[str] = (),
    maker: str = DRIVER,
    job: str = JOB,
    retries: int = 0,
) -> bytes:
    id = task_id(number, maker)
    head = specs.TaskHead(
        id, specs.ACTOR_CALL, job, "m", "-", 1, retries, list(needs), [], 0, 0, "", "m", task_id(actor), sequence
    )
    return specs.pack(head, b"payload")


class Bench:
    def __init__(self, cpus: float = 2, most: int = 64, **resources: float) -> None:
        self.started = 0
        self.state = NodeState({"CPU": cpus, **resources}, self._new_id, most, {NODE_ID: HERE, "zone": "a"})
        self.now = 1_000
        self.log: list[actions.Action] = []
        self.serials: dict[tuple[str, int], int] = {}  # (task, attempt) -> of the run by which it was sent last

    @classmethod
    def with_workers(cls, cpus: int) -> Bench:
        """As many workers as CPUs, ready and idle; the cluster has just said that it has no work."""
        bench = cls(cpus)
        bench.workers(cpus)
        bench.settle()
        bench.receive()
        return bench

    def _new_id(self) -> str:
        self.started += 1
        return f"{self.started:016x}"

    def handle(self, event: events.Event) -> Any:
        answer = self.state.handle(event, self.now)
        self._check()
        return answer

    def _check(self) -> None:
        self.state.validate()
        for attempt in self.state.attempts.values():
            if attempt.worker:
                self.serials[attempt.task, attempt.attempt] = attempt.serial

    def serial(self, number: int, attempt: int = 1) -> int:
        """Of the run of a task that was sent last, 0 when it was never sent."""
        return self.serials.get((task_id(number), attempt), 0)

    def settle(self) -> list[actions.Action]:
        """Ends the turn; returns what it wants done since the last one, and remembers it in `log`."""
        self.state.settle()
        self._check()
        out = self.state.take_actions()
        self.log += out
        return out

    def tick(self, later_ms: int = 100) -> list[actions.Action]:
        self.now += later_ms
        self.handle(events.Tick())
        return self.settle()

    # ---- events --------------------------------------------------------------------------------------------------
    def workers(self, count: int) -> list[str]:
        """Workers that are ready."""
        ids = []
        for _ in range(count):
            self.state.pool.start()
            ids.append(f"{self.started:016x}")
            self.handle(events.WorkerReady(ids[-1]))
        self.state.take_actions()
        return ids

    def ready(self) -> None:
        """Every worker that was started says so."""
        for id, worker in list(self.state.workers.items()):
            if not worker.ready:
                self.handle(events.WorkerReady(id))

    def submit(self, *packed: bytes, maker: str = DRIVER) -> str:
        return str(self.handle(events.Submitted(maker, list(packed))))

    def receive(self, *packed: bytes, attempt: int = 1, leftover: Sequence[str] = ()) -> list[actions.Action]:
        self.handle(events.WorkReceived([(attempt, one, {}, []) for one in packed], list(leftover)))
        return self.settle()

    def done(
        self,
        number: int,
        outcome: str = Outcome.VALUE,
        *,
        maker: str = DRIVER,
        run_us: int = 10_000,
        value: bytes = b"Vx",
    ) -> None:
        id = task_id(number, maker)
        attempt = self.state.attempts[id]
        returns = [Returned(value, len(value), [])] * max(0, attempt.head.num_returns)
        self.handle(events.TaskDone(attempt.worker, Done(id, attempt.attempt, outcome, returns, run_us)))

    def gone(
        self, worker: str, started: int | None = None, attempt: int = 1, detail: str = "killed by signal 9"
    ) -> None:
        mark = 0 if started is None else self.serial(started, attempt)
        self.handle(events.WorkerGone(worker, mark, detail))

    def revoked(self, worker: str, started: int | None = None) -> None:
        """The answer to a Revoke of all that `worker` was sent; it began the task `started` last."""
        mark = 0 if started is None else self.serial(started)
        self.handle(events.Revoked(worker, self.worker(worker).revoking, mark))

    # ---- what it did ---------------------------------------------------------------------------------------------
    def attempt(self, number: int, maker: str = DRIVER) -> Attempt:
        return self.state.attempts[task_id(number, maker)]

    def worker(self, id: str) -> Worker:
        return self.state.workers[id]

    def worker_of(self, number: int, maker: str = DRIVER) -> str:
        """The worker that a task was sent to, "" while it waits."""
        return self.attempt(number, maker).worker

    def dispatched(self, out: Sequence[actions.Action]) -> list[int]:
        """Numbers of the tasks that were sent to workers, in order."""
        runs = of(actions.Dispatch, out)
        return [int(specs.unpack_head(dispatch.run.spec).task[16:], 16) for dispatch in runs]

    def finished(self, out: Sequence[actions.Action]) -> dict[int, str]:
        """What was reported to Redis: number of the task -> outcome."""
        ends = [end for record in of(actions.RecordFinishes, out) for end, _ in record.finishes]
        return {int(end.task[16:], 16): end.outcome for end in ends}

    def free(self, resource: str = "CPU") -> float:
        return self.state.ledger.free.get(resource, 0) / 10_000


def of(kind: type[Kind], out: Sequence[actions.Action]) -> list[Kind]:
    return [action for action in out if isinstance(action, kind)]


def asked(out: Sequence[actions.Action]) -> int:
    """How much work was asked for."""
    return sum(action.limit for action in out if isinstance(action, (actions.Claim, actions.RecordFinishes)))


def short_tasks_in_line(count: int) -> Bench:
    """One CPU, one worker that was sent tasks 1 to `count` of a function known to be short."""
    node = Bench(1)
    node.workers(1)
    node.receive()
    node.submit(task(99))
    node.done(99, run_us=100)
    node.settle()
    node.receive()
    node.submit(*(task(number) for number in range(1, count + 1)))
    node.settle()
    assert all(node.worker_of(number) for number in range(1, count + 1))
    return node


# ---- an actor, whose creation is task 1 -----------------------------------------------------------------------------
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
