"""A small cluster for script tests: specs by the id they get, processes whose calls are numbered, time as a number.

A test says `cluster.submit(task)`, not which of 14 arguments is the envelope. Everything goes through the tables of
`redray.gcs`, so these tests also hold what Python sends against what the scripts take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redray import spec as specs
from redray.gcs import actors, nodes, objects, placement_groups, processes, streams, tasks
from redray.gcs.client import Connection
from redray.gcs.command import DIRECT, Argument, Command, envelope
from redray.gcs.keys import Keys
from redray.gcs.schema import Outcome
from redray.gcs.scripts import Script

DRIVER, OTHER = "d" * 16, "e" * 16  # drivers; their jobs have the same ids
WORKER = "a" * 16
NODE, NODE2 = "b" * 16, "c" * 16
FUNCTION = "f" * 32
NOW = 1_000_000  # ms
LATER = NOW + 60_000  # every lease taken at NOW is over
LARGE = None  # in `values`: a value in the node's shared memory


def task_id(number: int, maker: str = DRIVER) -> str:
    return f"{maker}{number:08x}"


def returned(task: str, index: int = 0) -> str:
    return f"{task}{index:08x}"


def put_id(number: int, maker: str = DRIVER) -> str:
    return f"{maker}{number:08x}ffffffff"


def handle(actor: str) -> str:
    return f"{actor}fffffffe"


def ready_id(group: str) -> str:
    """The object that a group is made with."""
    return f"{group}ffffffff"


def head(task: str, **changes: Any) -> specs.TaskHead:
    """The head of a simple task; any field may be given."""
    fields: dict[str, Any] = {
        "kind": specs.TASK,
        "job": task[:16],
        "name": "f",
        "demand": "CPU:1",
        "num_returns": 1,
        "max_retries": 3,
        "waits_for": [],
        "keeps": [],
        "depth": 0,
        "priority": 0,
        "parent": "",
        "function": FUNCTION,
    }
    return specs.TaskHead(task, **{**fields, **changes})


def packed(task: str, **changes: Any) -> bytes:
    return specs.pack(head(task, **changes), b"payload")


def creation(actor: str, **changes: Any) -> bytes:
    return packed(actor, **{"kind": specs.ACTOR_CREATION, "num_returns": 0, "actor": actor, "name": "A", **changes})


def call(task: str, actor: str, sequence: int, **changes: Any) -> bytes:
    fields = {"kind": specs.ACTOR_CALL, "actor": actor, "sequence": sequence, "max_retries": 0, "name": "A.m"}
    return packed(task, **{**fields, **changes})


def finish(
    task: str,
    values: Sequence[bytes | None] = (b"Vx",),
    *,
    attempt: int = 1,
    outcome: str = Outcome.VALUE,
    contains: Mapping[int, list[str]] | None = None,
    borrower: str = "",
    kept: Sequence[str] = (),
    detail: str = "",
) -> tuple[tasks.Finish, list[bytes]]:
    inner = contains or {}
    inline = [value for value in values if value is not LARGE]
    returns = [
        (value is not LARGE, len(value) if value is not LARGE else 1_000_000, inner.get(index, []))
        for index, value in enumerate(values)
    ]
    return tasks.Finish(task, attempt, outcome, returns, borrower, list(kept), detail), inline


def items(
    task: str, start: int, values: Sequence[bytes | None], *, attempt: int = 1, contains: Sequence[str] = ()
) -> tuple[streams.Yield, list[bytes]]:
    """What an attempt yields; each item contains the same refs."""
    returns = [(value is not LARGE, len(value or b"x" * 1_000_000), list(contains)) for value in values]
    return streams.Yield(task, attempt, start, returns), [value for value in values if value is not LARGE]


def failure(task: str, outcome: str, attempt: int = 1, detail: str = "why") -> tuple[tasks.Finish, list[bytes]]:
    return finish(task, (), attempt=attempt, outcome=outcome, detail=detail)


def text(value: Any) -> Any:
    """Replies with texts instead of bytes; a packed system error stays readable."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [text(item) for item in value]
    return value


