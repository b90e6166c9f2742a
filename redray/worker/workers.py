"""The workers of a node and the resources they hold. Pure."""

from __future__ import annotations

from collections import OrderedDict

from redray.resources import (
    UNIT,
    Quantities,
    bundle_resources,
    cpu_part,
    fits,
    from_text,
    from_units,
    give,
    gpu_units,
    group_of,
    is_of_group,
    take,
    to_text,
)
from redray.spec import TaskHead
from redray.worker.children import Children
from redray.worker.gpus import GpuPool, Share


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
    given, in order; `holds` is the demand it occupies, "" when none; `lent` is what others may use of that while it is
    blocked; `doom` is why it is killed, if that is not its own fault."""

    __slots__ = (
        "actor", "blocked", "doom", "environment", "gpus", "holds", "id", "job", "last_idle_ms", "leaving", "lent",
        "on_gpus", "pool", "queue", "ready", "revoking", "sent", "serial", "waits_for",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        self.id = id
        self.job = ""
        self.environment = ""
        self.ready = False
        self.leaving = False
        self.on_gpus: bool | None = None  # whether what it runs holds GPUs; None before the first
        self.blocked = False
        self.lent: Quantities = {}
        self.doom = ""
        self.actor = ""
        self.holds = ""
        self.queue = ""
        self.pool = ""  # whose GPUs they are, see Ledger.pools
        self.gpus: Share = []
        self.sent: OrderedDict[str, Attempt] = OrderedDict()
        self.last_idle_ms = 0
        self.serial = 0  # of the run sent last
        self.waits_for: frozenset[str] = frozenset()  # tasks, while it is blocked
        self.revoking = 0  # the serial up to which its unstarted runs are being taken back

    def may_serve(self, attempt: Attempt) -> bool:
        """A process that has begun to serve a job in an environment serves no other. One without GPUs gets none later,
        nor one with GPUs go on without: libraries that it has loaded keep to the devices that they have seen."""
        if not self.job:
            return True
        fits = self.job == attempt.head.job and self.environment == attempt.environment
        return fits and self.on_gpus in (None, needs_gpu(attempt.head.demand))


class Ledger:
    """Total and free resources, GPUs by number, those of placement groups under their own names.
    The node is the authority over these: nothing else may give them out."""

    def __init__(self, total: dict[str, float]) -> None:
        self.total: Quantities = from_text(to_text(total))
        self.free: Quantities = dict(self.total)
        whole, rest = divmod(self.total.get("GPU", 0), UNIT)
        # "" is the node's own pool, others belong to bundles: "<index>_<group>"
        self.pools = {"": GpuPool(dict(enumerate([UNIT] * whole + [rest] * bool(rest))))}
        self.ending: set[str] = set()  # placement groups that were removed, and whose workers have not all ended

    def fits(self, demand: str) -> bool:
        return fits(demand, self.free) and self._choose_gpus(demand) is not None and not self._is_ending(demand)

    def could_ever_fit(self, demand: str) -> bool:
        return all(self.total.get(name, 0) >= units for name, units in from_text(demand).items())

    def occupy(self, worker: Worker, demand: str) -> None:
        """The demand must fit."""
        worker.pool, worker.gpus = self._choose_gpus(demand) or ("", [])
        if worker.gpus:
            self.pools[worker.pool].add(worker.gpus, -1)
        take(demand, self.free)
        worker.holds = demand

    def vacate(self, worker: Worker) -> None:
        if not worker.holds:
            return
        self.unblock(worker)
        give(worker.holds, self.free)
        if worker.gpus:
            self.pools[worker.pool].add(worker.gpus, 1)
        worker.pool, worker.gpus, worker.holds = "", [], ""

    def exchange(self, worker: Worker, demand: str) -> None:
        """Hold another demand from now on, on the same GPUs: the process may have opened them."""
        if gpu_units(demand) != gpu_units(worker.holds):
            self.vacate(worker)
            self.occupy(worker, demand)
            return
        self.unblock(worker)
        give(worker.holds, self.free)
        take(demand, self.free)
        worker.holds = demand

    def block(self, worker: Worker) -> None:
        """A worker that waits in `get` gives its CPUs back (in a group, to its bundle), and keeps its GPUs."""
        if not worker.blocked:
            worker.blocked = True
            worker.lent = cpu_part(worker.holds) if worker.holds else {}
            self._add(worker.lent, 1)

    def unblock(self, worker: Worker) -> None:
        """It retakes them at once: for a moment more may be in use than there are."""
        self._add(worker.lent, -1)
        worker.blocked, worker.lent = False, {}

    # ---- placement groups --------------------------------------------------------------------------------------------
    def set_aside(self, demand: str) -> Share | None:
        """Take a bundle out of what is free, and say which GPUs that are. None: it does not fit."""
        chosen = self._choose_gpus(demand) if fits(demand, self.free) else None
        if chosen is None:
            return None
        take(demand, self.free)
        self.pools[""].add(chosen[1], -1)
        return chosen[1]

    def put_back(self, demand: str, gpus: Share) -> None:
        give(demand, self.free)
        self.pools[""].add(gpus, 1)

    def open_bundle(self, group: str, index: int, demand: str, gpus: Share) -> None:
        """A bundle that was set aside may be used, under its own names."""
        renamed = bundle_resources(demand, group, index)
        for quantities in (self.total, self.free):
            for name, units in renamed.items():
                quantities[name] = quantities.get(name, 0) + units
        if gpus:
            self.pools[f"{index}_{group}"] = GpuPool(dict(gpus))

    def close_bundle(self, group: str, index: int, demand: str) -> None:
        """Nothing may run in it any more."""
        self.pools.pop(f"{index}_{group}", None)
        for quantities in (self.total, self.free):
            for name, units in bundle_resources(demand, group, index).items():
                quantities[name] -= units
                if not quantities[name]:
                    del quantities[name]

    # ---- as text -----------------------------------------------------------------------------------------------------
    def free_text(self) -> str:
        """Without what belongs to placement groups."""
        return _text({name: units for name, units in self.free.items() if not is_of_group(name)})

    def group_text(self) -> str:
        """What is free of what belongs to placement groups."""
        return _text({name: units for name, units in self.free.items() if is_of_group(name)})

    def is_half_used(self) -> bool:
        return 2 * self.free.get("CPU", 0) <= self.total.get("CPU", 0)

    def offer(self) -> str:
        """What this node has for work from Redis, and of how many CPUs: `CPU:2,GPU:1 of 4`."""
        return f"{self.claimable_text()} of {from_units(self.total.get('CPU', 0)):g}"

    def claimable_text(self) -> str:
        """What Redis may hand out work for. Of GPUs, the untouched ones and the largest rest of another."""
        if not self.pools[""].size and not self.ending:
            return _text(self.free)
        claimable = {name: units for name, units in self.free.items() if not self._is_ending(name + ":")}
        for pool, gpus in self.pools.items():
            name = f"GPU_group_{pool}" if pool else "GPU"
            if name in claimable:
                claimable[name] = min(claimable[name], gpus.claimable())
        return _text(claimable)

    def bundle_room_text(self) -> str:
        """What may be set aside for placement groups."""
        plain = {name: units for name, units in self.free.items() if not is_of_group(name)}
        if "GPU" in plain:
            plain["GPU"] = min(plain["GPU"], self.pools[""].claimable())
        return _text(plain)

    def _add(self, part: Quantities, sign: int) -> None:
        for name, units in part.items():
            self.free[name] = self.free.get(name, 0) + sign * units

    def _is_ending(self, demand: str) -> bool:
        return bool(self.ending) and group_of(demand) in self.ending

    def _choose_gpus(self, demand: str) -> tuple[str, Share] | None:
        """(pool, share of its GPUs); None: no room. One pool serves a demand: in a placement group that of a bundle."""
        if "GPU" not in demand:
            return "", []
        units = gpu_units(demand)
        for pool in self._gpu_pools(demand):
            share = self.pools[pool].choose(units)
            if share is not None:
                return pool, share
        return None if units else ("", [])

    def _gpu_pools(self, demand: str) -> list[str]:
        group = group_of(demand)
        if group is None:
            return [""]
        named = [name[len("GPU_group_") :] for name in from_text(demand) if name.startswith("GPU_group_")]
        indexed = [pool for pool in named if pool in self.pools]
        return indexed or [pool for pool in self.pools if pool.endswith(f"_{group}")]


def needs_gpu(demand: str) -> bool:
    return "GPU" in demand and gpu_units(demand) > 0


def split_started(worker: Worker, started: int) -> tuple[list[Attempt], list[Attempt]]:
    """Of what the worker was sent: what it has begun, when the run it began last has this serial, and the rest."""
    sent = list(worker.sent.values())
    return [one for one in sent if one.serial <= started], [one for one in sent if one.serial > started]


def _text(units: Quantities) -> str:
    return to_text({name: from_units(max(amount, 0)) for name, amount in units.items()})
