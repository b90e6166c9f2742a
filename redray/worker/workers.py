"""The workers of a node and the resources they hold. Pure."""

from __future__ import annotations

from collections import OrderedDict

from redray.resources import UNIT, Quantities, fits, from_text, from_units, give, take, to_text
from redray.spec import TaskHead
from redray.worker.children import Children


class Attempt:
    """One attempt of a task that this node has claimed."""

    __slots__ = (
        "attempt", "children", "condemned", "environment", "follow", "head", "queue", "serial", "spec", "started_ms",
        "told_running", "values", "worker",
    )  # fmt: skip

    def __init__(self, spec: bytes, head: TaskHead, attempt: int, values: dict[str, bytes]) -> None:
        self.spec = spec
        self.head = head
        self.attempt = attempt
        self.values = values
        self.environment = str(head.options.get("runtime_env", "")) if head.options else ""
        self.queue = f"{head.demand}|{head.job}"  # as in Redis, but here one worker can run all that is in it
        if self.environment:
            self.queue += f"|{self.environment}"
        self.worker = ""
        self.serial = 0  # of the run by which it was sent to its worker
        self.started_ms = 0
        self.told_running = False
        self.condemned = False  # cancelled by force: its worker dies with it
        self.children: Children | None = None  # what it has submitted
        self.follow = ""  # how they are to be cancelled with it, "" for not at all

    @property
    def task(self) -> str:
        return self.head.task


class Worker:
    """A worker process, which serves one job and one environment ("" is the job's own). `sent` are the attempts it was
    given, in order; `holds` is the demand it occupies, "" when none; `lent` are the units of CPU that others may use
    while it is blocked."""

    __slots__ = (
        "actor", "blocked", "environment", "gpus", "holds", "id", "job", "last_idle_ms", "leaving", "lent", "queue",
        "ran_without_gpu", "ready", "revoking", "sent", "serial", "waits_for",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        self.id = id
        self.job = ""
        self.environment = ""
        self.ready = False
        self.leaving = False
        self.ran_without_gpu = False
        self.blocked = False
        self.lent = 0
        self.actor = ""
        self.holds = ""
        self.queue = ""
        self.gpus: list[tuple[int, int]] = []
        self.sent: OrderedDict[str, Attempt] = OrderedDict()
        self.last_idle_ms = 0
        self.serial = 0  # of the run sent last
        self.waits_for: frozenset[str] = frozenset()  # tasks, while it is blocked
        self.revoking = 0  # the serial up to which its unstarted runs are being taken back

    def may_serve(self, attempt: Attempt) -> bool:
        """A process that has begun to serve a job in an environment serves no other. One that has run something without
        a GPU gets none: libraries that it has loaded may have made up their minds that there is none."""
        if not self.job:
            return True
        fits = self.job == attempt.head.job and self.environment == attempt.environment
        return fits and not (self.ran_without_gpu and needs_gpu(attempt.head.demand))


class Ledger:
    """Total and free resources, GPUs by number.
    The node is the authority over these: nothing else may give them out."""

    def __init__(self, total: dict[str, float]) -> None:
        self.total: Quantities = from_text(to_text(total))
        self.free: Quantities = dict(self.total)
        whole, rest = divmod(self.total.get("GPU", 0), UNIT)
        self.gpus_free = [UNIT] * whole + [rest] * bool(rest)

    def fits(self, demand: str) -> bool:
        return fits(demand, self.free) and self._choose_gpus(demand) is not None

    def could_ever_fit(self, demand: str) -> bool:
        return all(self.total.get(name, 0) >= units for name, units in from_text(demand).items())

    def occupy(self, worker: Worker, demand: str) -> None:
        """The demand must fit."""
        worker.gpus = self._choose_gpus(demand) or []
        for number, units in worker.gpus:
            self.gpus_free[number] -= units
        take(demand, self.free)
        worker.holds = demand

    def vacate(self, worker: Worker) -> None:
        if not worker.holds:
            return
        self.unblock(worker)
        give(worker.holds, self.free)
        for number, units in worker.gpus:
            self.gpus_free[number] += units
        worker.gpus, worker.holds = [], ""

    def exchange(self, worker: Worker, demand: str) -> None:
        """Hold another demand from now on, on the same GPUs: the process may have opened them."""
        if from_text(demand).get("GPU") != from_text(worker.holds).get("GPU"):
            self.vacate(worker)
            self.occupy(worker, demand)
            return
        self.unblock(worker)
        give(worker.holds, self.free)
        take(demand, self.free)
        worker.holds = demand

    def block(self, worker: Worker) -> None:
        """A worker that waits in `get` gives its CPUs back, and keeps its GPUs."""
        if not worker.blocked:
            worker.blocked = True
            worker.lent = from_text(worker.holds).get("CPU", 0) if worker.holds else 0
            self._add_cpu(worker.lent)

    def unblock(self, worker: Worker) -> None:
        """It retakes them at once: for a moment more may be in use than there are."""
        self._add_cpu(-worker.lent)
        worker.blocked, worker.lent = False, 0

    def free_text(self) -> str:
        return _text(self.free)

    def is_half_used(self) -> bool:
        return 2 * self.free.get("CPU", 0) <= self.total.get("CPU", 0)

    def offer(self) -> str:
        """What this node has for work from Redis, and of how many CPUs: `CPU:2,GPU:1 of 4`."""
        return f"{self.claimable_text()} of {from_units(self.total.get('CPU', 0)):g}"

    def claimable_text(self) -> str:
        """What Redis may hand out work for. Of GPUs, the untouched ones and the largest rest of another: two halves of
        two GPUs are not one."""
        if not self.gpus_free:
            return self.free_text()
        whole = sum(units for units in self.gpus_free if units == UNIT)
        rest = max((units for units in self.gpus_free if units < UNIT), default=0)
        return _text({**self.free, "GPU": min(self.free.get("GPU", 0), whole + rest)})

    def _add_cpu(self, units: int) -> None:
        if units:
            self.free["CPU"] = self.free.get("CPU", 0) + units

    def _choose_gpus(self, demand: str) -> list[tuple[int, int]] | None:
        """Whole GPUs from untouched ones; a fraction from the fullest with room, so that fractions share.
        None: no room."""
        whole, fraction = divmod(from_text(demand).get("GPU", 0), UNIT)
        untouched = [number for number, free in enumerate(self.gpus_free) if free == UNIT]
        if len(untouched) < whole:
            return None
        chosen = [(number, UNIT) for number in untouched[:whole]]
        if fraction:
            candidates = [n for n, free in enumerate(self.gpus_free) if free >= fraction and n not in untouched[:whole]]
            if not candidates:
                return None
            chosen.append((min(candidates, key=self.gpus_free.__getitem__), fraction))
        return chosen


def needs_gpu(demand: str) -> bool:
    return "GPU:" in demand


def split_started(worker: Worker, started: int) -> tuple[list[Attempt], list[Attempt]]:
    """Of what the worker was sent: what it has begun, when the run it began last has this serial, and the rest."""
    sent = list(worker.sent.values())
    return [one for one in sent if one.serial <= started], [one for one in sent if one.serial > started]


def _text(units: Quantities) -> str:
    return to_text({name: from_units(max(amount, 0)) for name, amount in units.items()})
