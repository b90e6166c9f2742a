"""Tasks, actors and actor calls: arguments are packed, heads are made,
and what is submitted in a row goes out together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redray import refs, spec
from redray.environments import package_ids, parsed
from redray.exceptions import ActorAlreadyExistsError, PendingCallsLimitExceeded, RaySystemError
from redray.functions import ExportedFunction
from redray.gcs import actors, tasks
from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.groups import Groups
from redray.ids import ActorID, JobID, WorkerID
from redray.options import DYNAMIC, ActorOptions, MethodOptions, TaskOptions
from redray.refs import ObjectRef, counted
from redray.sending import FIRST
from redray.spec import ACTOR_CALL, ACTOR_CREATION, STREAMING, TASK, TaskHead
from redray.store import serialization
from redray.streaming import Streaming
from redray.task_context import TaskContext
from redray.values import INLINE_BYTES

BATCH_BYTES = 8 * 1024
CALL_BYTES = 10 * 2**20  # of all arguments that travel inside of a call


class Submission(Groups, Streaming):
    """Any thread may submit."""

    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        super().__init__(kind, worker, address, keys, job, namespace)
        self._exported: set[bytes] = set()
        self._sequences: dict[bytes, int] = {}

    def submit_task(
        self, function: ExportedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        self._check_usable()
        payload, waits_for, keeps, kept_alive = self._pack_arguments(args, kwargs)
        extra: dict[str, Any] = {}
        if options.retry_exceptions:
            extra["retry_exceptions"] = _packed_retry(options.retry_exceptions)
        if options.max_calls:
            extra["max_calls"] = options.max_calls
        num_returns = _returns(options, extra)
        context = self.task_context()
        if options.runtime_env or self._own:
            _enter(extra, self._environment_for(options.runtime_env))
        demand = options.demand
        if options.scheduling_strategy is not None or context is not None:
            placement = self._placement(options.scheduling_strategy, context, options.name, demand)
            if placement is not None:
                demand = placement.demand(demand)
                placement.note(extra)
        with self._lock:
            self._export(function)
            head = self._head(TASK, function, options.name, demand, num_returns, options.max_retries,
                              waits_for, keeps, options.priority, context, extra)  # fmt: skip
            head.where = options.where
            del kept_alive
            return self._submit(head, payload)

    def submit_actor_call(
        self, actor_id: ActorID, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> list[Any]:
        self._check_usable()
        payload, waits_for, keeps, kept_alive = self._pack_arguments(args, kwargs)
        self._check_pending(actor_id, options)
        extra: dict[str, Any] = {}
        if options.concurrency_group:
            extra["concurrency_group"] = options.concurrency_group
        if options.retry_exceptions:
            extra["retry_exceptions"] = _packed_retry(options.retry_exceptions)
        num_returns = _returns(options, extra)
        context = self.task_context()
        with self._lock:
            head = self._head(ACTOR_CALL, None, options.name or method, "-", num_returns,
                              options.max_task_retries, waits_for, keeps, 0, context, extra)  # fmt: skip
            head.actor = actor_id.hex()
            head.function = method
            head.sequence = self._sequences[actor_id] = self._sequences.get(actor_id, 0) + 1
            del kept_alive
            if options.max_pending_calls > 0 and num_returns != 0:
                return self._submit_limited(actor_id, head, payload)
            return self._submit(head, payload)

    def _submit_limited(self, actor_id: ActorID, head: TaskHead, payload: bytes) -> list[Any]:
        kept: list[ObjectRef[Any]] = []
        self._limited[bytes.fromhex(head.task) + FIRST] = actor_id, kept
        self._pending_calls[actor_id] = self._pending_calls.get(actor_id, 0) + 1
        found = self._submit(head, payload)
        kept.append(found[0] if head.num_returns > 0 else found[0].completed())
        return found

    def _check_pending(self, actor_id: ActorID, options: MethodOptions) -> None:
        if 0 < options.max_pending_calls <= self._pending_calls.get(actor_id, 0):
            self._listen_a_little()
        if 0 < options.max_pending_calls <= self._pending_calls.get(actor_id, 0):
            raise PendingCallsLimitExceeded(
                f"The actor {actor_id.hex()} has {options.max_pending_calls} calls of this process pending, "
                "which is its max_pending_calls: get some of their results first."
            )

    def create_actor(
        self,
        cls: ExportedFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        methods: dict[str, MethodOptions],
    ) -> ActorID:
        self._check_usable()
        payload, waits_for, keeps, kept_alive = self._pack_arguments(args, kwargs)
        extra: dict[str, Any] = {
            "demand_held": options.demand_held,
            "max_concurrency": options.max_concurrency,
            "concurrency_groups": dict(options.concurrency_groups),
            "is_async": options.is_async,
            "out_of_order": options.out_of_order,
            "name": options.name,
        }
        context = self.task_context()
        environment = self._environment_for(options.runtime_env)
        _enter(extra, environment)
        if options.detached and (ids := package_ids(parsed(environment) if environment else self._job_env)):
            extra["packages"] = ids  # its job is its own, and must not lose them with this one
        to_place = options.demand_to_place
        placement = self._placement(options.scheduling_strategy, context, cls.name, options.demand_held, to_place)
        if placement is not None:
            to_place, extra["demand_held"] = placement.demand(to_place), placement.demand(options.demand_held)
            placement.note(extra)
        namespace = options.namespace if options.namespace is not None else self.namespace
        record = actors.ActorRecord(
            options.name, namespace, cls.name, int(options.detached), options.max_restarts, options.max_task_retries
        )
        with self._lock:
            self._export(cls)
            head = self._head(ACTOR_CREATION, cls, cls.name, to_place, 0, 0,
                              waits_for, keeps, options.priority, context, extra)  # fmt: skip
            head.actor = head.task
            head.where = options.where
            if options.detached:
                head.job = head.task[8:]
            actor_id = ActorID(bytes.fromhex(head.task))
            self._flush_batch()
            packed_methods = serialization.pack(serialization.serialize(methods))
            number = self._call(
                actors.create(spec.pack(head, payload), record, packed_methods), wants_reply=bool(options.name)
            )
            self._send_out()
        del kept_alive
        if options.name:
            reply = self._await_reply(number)
            if reply[0] == "REPEAT":
                reply = self._find_out(head.task, f"{namespace}/{options.name}")
            if reply[0] == "EXISTS":
                raise ActorAlreadyExistsError(
                    f"The name '{options.name}' is already taken in namespace '{namespace}': by actor {reply[1]}. "
                    "Use get_if_exists=True to share it, or another name."
                )
            if reply[0] != "OK":
                raise RaySystemError(f"The actor was not created: {reply[0]}.")
        with self._lock:
            self._table.add_own(refs.handle_id(actor_id))
        return actor_id

    def _find_out(self, actor: str, full_name: str) -> list[str]:
        """What the answer to an `actor_create` was that was lost with the node that relayed it."""
        exists, owner = self.query([("EXISTS", self._keys.actor(actor)), ("HGET", self._keys.actor_names, full_name)])
        return ["OK"] if exists else ["EXISTS", owner.decode() if owner is not None else "one that has ended"]

    def _head(
        self, kind: int, function: ExportedFunction | None, name: str, demand: str, num_returns: int, retries: int,
        waits_for: list[str], keeps: list[str], priority: int, context: TaskContext | None, extra: dict[str, Any],
    ) -> TaskHead:  # fmt: skip
        self._number += 1
        task = f"{self._worker}{self._number:08x}"
        depth, parent = 0, ""
        if context is not None:
            depth, parent = context.head.depth + 1, context.head.task
        job = self.job_id.hex()  # an actor's own, not its caller's: what it starts lives and ends with it
        return TaskHead(task, kind, job, name, demand, num_returns, retries, waits_for, keeps, depth, priority, parent,
                        function.id.hex() if function is not None else "", "", 0, extra)  # fmt: skip

    def _submit(self, head: TaskHead, payload: bytes) -> list[Any]:
        """Into the batch, which goes out at once when nothing is outstanding:
        then somebody is about to wait for this one."""
        packed = spec.pack(head, payload)
        found: list[Any] = []
        base = bytes.fromhex(head.task)
        if head.num_returns == STREAMING:
            found.append(self.begin_stream(base, int(head.options.get("backpressure", 0))))
        for index in range(head.num_returns):
            object_id = base + index.to_bytes(4, "big")
            self._table.add_own(object_id)
            found.append(counted(object_id))
        if self._flusher is None and self.kind == "driver":
            self._start_flusher()
        self._batch.append(packed)
        self._batch_bytes += len(packed)
        if not self._outstanding or self._batch_bytes > BATCH_BYTES:
            self._flush()
            if self._outstanding:
                self._listen_a_little()
        elif not self._unsent.is_set():
            self._wake_flusher()
        if found:
            self._outstanding.add(base + FIRST)
        return found

    def _export(self, function: ExportedFunction) -> None:
        if function.id not in self._exported:
            self._check_known(function.contains)
            self._handle(function.contains)
            self._exported.add(function.id)
            self._flush_batch()
            job = self.job_id.hex()
            contains = [ref.hex() for ref in function.contains]
            self._call(tasks.export(function.id.hex(), job, function.name, function.pickled, contains))

    # ---- arguments ---------------------------------------------------------------------------------------------------
    def _pack_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, list[str], list[str], list[ObjectRef[Any]]]:
        """(payload, refs to wait for, refs inside values, implicit puts that must live until the submission)."""
        if not args and not kwargs:
            return b"", [], [], []
        slots: list[tuple[int | str, int]] = []
        waits_for: list[str] = []
        puts: list[ObjectRef[Any]] = []
        places: Iterable[tuple[int | str, Any]] = (*enumerate(args), *kwargs.items())
        for place, value in places:
            if isinstance(value, ObjectRef):
                self._check_known((value,))
                self._unhandled.handle(value)
                slots.append((place, len(waits_for)))
                waits_for.append(value.hex())
        try:
            serialized = self._serialize_arguments(args, kwargs, slots)
        except TypeError as error:
            raise _which_argument(places, error) from error.__cause__
        if serialized.size > INLINE_BYTES:
            for place, packed in _too_large([item for item in places if not isinstance(item[1], ObjectRef)]):
                ref = self._put_serialized(packed)
                puts.append(ref)
                slots.append((place, len(waits_for)))
                waits_for.append(ref.hex())
            serialized = self._serialize_arguments(args, kwargs, slots)
        self._check_known(serialized.contains)
        self._handle(serialized.contains)
        keeps = [object_id.hex() for object_id in serialized.contains]
        return serialization.pack(serialized), waits_for, keeps, puts

    def _serialize_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], slots: list[tuple[int | str, int]]
    ) -> serialization.Serialized:
        if slots:
            by_place = dict(slots)
            args = tuple(None if place in by_place else value for place, value in enumerate(args))
            kwargs = {name: None if name in by_place else value for name, value in kwargs.items()}
        return serialization.serialize((args, kwargs, slots))


def _too_large(places: Iterable[tuple[int | str, Any]]) -> list[tuple[int | str, serialization.Serialized]]:
    """The arguments that travel as objects of their own: each large one, and the largest others of what is too much
    for one call."""
    sized = [(place, serialization.serialize(value)) for place, value in places]
    sized.sort(key=lambda item: item[1].size, reverse=True)
    total = sum(packed.size for _, packed in sized)
    chosen = []
    for place, packed in sized:
        if packed.size <= INLINE_BYTES and total <= CALL_BYTES:
            break
        chosen.append((place, packed))
        total -= packed.size
    return chosen


def _which_argument(places: Iterable[tuple[int | str, Any]], error: TypeError) -> TypeError:
    """The error of all arguments together, as that of the first one that cannot be pickled."""
    for place, value in places:
        try:
            serialization.serialize(value)
        except TypeError as own:
            which = f"argument {place!r}" if isinstance(place, str) else f"argument {place}"
            return TypeError(
                f"Could not serialize the {which}: {own} redray.util.inspect_serializability() follows it further down."
            )
    return error


def _enter(extra: dict[str, Any], environment: str) -> None:
    if environment:
        extra["runtime_env"] = environment


def _returns(options: TaskOptions | MethodOptions, extra: dict[str, Any]) -> int:
    """How many values the head says that the call returns; what else the worker must know goes into `extra`."""
    if options.num_returns == DYNAMIC:
        extra["dynamic"] = True
        return 1
    if options.num_returns == STREAMING and options.generator_backpressure > 0:
        extra["backpressure"] = options.generator_backpressure
    return options.num_returns


def _packed_retry(retry: Any) -> Any:
    """True, or the pickled classes as hexadecimal text:
    heads hold no bytes, because Redis' msgpack does not know them."""
    if retry is True:
        return True
    from redray import cloudpickle

    return cloudpickle.dumps(tuple(retry)).hex()
