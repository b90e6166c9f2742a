"""One process' connection to its cluster: what it submits, what it hears, what it holds; and the only "current" slot.

Threads: any thread may submit. Of those that wait, one reads for all (`_wait_until`); the others sleep until it tells
them.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from redray import messages, refs, spec
from redray.arrivals import FETCH, Arrival, Fetch, Located
from redray.channel import ChannelLost, DirectChannel, NodeChannel, Unacknowledged
from redray.exceptions import (
    ActorAlreadyExistsError,
    ClusterLostError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    PendingCallsLimitExceeded,
    RaySystemError,
    RayTaskError,
    system_error,
)
from redray.functions import ActorDescription, ExportedFunction
from redray.gcs import actors, objects, tasks
from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost
from redray.gcs.command import Command
from redray.gcs.inbox import InboxLink
from redray.gcs.keys import Keys
from redray.gcs.schema import ActorState, Message
from redray.ids import PUT_INDEX, ActorID, JobID, NodeID, WorkerID
from redray.options import ActorOptions, MethodOptions, TaskOptions
from redray.ref_table import RefTable
from redray.refs import ObjectRef, counted
from redray.spec import ACTOR_CALL, ACTOR_CREATION, TASK, TaskHead
from redray.store import serialization
from redray.task_context import TaskContext

FIRST = b"\0\0\0\0"  # index of a first return value
INLINE_BYTES = 100 * 1024
BATCH_BYTES = 8 * 1024
SLICE = 500
FLUSH_S = 0.001  # what is submitted while something is outstanding waits so long for company
MAP_S = 5.0  # for a value on this node to be mapped, whatever the timeout of its get
DROPPED_S = 0.1  # how often a thread looks whether refs were dropped
DOWNLOAD_S = 30.0  # for an object that is computed again meanwhile
RETRY_S = 0.2

_current: Session | None = None


def current_or_none() -> Session | None:
    return _current


def install(session: Session) -> None:
    global _current
    _current = session
    refs.set_keeper(session)


def uninstall() -> None:
    global _current
    _current = None
    refs.set_keeper(refs.RefKeeper())


class Session(refs.RefKeeper):
    """`kind` is "driver" or "worker". Public methods are those of `redray.current.Session`."""

    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        self.kind = kind
        self.token = object()
        self.worker_id = worker
        self.job_id = job
        self.namespace = namespace
        self.address_info: dict[str, Any] = {}
        self.log_reader: Any = None
        self.on_close: list[Callable[[], None]] = []
        self._worker = worker.hex()
        self._address = address
        self._keys = keys
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._calls = Unacknowledged()
        self._channel: NodeChannel | DirectChannel
        self._inbox = InboxLink(address, keys.inbox(self._worker), f"redray-inbox-{self._worker[:8]}")
        self._query: Connection | None = None
        self._query_lock = threading.Lock()
        self._table = RefTable()
        self._arrived: dict[bytes, Arrival] = {}
        self._asked: set[bytes] = set()
        self._lagged = False  # the inbox overflowed once: from then on everything wanted is asked for
        self._number = 0
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._outstanding: set[bytes] = set()
        self._limited: dict[bytes, ActorID] = {}  # first return of a call -> its actor, where pending calls are bounded
        self._pending_calls: dict[bytes, int] = {}
        self._exported: set[bytes] = set()
        self._sequences: dict[bytes, int] = {}
        self._request = 0
        self._answers: dict[int, messages.Reply] = {}
        self._locating: dict[int, list[bytes]] = {}
        self._replies: dict[int, Any] = {}
        self._failed_calls: dict[int, tuple[str, str]] = {}
        self._submitted: dict[int, list[bytes]] = {}  # call -> first returns of its tasks, until acknowledged
        self._futures: dict[bytes, list[tuple[ObjectRef[Any], Future[Any]]]] = {}
        self._reader: Any = None
        self._reading = threading.Lock()
        self._news = threading.Condition(threading.Lock())
        self._followers = 0
        self._flusher: threading.Thread | None = None
        self._unsent = threading.Event()
        self._closed = False
        self._lost: BaseException | None = None

    def _move_to(self, address: Address, keys: Keys) -> None:
        """Where the cluster is, for a process that learns it from its node."""
        self._address, self._keys = address, keys
        self._inbox = InboxLink(address, keys.inbox(self._worker), f"redray-inbox-{self._worker[:8]}")

    # ---- submitting --------------------------------------------------------------------------------------------------
    def submit_task(
        self, function: ExportedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        self._check_usable()
        payload, waits_for, keeps, kept_alive = self._pack_arguments(args, kwargs)
        extra: dict[str, Any] = {}
        if options.retry_exceptions:
            extra["retry_exceptions"] = _packed_retry(options.retry_exceptions)
        if options.max_calls:
            extra["max_calls"] = options.max_calls
        context = self.task_context()
        with self._lock:
            self._export(function)
            head = self._head(TASK, function, options.name, options.demand, options.num_returns, options.max_retries,
                              waits_for, keeps, options.priority, context, extra)  # fmt: skip
            del kept_alive
            return self._submit(head, payload)

    def submit_actor_call(
        self, actor_id: ActorID, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> list[ObjectRef[Any]]:
        self._check_usable()
        payload, waits_for, keeps, kept_alive = self._pack_arguments(args, kwargs)
        self._check_pending(actor_id, options)
        extra: dict[str, Any] = {}
        if options.concurrency_group:
            extra["concurrency_group"] = options.concurrency_group
        if options.retry_exceptions:
            extra["retry_exceptions"] = _packed_retry(options.retry_exceptions)
        context = self.task_context()
        with self._lock:
            head = self._head(ACTOR_CALL, None, options.name or method, "-", options.num_returns,
                              options.max_task_retries, waits_for, keeps, 0, context, extra)  # fmt: skip
            head.actor = actor_id.hex()
            head.function = method
            head.sequence = self._sequences[actor_id] = self._sequences.get(actor_id, 0) + 1
            del kept_alive
            if options.max_pending_calls > 0 and options.num_returns > 0:
                self._limited[bytes.fromhex(head.task) + FIRST] = actor_id
                self._pending_calls[actor_id] = self._pending_calls.get(actor_id, 0) + 1
            return self._submit(head, payload)

    def _check_pending(self, actor_id: ActorID, options: MethodOptions) -> None:
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
            "name": options.name,
        }
        context = self.task_context()
        namespace = options.namespace if options.namespace is not None else self.namespace
        record = actors.ActorRecord(
            options.name, namespace, cls.name, int(options.detached), options.max_restarts, options.max_task_retries
        )
        with self._lock:
            self._export(cls)
            head = self._head(ACTOR_CREATION, cls, cls.name, options.demand_to_place, 0, 0,
                              waits_for, keeps, options.priority, context, extra)  # fmt: skip
            head.actor = head.task
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
            if reply[0] == "EXISTS":
                raise ActorAlreadyExistsError(
                    f"The name '{options.name}' is taken in namespace '{namespace}': by actor {reply[1]}. "
                    "Use get_if_exists=True to share it, or another name."
                )
            if reply[0] != "OK":
                raise RaySystemError(f"The actor was not created: {reply[0]}.")
        with self._lock:
            self._table.add_own(refs.handle_id(actor_id))
        return actor_id

    def _head(
        self, kind: int, function: ExportedFunction | None, name: str, demand: str, num_returns: int, retries: int,
        waits_for: list[str], keeps: list[str], priority: int, context: TaskContext | None, extra: dict[str, Any],
    ) -> TaskHead:  # fmt: skip
        self._number += 1
        task = f"{self._worker}{self._number:08x}"
        depth, parent, job = 0, "", self.job_id.hex()
        if context is not None:
            depth, parent, job = context.head.depth + 1, context.head.task, context.head.job
        return TaskHead(task, kind, job, name, demand, num_returns, retries, waits_for, keeps, depth, priority, parent,
                        function.id.hex() if function is not None else "", "", 0, extra)  # fmt: skip

    def _submit(self, head: TaskHead, payload: bytes) -> list[ObjectRef[Any]]:
        """Into the batch, which goes out at once when nothing is outstanding:
        then somebody is about to wait for this one."""
        packed = spec.pack(head, payload)
        found = []
        base = bytes.fromhex(head.task)
        for index in range(head.num_returns):
            object_id = base + index.to_bytes(4, "big")
            self._table.add_own(object_id)
            found.append(counted(object_id))
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

    def _listen_a_little(self) -> None:
        """While submitting in a row, take in what has come, so that neither the inbox nor the socket fills up."""
        if self._reading.acquire(blocking=False):
            try:
                self._pump(0)
            finally:
                self._reading.release()

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
                slots.append((place, len(waits_for)))
                waits_for.append(value.hex())
        serialized = self._serialize_arguments(args, kwargs, slots)
        if serialized.size > INLINE_BYTES:
            for place, value in places:
                if not isinstance(value, ObjectRef):
                    self._put_if_large(place, value, slots, waits_for, puts)
            serialized = self._serialize_arguments(args, kwargs, slots)
        self._check_known(serialized.contains)
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

    def _put_if_large(
        self,
        place: int | str,
        value: Any,
        slots: list[tuple[int | str, int]],
        waits_for: list[str],
        puts: list[ObjectRef[Any]],
    ) -> None:
        serialized = serialization.serialize(value)
        if serialized.size > INLINE_BYTES:
            ref = self._put_serialized(serialized)
            puts.append(ref)
            slots.append((place, len(waits_for)))
            waits_for.append(ref.hex())

    def _export(self, function: ExportedFunction) -> None:
        if function.id not in self._exported:
            self._exported.add(function.id)
            self._flush_batch()
            context = self.task_context()
            job = context.head.job if context is not None else self.job_id.hex()
            self._call(tasks.export(function.id.hex(), job, function.name, function.pickled, []))

    # ---- values ------------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> ObjectRef[Any]:
        self._check_usable()
        return self._put_serialized(serialization.serialize(value))

    def _put_serialized(self, serialized: serialization.Serialized) -> ObjectRef[Any]:
        self._check_known(serialized.contains)
        with self._lock:
            self._number += 1
            object_id = self.worker_id[:] + self._number.to_bytes(4, "big") + PUT_INDEX.to_bytes(4, "big")
        hexed = object_id.hex()
        contains = [inner.hex() for inner in serialized.contains]
        arrival: Arrival
        if serialized.size <= INLINE_BYTES:
            arrival = packed = serialization.pack(serialized)
            command = objects.put(hexed, packed, len(packed), "", contains)
        else:
            node = self.write_large(hexed, serialized)
            arrival = Located(serialized.size, [node])
            command = objects.put(hexed, b"", serialized.size, node, contains)
        with self._lock:
            self._flush_batch()
            self._table.add_own(object_id)
            self._arrived[object_id] = arrival
            self._call(command)
            self._send_out()
        return counted(object_id)

    def write_large(self, object: str, serialized: serialization.Serialized, tag: bytes = serialization.VALUE) -> str:
        """Write a value to the shared memory of this node (or, without one, send it to some node);
        returns that node's id."""
        welcome = self._channel.welcome
        if welcome is not None:
            try:
                answer = self._ask_node(lambda request: messages.Allocate(request, object, serialized.size))
                self._arena().write(serialized, answer[0], tag)
                return welcome.node
            except NodeDiedError:
                if self._has_node():
                    raise
        return self._upload(object, serialized)

    def _has_node(self) -> bool:
        return self._channel.welcome is not None

    def _upload(self, object: str, serialized: serialization.Serialized) -> str:
        from redray.remote_objects import upload

        return upload(self.query, self._keys, self._address, object, serialization.pack(serialized))

    def _arena(self) -> Any:
        if self._reader is None:
            from redray.store.reader import Reader

            welcome = self._channel.welcome
            assert welcome is not None
            self._reader = Reader(welcome.arena, welcome.capacity)
        return self._reader

    def get(self, refs: list[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        self._check_usable()
        arrived = self._arrived
        deadline = None if timeout is None else time.monotonic() + timeout
        missing = [ref for ref in refs if ref not in arrived]
        if missing:
            self._want(missing)
            failed = self._wait_for_values(missing, deadline)
            if failed is not None:
                self._raise(failed)
        views = self._bring(refs, deadline)
        values = []
        for ref in refs:
            is_error, value = self._load(ref, views[ref])
            if is_error:
                raise _as_raised(value)
            values.append(value)
        return values

    def _wait_for_values(self, missing: list[ObjectRef[Any]], deadline: float | None) -> ObjectRef[Any] | None:
        """Until all have arrived; returns early the first that turns out to be an error."""
        pending = set(missing)
        failed: ObjectRef[Any] | None = None

        def done() -> bool:
            nonlocal failed
            for ref in [ref for ref in pending if ref in self._arrived]:
                pending.discard(ref)
                packed = self._arrived[ref]
                if isinstance(packed, bytes) and serialization.is_error(packed):
                    failed = ref
            return failed is not None or not pending

        if not self._wait_until(done, deadline, waits_for=missing):
            raise GetTimeoutError(
                f"Get timed out: {len(pending)} of {len(missing)} objects were not ready in time, such as "
                f"{next(iter(pending)).hex()}. `redray status` shows what the cluster is doing."
            )
        return failed

    def _raise(self, ref: ObjectRef[Any]) -> None:
        packed = self._arrived[ref]
        assert isinstance(packed, bytes)
        raise _as_raised(serialization.load(packed)[1])

    def _load(self, ref: ObjectRef[Any], packed: bytes | memoryview) -> tuple[bool, Any]:
        try:
            return serialization.load(packed)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            raise RaySystemError(
                f"Object {ref.hex()} cannot be unpickled in this process: {type(error).__name__}: {error}"
            ) from error

    def _bring(self, refs: Iterable[ObjectRef[Any]], deadline: float | None) -> dict[bytes, bytes | memoryview]:
        """The packed bytes of values that have arrived:
        fetched from Redis, or mapped from shared memory, where need be."""
        found: dict[bytes, bytes | memoryview] = {}
        fetch, locate = [], []
        for ref in refs:
            arrival = self._arrived[ref]
            if isinstance(arrival, bytes):
                found[ref] = arrival
            elif isinstance(arrival, Fetch):
                fetch.append(ref)
            elif arrival.view is not None:
                found[ref] = arrival.view
            else:
                locate.append(ref)
        if fetch:
            replies = self.query([("HGET", self._keys.of_object(ref.hex()), "value") for ref in fetch])
            for ref, packed in zip(fetch, replies, strict=True):
                if packed is None:
                    packed = serialization.pack_system_error("ObjectLostError", f"Object {ref.hex()} was freed.")
                found[ref] = self._arrived[ref] = packed
        if locate:
            self._bring_large(locate, deadline, found)
        return found

    def _bring_large(
        self, locate: list[ObjectRef[Any]], deadline: float | None, found: dict[bytes, bytes | memoryview]
    ) -> None:
        ids = list(dict.fromkeys(locate))
        if deadline is not None and all(self._is_on_this_node(ref) for ref in ids):
            deadline = max(deadline, time.monotonic() + MAP_S)  # they are ready and here: timeout=0 may map them
        if not self._has_node():
            found.update((ref, self._download(ref, deadline)) for ref in ids)
            return
        try:
            answers = self._ask_node(
                lambda request: messages.Locate(request, [ref.hex() for ref in ids], -1), deadline, waits_for=ids
            )
        except NodeDiedError:
            if self._has_node():
                raise
            self._bring_large(locate, deadline, found)
            return
        for ref, answer in zip(ids, answers, strict=True):
            packed = self.take_answer(ref.hex(), answer)
            found[ref] = packed
            arrival = self._arrived.get(ref)
            if isinstance(arrival, Located):
                arrival.view = packed

    def _download(self, ref: ObjectRef[Any], deadline: float | None) -> bytes | memoryview:
        """Without a node: from whoever has it. Where nobody does any more, it may be computed again soon."""
        from redray.remote_objects import download

        give_up = time.monotonic() + DOWNLOAD_S
        while isinstance(arrival := self._arrived[ref], Located):
            try:
                arrival.view = download(self.query, self._keys, self._address, ref.hex(), arrival)
                return arrival.view
            except ObjectLostError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(RETRY_S)
            del self._arrived[ref]
            self._asked.discard(ref)
            self._lagged = True  # ask for this one though it is our own
            self._want([ref])
            if not self._wait_until(lambda: ref in self._arrived, deadline, waits_for=[ref]):
                raise GetTimeoutError(f"Get timed out: object {ref.hex()} was not brought here in time.")
        return self._bring([ref], deadline)[ref]

    def take_answer(self, object: str, answer: Any) -> bytes | memoryview:
        """One element of the answer to Locate, as packed bytes."""
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer[0], str):
            return serialization.pack_system_error(answer[0], answer[1])
        view: memoryview = self._arena().read(object, answer[0], answer[1])
        return view

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        self._check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        arrived = self._arrived
        missing = [ref for ref in refs if ref not in arrived]
        if len(refs) - len(missing) < num_returns:
            self._want(missing)
        if fetch_local and self._channel.welcome is not None:
            self._fetch_local(refs)
        pending = {ref for ref in refs if not self._is_here(ref, fetch_local)}

        def done() -> bool:
            for ref in [ref for ref in pending if self._is_here(ref, fetch_local)]:
                pending.discard(ref)
            return len(refs) - len(pending) >= num_returns

        if not done():
            self._wait_until(done, deadline, waits_for=missing, fetching=refs if fetch_local else ())
        ready = [ref for ref in refs if ref not in pending][:num_returns]
        chosen = set(ready)
        return ready, [ref for ref in refs if ref not in chosen]

    def _is_here(self, ref: bytes, local: bool) -> bool:
        arrival = self._arrived.get(ref)
        if arrival is None:
            return False
        if not local or not isinstance(arrival, Located) or arrival.view is not None:
            return True
        welcome = self._channel.welcome
        return welcome is None or welcome.node in arrival.nodes

    def _is_on_this_node(self, ref: bytes) -> bool:
        arrival, welcome = self._arrived.get(ref), self._channel.welcome
        return isinstance(arrival, Located) and welcome is not None and welcome.node in arrival.nodes

    def _fetch_local(self, refs: Iterable[bytes]) -> None:
        """Ask the node to bring what has arrived elsewhere; its answers come while we wait."""
        far = []
        for ref in refs:
            arrival = self._arrived.get(ref)
            if isinstance(arrival, Located) and not arrival.asked and not self._is_here(ref, True):
                arrival.asked = True
                far.append(ref)
        if far:
            with self._lock:
                self._request += 1
                self._locating[self._request] = far
                self._post(messages.Locate(self._request, [ref.hex() for ref in far], -1))
                self._send_out()

    def future(self, ref: ObjectRef[Any]) -> Future[Any]:
        from redray.background import ensure_reader

        self._check_usable()
        future: Future[Any] = Future()
        with self._lock:
            here = ref in self._arrived
            if not here:
                self._futures.setdefault(ref[:], []).append((ref, future))
                self._want([ref])
        if here:
            self.fulfil(ref, future)
        else:
            ensure_reader(self)
        return future

    def fulfil(self, ref: ObjectRef[Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self.get([ref], None)[0])
        except BaseException as error:
            future.set_exception(error)

    def read_for_futures(self) -> None:
        """Read until no future waits any more."""
        self._wait_until(lambda: not self._futures or self._closed, None)

    def fail_futures(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._futures = list(self._futures.values()), {}
        for futures in waiting:
            for _, future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

    @property
    def is_closed(self) -> bool:
        return self._closed

    # ---- control -----------------------------------------------------------------------------------------------------
    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        self._check_usable()
        self._check_known((ref,))
        with self._lock:
            self._flush_batch()
            self._call(tasks.cancel(ref.task().hex(), force))
            self._send_out()

    def kill_actor(self, actor_id: ActorID, no_restart: bool) -> None:
        self._check_usable()
        cause = "The actor is dead because it was killed by `ray.kill`."
        with self._lock:
            self._flush_batch()
            number = self._call(actors.kill(actor_id.hex(), no_restart, cause), wants_reply=True)
            self._send_out()
        self._await_reply(number)

    def lookup_actor(self, name: str, namespace: str) -> ActorDescription | None:
        self._sync()
        id = self.query([("HGET", self._keys.actor_names, f"{namespace}/{name}")])[0]
        return self.describe_actor(ActorID(bytes.fromhex(id.decode()))) if id is not None else None

    def describe_actor(self, actor_id: ActorID) -> ActorDescription | None:
        self._check_usable()
        state, class_name, methods = self.query(
            [("HMGET", self._keys.actor(actor_id.hex()), "state", "class", "methods")]
        )[0]
        if state is None or state.decode() == ActorState.DEAD:
            return None
        return ActorDescription(actor_id, class_name.decode(), serialization.deserialize(methods))

    def list_named_actors(self, all_namespaces: bool) -> list[dict[str, str]]:
        self._sync()
        names = self.query([("HKEYS", self._keys.actor_names)])[0]
        pairs = [name.decode().rpartition("/")[::2] for name in names]
        return [
            {"name": name, "namespace": space} for space, name in pairs if all_namespaces or space == self.namespace
        ]

    def nodes(self) -> list[dict[str, Any]]:
        from redray.cluster_view import nodes

        return nodes(self.query, self._keys)

    def cluster_resources(self) -> dict[str, float]:
        from redray.cluster_view import total_resources

        return total_resources(self.query, self._keys)

    def available_resources(self) -> dict[str, float]:
        from redray.cluster_view import free_resources

        return free_resources(self.query, self._keys)

    def task_context(self) -> TaskContext | None:
        return None

    @property
    def node_id(self) -> NodeID | None:
        welcome = self._channel.welcome
        return NodeID(bytes.fromhex(welcome.node)) if welcome is not None else None

    def query(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Plain reads, one round trip, on a connection of their own."""
        with self._query_lock:
            for last in (False, True):
                if self._query is None:
                    self._query = Connection.open(self._address, 5.0, f"redray-query-{self._worker[:8]}")
                try:
                    replies = self._query.pipeline(commands, 30.0)
                    break
                except ConnectionLost:
                    self._query.close()
                    self._query = None
                    if last:
                        raise
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _sync(self) -> None:
        """Until Redis has everything this process said: a read that follows sees it."""
        self._check_usable()
        with self._lock:
            self._flush_batch()
            number = self._call(objects.hold([]), wants_reply=True)
            self._send_out()
        self._await_reply(number)

    # ---- refs (RefKeeper) --------------------------------------------------------------------------------------------
    def count(self, object_id: bytes) -> None:
        with self._lock:
            self._table.count(object_id)
        if self.kind == "driver" and not self._unsent.is_set():
            self._wake_flusher()

    def pin(self, object_id: bytes) -> None:
        self.count(object_id)

    # ---- sending -----------------------------------------------------------------------------------------------------
    def _call(self, command: Command, wants_reply: bool = False) -> int:
        return self._channel.call(self._inbox.take_seen(), command, wants_reply)

    def _post(self, message: messages.AnyMessage) -> None:
        """A frame that is no call, behind what was submitted before and ahead of releases:
        a result may contain what is let go."""
        self._flush_submissions()
        self._channel.post(message)

    def _flush_batch(self) -> None:
        """Holds first, then what was submitted, then releases: nothing is let go before its successor is known."""
        self._flush_submissions()
        self._flush_releases()

    def _flush_submissions(self) -> None:
        holds = self._table.take_holds()
        for first in range(0, len(holds), SLICE):
            self._call(objects.hold([id.hex() for id in holds[first : first + SLICE]]))
        if self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._call(tasks.submit("", batch))

    def _flush_releases(self) -> None:
        if refs.dropped:
            releases = self._table.take_releases()
            for id in releases:
                self._arrived.pop(id, None)
                self._asked.discard(id)
                self._outstanding.discard(id)
            for first in range(0, len(releases), SLICE):
                self._call(objects.release([id.hex() for id in releases[first : first + SLICE]]))
        if self._reader is not None and self._reader.unpinned:
            unpinned = self._reader.unpinned
            self._channel.post(messages.Unpin([unpinned.popleft() for _ in range(len(unpinned))]))

    def _has_dropped(self) -> bool:
        return bool(refs.dropped or (self._reader is not None and self._reader.unpinned))

    def _flush(self) -> None:
        with self._lock:
            self._flush_batch()
            self._send_out()

    def _send_out(self) -> None:
        """What the channel takes of what was said. The lock is held."""
        try:
            self._channel.flush()
        except ChannelLost as error:
            self._reroute(error, self._channel)

    def _wake_flusher(self) -> None:
        self._unsent.set()
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_now_and_then, name="redray-flusher", daemon=True)
            self._flusher.start()

    def _flush_now_and_then(self) -> None:
        """What the main thread left in the batch, or dropped (`__del__` tells nobody),
        before it went on with other things."""
        while not self._closed:
            if self._unsent.wait(DROPPED_S):
                time.sleep(FLUSH_S)
                self._unsent.clear()
            elif not self._has_dropped():
                continue
            if self._closed or self._lost is not None:
                return
            try:
                self._flush()
            except (ConnectionError, RaySystemError) as error:
                self._lost = self._lost or error

    # ---- hearing -----------------------------------------------------------------------------------------------------
    def _want(self, missing: Iterable[bytes]) -> None:
        """Ask for values that will not come by themselves: those of others, and all once the inbox has overflowed."""
        self._check_known(missing)
        with self._lock:
            own = self.worker_id
            ask = []
            for ref in missing:
                if ref not in self._asked and (
                    self._lagged or ref[:8] != own or ref[:12] + FIRST not in self._outstanding
                ):
                    ask.append(ref[:])
            self._asked.update(ask)
            self._flush_batch()
            for first in range(0, len(ask), SLICE):
                self._call(objects.wait([ref.hex() for ref in ask[first : first + SLICE]]))
            self._flush()

    def _wait_until(
        self,
        done: Callable[[], bool],
        deadline: float | None,
        waits_for: Iterable[bytes] = (),
        fetching: Iterable[bytes] = (),
    ) -> bool:
        """Read, or let another thread read for us, until `done()`. False when the deadline passes first."""
        if done():
            return True
        blocked = self._begin_block(waits_for)
        try:
            while True:
                if self._reading.acquire(blocking=False):
                    try:
                        while not done():
                            left = None if deadline is None else deadline - time.monotonic()
                            if left is not None and left <= 0:
                                self._pump(0)
                                return done()
                            self._pump(left)
                            if fetching:
                                self._fetch_local(fetching)
                        return True
                    finally:
                        self._reading.release()
                        self._tell_followers()
                if self._follow(done, deadline):
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return done()
        finally:
            self._end_block(blocked)

    def _follow(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Sleep until the reading thread says that something came, or stops reading."""
        with self._news:
            self._followers += 1
            try:
                if not done() and self._reading.locked():
                    left = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
                    self._news.wait(left)
            finally:
                self._followers -= 1
        return done()

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()

    def _begin_block(self, waits_for: Iterable[bytes]) -> bool:
        return False

    def _end_block(self, blocked: bool) -> None:
        pass

    def _pump(self, timeout: float | None) -> None:
        """One step of reading, by the thread that holds `_reading`:
        wait for something at most `timeout` s, take it in."""
        if self._lost is not None:
            raise self._lost
        if self._inbox.fileno() < 0:
            self._inbox.connect()
            self._check_cluster()
        if self._channel.has_heard:
            self._hear_channel(select.POLLIN)
            return
        poll = select.poll()
        self._inbox.prepare()
        channel, inbox = self._channel.fileno(), self._inbox.fileno()
        poll.register(channel, select.POLLIN | (select.POLLOUT if self._channel.wants_to_write else 0))
        if inbox >= 0:
            poll.register(inbox, select.POLLIN)
        limit = 1.0 if inbox >= 0 else 0.05
        ready = poll.poll((limit if timeout is None else max(0.0, min(timeout, limit))) * 1000)
        for fd, event in ready:
            if fd == channel:
                self._hear_channel(event)
            else:
                self._hear_inbox()
        if not ready and (self._batch or self._has_dropped()):
            self._flush()
        if ready:
            self._tell_followers()

    def _hear_channel(self, event: int) -> None:
        if event & select.POLLOUT:
            with self._lock:
                self._send_out()
        if event & ~select.POLLOUT:
            channel = self._channel
            try:
                heard = channel.receive()
            except ChannelLost as error:
                self._reroute(error, channel)
                return
            for message in heard:
                self._hear(message)

    def _hear_inbox(self) -> None:
        messages = self._inbox.receive()
        if messages:
            for kind, id, data in messages:
                self._take_news(kind, id, data)
            self._inbox.commit()

    def _take_news(self, kind: str, id: str, data: bytes) -> None:
        if kind == Message.AGAIN:
            self._catch_up()
            return
        object_id = bytes.fromhex(id)
        self._outstanding.discard(object_id)
        if object_id in self._limited:
            self._pending_calls[self._limited.pop(object_id)] -= 1
        if object_id not in self._table:
            return
        if kind == Message.VALUE:
            self._arrived[object_id] = data
        elif kind == Message.FETCH:
            self._arrived[object_id] = FETCH
        elif kind == Message.LOCATED:
            size, *nodes = data.decode().split(" ")
            self._arrived[object_id] = Located(int(size), nodes)
        if object_id in self._futures:
            self._fulfil_later(self._futures.pop(object_id))

    def _fulfil_later(self, due: list[tuple[ObjectRef[Any], Future[Any]]]) -> None:
        """A large value needs an answer that this thread must read: another one fulfils."""
        from redray.background import ensure_reader

        for ref, future in due:
            ensure_reader(self).put(ref, future)

    def _catch_up(self) -> None:
        """The inbox overflowed: ask for everything that has not arrived."""
        self._lagged = True
        self._asked.clear()
        with self._lock:
            missing = [id for id in self._table.ids() if id not in self._arrived and id[12:] != b"\xff\xff\xff\xfe"]
        self._want(missing)

    def _hear(self, message: Any) -> None:
        kind = type(message)
        if kind is messages.Ack:
            self._calls.acknowledge(message.number)
            for number, outcome, detail in message.failures:
                self._call_failed(number, outcome, detail)
        elif kind is messages.Reply:
            located = self._locating.pop(message.request, None)
            if located is None:
                self._answers[message.request] = message
            else:
                self._take_located(located, message)
        elif kind is messages.CallReply:
            self._replies[message.number] = message.reply
        else:
            self._hear_work(message)

    def _hear_work(self, message: Any) -> None:
        """A driver gets no work."""

    def _take_located(self, ids: list[bytes], message: messages.Reply) -> None:
        for id, answer in zip(ids, message.value, strict=True):
            arrival = self._arrived.get(id)
            packed = self.take_answer(id.hex(), answer)
            if isinstance(arrival, Located):
                arrival.view = packed

    def _call_failed(self, number: int, outcome: str, detail: str) -> None:
        """The first refusal says why; those after it only follow from it."""
        if self._lost is None:
            text = f"Redis refused a call of this process: {detail}"
            if outcome in ("JOB_ENDED", "FENCED", "GAP"):
                text = f"The cluster takes no more calls of this process ({outcome}): its job has ended."
            self._lost = RaySystemError(text)

    def _ask_node(
        self,
        make: Callable[[int], messages.AnyMessage],
        deadline: float | None = None,
        waits_for: Iterable[bytes] = (),
    ) -> Any:
        with self._lock:
            self._request += 1
            request = self._request
            self._flush_batch()  # its releases too: what they free may be what an Allocate waits for
            self._post(make(request))
            self._send_out()
        if not self._wait_until(lambda: request in self._answers, deadline, waits_for):
            raise GetTimeoutError("Get timed out: the values are ready, and were not brought to this node in time.")
        answer = self._answers.pop(request)
        if answer.error:
            raise system_error(answer.error, answer.detail)
        return answer.value

    def _await_reply(self, number: int) -> Any:
        self._wait_until(lambda: number in self._replies, None)
        reply = self._replies.pop(number)
        if isinstance(reply, str):
            raise RaySystemError(f"Redis refused a call: {reply}")
        return reply

    def _check_known(self, ids: Iterable[bytes]) -> None:
        """Every ref that was made or received under this session is counted: one that is not is of another cluster."""
        for id in ids:
            if id not in self._table:
                raise ValueError(
                    f"ObjectRef {id.hex()} does not belong to this cluster: "
                    "its session has ended, and its value with it."
                )

    # ---- faults and the end ------------------------------------------------------------------------------------------
    def _check_usable(self) -> None:
        if self._closed:
            raise RaySystemError("This session was shut down: call redray.init() again.")
        if self._lost is not None:
            raise self._lost
        if os.getpid() != self._pid:
            raise RaySystemError(
                "This process was forked from one that uses redray, and cannot use its connections: call redray in the "
                "parent, or start a task instead of a fork."
            )

    def _check_cluster(self) -> None:
        """Called when Redis does not answer. A session whose Redis is its own knows that the cluster is gone."""

    def _reroute(self, cause: ChannelLost, channel: NodeChannel | DirectChannel) -> None:
        """`channel` is lost: go another way, unless another thread has done so meanwhile."""
        self._lost = ClusterLostError(f"The connection to the cluster is lost: {cause}")
        raise self._lost

    def close(self) -> None:
        if self._closed:
            return
        try:
            if self._lost is None and os.getpid() == self._pid:
                self._flush()
        except (ConnectionError, RaySystemError):
            pass  # nobody is left to say goodbye to
        self._closed = True
        self._unsent.set()
        for act in self.on_close:
            act()
        self._channel.close()
        self._inbox.close()
        if self._query is not None:
            self._query.close()
        if self._reader is not None:
            self._reader.close()


def _packed_retry(retry: Any) -> Any:
    """True, or the pickled classes as hexadecimal text:
    heads hold no bytes, because Redis' msgpack does not know them."""
    if retry is True:
        return True
    from redray import cloudpickle

    return cloudpickle.dumps(tuple(retry)).hex()


def _as_raised(error: BaseException) -> BaseException:
    return error.as_instanceof_cause() if isinstance(error, RayTaskError) else error