class Cluster:
    """`cluster.call(process, command)` numbers the call, `cluster.run(command)` does not."""

    def __init__(self, connection: Connection, scripts: Mapping[str, Script], keys: Keys | None = None) -> None:
        self.connection = connection
        self.scripts = scripts
        self.keys = keys or Keys()
        self.numbers: dict[str, int] = {}
        self.routes: dict[str, str] = {}
        self.last_sent: tuple[str, list[str], list[Argument]] = ("", [], [])
        self.audited = True  # a test that writes nonsense on purpose says so

    # ---- calls -----------------------------------------------------------------------------------------------------
    def run(self, command: Command) -> Any:
        return self.send(command.verb, list(command.keys), command.args)

    def send(self, verb: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        self.last_sent = (verb, list(keys), list(args))
        return self.connection.run(self.scripts[verb], keys, args)

    def send_again(self) -> Any:
        verb, keys, args = self.last_sent
        return self.connection.run(self.scripts[verb], keys, args)

    def call(self, process: str, command: Command, *, seen: str = "", number: int | None = None, now: int = NOW) -> Any:
        """The process' next call (or the one with `number`)."""
        if number is None:
            number = self.numbers[process] = self.numbers.get(process, 0) + 1
        args = [*envelope(process, self.routes[process], number, seen, now), *command.args]
        return self.send(command.verb, [self.keys.process(process)], args)

    # ---- who is there ----------------------------------------------------------------------------------------------
    def node(self, id: str = NODE, now: int = NOW, resources: str = '{"CPU": 4}') -> str:
        assert self.run(nodes.register(self.keys, id, now, 1, {"host": "h", "resources": resources}))[0] == b"OK"
        self.routes[id] = DIRECT
        return id

    def open(self, worker: str, route: str, kind: str, job: str, now: int = NOW) -> Any:
        self.routes[worker] = route
        return self.run(processes.open(self.keys, worker, route, now, kind, job, 7, "space", b"config"))

    def driver(self, id: str = DRIVER, route: str = DIRECT, now: int = NOW) -> str:
        assert self.open(id, route, "driver", id, now)[0] == b"OK"
        return id

    def worker(self, id: str = WORKER, route: str = NODE, job: str = DRIVER) -> str:
        assert self.open(id, route, "worker", job)[0] == b"OK"
        return id

    def end(self, worker: str, now: int = NOW, crashed: bool = False) -> Any:
        return self.run(processes.end(self.keys, worker, self.routes[worker], now, crashed))

    # ---- the usual calls -------------------------------------------------------------------------------------------
    def submit(self, *packed_specs: bytes, by: str = DRIVER, claims: str = "") -> Any:
        return self.call(by, tasks.submit(claims or "-" * len(packed_specs), packed_specs))

    def claim(
        self, node: str = NODE, free: str = "CPU:4", rooms: dict[str, int] | None = None, limit: int = 100
    ) -> Any:
        return self.call(node, tasks.claim(free, rooms or {}, limit))

    def claimed(self, node: str = NODE, **options: Any) -> list[str]:
        """Claims, and names the tasks that came."""
        return [specs.unpack_head(item[1]).task for item in self.claim(node, **options)[1]]

    def finish(
        self, *finishes: tuple[tasks.Finish, list[bytes]], node: str = NODE, limit: int = 0, free: str = "-"
    ) -> Any:
        return self.call(node, tasks.finish(free, {}, limit, finishes))

    def release(self, *ids: str, by: str = DRIVER) -> Any:
        return self.call(by, objects.release(ids))

    def hold(self, *ids: str, by: str = WORKER) -> Any:
        return self.call(by, objects.hold(ids))

    def wait(self, *ids: str, by: str = DRIVER) -> Any:
        return self.call(by, objects.wait(ids))

    def put(
        self, id: str, value: bytes = b"Vput", by: str = DRIVER, node: str = "", contains: Sequence[str] = ()
    ) -> Any:
        size = len(value) if not node else 1_000_000
        return self.call(by, objects.put(id, b"" if node else value, size, node, contains))

    def cancel(self, *ids: str, by: str = DRIVER, how: str = "", parent: str = "") -> Any:
        return text(self.call(by, tasks.cancel(ids, how, parent)))

    def create_actor(
        self, actor: str, by: str = DRIVER, record: actors.ActorRecord | None = None, **changes: Any
    ) -> Any:
        record = record or actors.ActorRecord("", "space", "A", 0, 0, 0)
        return text(self.call(by, actors.create(creation(actor, **changes), record, b"methods")))

    def start_actor(self, actor: str, node: str = NODE, attempt: int = 1, process: str = WORKER) -> Any:
        return self.call(node, actors.started(actor, attempt, process))

    def actor_died(
        self, actor: str, node: str = NODE, attempt: int = 1, final: bool = False, cause: str = "boom"
    ) -> Any:
        return text(self.call(node, actors.died(actor, attempt, int(final), cause)))

    def kill_actor(self, actor: str, by: str = DRIVER, final: bool = True) -> Any:
        return text(self.call(by, actors.kill(actor, final, "killed")))

    def create_group(
        self,
        group: str,
        bundles: Sequence[str],
        strategy: str = "PACK",
        *,
        by: str = DRIVER,
        ready: str = "",
        job: str = "",
        name: str = "",
        detached: bool = False,
    ) -> Any:
        """`ready` is `ready_id(group)` unless given."""
        record = placement_groups.GroupRecord(name, "space", strategy, int(detached), list(bundles))
        command = placement_groups.create(group, ready or ready_id(group), job or by, record, b"Vgroup")
        return text(self.call(by, command))

    def group_ready(self, group: str, ready: str, by: str = DRIVER) -> Any:
        return text(self.call(by, placement_groups.ready(group, ready)))

    def answer(self, group: str, granted: bool = True, attempt: int = 1, node: str = NODE, free: str = "-") -> Any:
        return text(self.call(node, placement_groups.granted(free, [(group, attempt, granted)])))

    def remove_group(self, group: str, by: str = DRIVER) -> Any:
        return text(self.call(by, placement_groups.remove(group)))

    def tell_free(self, node: str, free: str, groups: str = "-") -> Any:
        return text(self.run(placement_groups.tell_free(self.keys, node, free, groups)))

    def group(self, group: str) -> dict[str, Any]:
        return self.hash(self.keys.group(group))

    def chores(self, now: int = NOW, most: int = 10_000) -> None:
        for _ in range(most):
            if self.run(nodes.do_chore(self.keys, now))[0] == b"DONE":
                return
        raise AssertionError("the chores do not come to an end")

    def reap(self, node: str, now: int = LATER, leaving: bool = False, most: int = 100) -> str:
        for _ in range(most):
            word = self.run(nodes.reap(self.keys, node, now, leaving))[0].decode()
            if word != "MORE":
                return str(word)
        raise AssertionError("the reaping does not come to an end")

    # ---- what is written -------------------------------------------------------------------------------------------
    def hash(self, key: str) -> dict[str, Any]:
        flat = text(self.connection.call("HGETALL", key))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def task(self, task: str) -> dict[str, Any]:
        return self.hash(self.keys.task(task))

    def state(self, task: str) -> Any:
        return self.task(task).get("state")

    def object(self, id: str) -> dict[str, Any]:
        return self.hash(self.keys.of_object(id))

    def members(self, key: str) -> set[str]:
        return set(text(self.connection.call("SMEMBERS", key)))

    def inbox(self, process: str) -> list[tuple[str, str, Any]]:
        """All messages in it: (kind, id, data)."""
        messages = []
        for _, parts in self.connection.call("XRANGE", self.keys.inbox(process), "-", "+"):
            for at in range(0, len(parts) - 2, 3):
                messages.append((parts[at].decode(), parts[at + 1].decode(), text(parts[at + 2])))
        return messages

    def heard(self, process: str, kind: str) -> list[tuple[str, Any]]:
        return [(id, data) for found, id, data in self.inbox(process) if found == kind]

    def dump(self, but_inboxes: bool = False) -> dict[str, Any]:
        """Everything in Redis, comparable."""
        found: dict[str, Any] = {}
        for key in sorted(self.connection.call("KEYS", "*")):
            if not (but_inboxes and b":inbox:" in key):
                found[key.decode()] = self._value(key)
        return found

    def _value(self, key: bytes) -> Any:
        kind = self.connection.call("TYPE", key)
        if kind == b"hash":
            flat = self.connection.call("HGETALL", key)
            return dict(zip(flat[::2], flat[1::2], strict=True))
        if kind == b"set":
            return set(self.connection.call("SMEMBERS", key))
        if kind == b"zset":
            return self.connection.call("ZRANGE", key, 0, -1, "WITHSCORES")
        if kind == b"list":
            return self.connection.call("LRANGE", key, 0, -1)
        if kind == b"stream":
            return self.connection.call("XRANGE", key, "-", "+")
        return self.connection.call("GET", key)

    def names(self) -> set[str]:
        """The families of the keys there are, less what any cluster has."""
        prefix = len(self.keys.prefix)
        scaffolding = set(
            "idle leases nodes dead_nodes sequence tick jobs node process job inbox node_processes".split()
        )
        return {key.decode()[prefix:].split(":")[0] for key in self.connection.call("KEYS", "*")} - scaffolding
