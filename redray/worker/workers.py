"""The workers of a node and the resources they hold. Pure."""

from __future__ import annotations

from collections import OrderedDict

from redray.resources import Quantities, from_text, from_units, give, take, to_text
from redray.spec import TaskHead


class Attempt:
    """One attempt of a task that this node has claimed."""

    __slots__ = ("attempt", "head", "queue", "spec", "started_ms", "told_running", "values", "worker")

    def __init__(self, spec: bytes, head: TaskHead, attempt: int, values: dict[str, bytes]) -> None:
        self.spec = spec
        self.head = head
        self.attempt = attempt
        self.values = values
        self.queue = f"{head.demand}|{head.job}"
        self.worker = ""
        self.started_ms = 0
        self.told_running = False

    @property
    def task(self) -> str:
        return self.head.task


class Worker:
    """A worker process. `sent` are the attempts it was given, in order; `holds` is the demand it occupies, "" when it occupies none."""

    __slots__ = ("actor", "blocked", "gpus", "holds", "id", "job", "last_idle_ms", "leaving", "queue", "ready", "sent")

    def __init__(self, id: str) -> None:
        self.id = id
        self.job = ""
        self.ready = False
        self.leaving = False
        self.blocked = False
        self.actor = ""
        self.holds = ""
        self.queue = ""
        self.gpus: list[tuple[int, int]] = []
        self.sent: OrderedDict[str, Attempt] = OrderedDict()
        self.last_idle_ms = 0


class Ledger:
    """Total and free resources, GPUs by number. The node is the authority over these: nothing else may give them out."""

    def __init__(self, total: dict[str, float]) -> None:
        self.total: Quantities = from_text(to_text(total))
        self.free: Quantities = dict(self.total)
        self._gpu_free = [10_000] * int(total.get("GPU", 0))

    def fits(self, demand: str) -> bool:
        free = self.free
        return all(free.get(name, 0) >= units for name, units in from_text(demand).items())

    def could_ever_fit(self, demand: str) -> bool:
        return all(self.total.get(name, 0) >= units for name, units in from_text(demand).items())

    def occupy(self, worker: Worker, demand: str) -> None:
        take(demand, self.free)
        worker.holds = demand
        worker.gpus = self._take_gpus(from_text(demand).get("GPU", 0))

    def vacate(self, worker: Worker) -> None:
        if not worker.holds:
            return
        give(worker.holds, self.free)
        if worker.blocked:
            self._retake_cpu(worker)
        for number, units in worker.gpus:
            self._gpu_free[number] += units
        worker.gpus, worker.holds = [], ""

    def block(self, worker: Worker) -> None:
        """A worker that waits in `get` gives its CPUs back, and keeps its GPUs."""
        if not worker.blocked:
            worker.blocked = True
            self._add_cpu(worker, 1)

    def unblock(self, worker: Worker) -> None:
        """It retakes them at once: for a moment more may be in use than there are."""
        if worker.blocked:
            worker.blocked = False
            self._add_cpu(worker, -1)

    def free_text(self) -> str:
        return to_text({name: from_units(max(units, 0)) for name, units in self.free.items()})

    def _retake_cpu(self, worker: Worker) -> None:
        self._add_cpu(worker, -1)
        worker.blocked = False

    def _add_cpu(self, worker: Worker, sign: int) -> None:
        units = from_text(worker.holds).get("CPU", 0) if worker.holds else 0
        if units:
            self.free["CPU"] = self.free.get("CPU", 0) + sign * units

    def _take_gpus(self, units: int) -> list[tuple[int, int]]:
        """Whole GPUs from untouched ones; a fraction from the fullest that still has room, so that fractions share."""
        taken = []
        while units >= 10_000:
            number = next((n for n, free in enumerate(self._gpu_free) if free == 10_000), None)
            if number is None:
                return taken
            self._gpu_free[number] = 0
            taken.append((number, 10_000))
            units -= 10_000
        if units:
            candidates = [n for n, free in enumerate(self._gpu_free) if free >= units]
            if candidates:
                number = min(candidates, key=self._gpu_free.__getitem__)
                self._gpu_free[number] -= units
                taken.append((number, units))
        return taken
