"""The session of a worker process: it submits and waits like a driver's, and hands the executor its runs."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import msgspec

from redray import messages
from redray.channel import ChannelLost, DirectChannel, NodeChannel
from redray.exceptions import RaySystemError
from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.ids import JobID, WorkerID
from redray.sending import DROPPED_S, FIRST
from redray.session import Session, install
from redray.spec import TASK, unpack_head
from redray.store import serialization
from redray.task_context import TaskContext
from redray.values import INLINE_BYTES
from redray.worker.host import Work
from redray.worker.producer import Producer

_context: ContextVar[TaskContext | None] = ContextVar("redray_task", default=None)


class WorkerSession(Session):
    def __init__(self, worker: str, channel: socket.socket) -> None:
        import os

        id = WorkerID(bytes.fromhex(worker))
        calls_hello = lambda last: messages.Hello(messages.VERSION, "worker", worker, "", os.getpid(), last)  # noqa: E731
        # The way to Redis is only known from the node's answer; nothing is read before that.
        super().__init__("worker", id, Address(scheme="unix", host="", port=0, path="/"), Keys(), JobID(id[:]), "")
        self._channel = NodeChannel(self._calls, calls_hello, "", channel, self._lock)
        welcome = self._channel.welcome
        self._move_to(Address.parse(welcome.config["redis"]), Keys(welcome.config["tag"]))
        public = msgspec.structs.replace(self.redis_address, password="").url()
        self.address_info = {"address": public, "session_dir": ""}
        self._work: deque[Work] = deque()
        self._functions: dict[str, Any] = {}
        self._producers: dict[str, Producer] = {}
        self._waits_in_task = False
        install(self)

    def task_context(self) -> TaskContext | None:
        return _context.get()

    # ---- what the executor asks (worker.host.Host) -------------------------------------------------------------------
    def next_run(self, wait: bool) -> Work | None:
        if self._work:
            return self._work.popleft()
        if not wait:
            return None
        try:
            self._flush()
            self._wait_until(lambda: bool(self._work), None)
        except (ChannelLost, RaySystemError):
            return messages.Exit("the node is gone")
        return self._work.popleft()

    def post(self, message: messages.AnyMessage) -> None:
        with self._lock:
            self._post(message)

    def flush(self) -> None:
        try:
            self._flush()
        except (ChannelLost, RaySystemError):
            return  # the next `next_run` says so

    def load_function(self, function: str, pickled: bytes | None) -> Any:
        found = self._functions.get(function)
        if found is None:
            if pickled is None:
                pickled = self._ask_node(lambda request: messages.GetFunction(request, function))
            from redray import cloudpickle

            found = self._functions[function] = cloudpickle.loads(pickled)
        return found

    def load_values(self, ids: list[str], inline: dict[str, bytes]) -> list[tuple[bool, Any]]:
        far = [object for object in dict.fromkeys(ids) if object not in inline]
        found: dict[str, bytes | memoryview] = dict(inline)
        if far:
            answers = self._ask_node(lambda request: messages.Locate(request, far, -1))
            for object, answer in zip(far, answers, strict=True):
                found[object] = self.take_answer(object, answer)
        return [serialization.load(found[object]) for object in ids]

    def store_return(self, task: str, index: int, value: Any) -> messages.Returned:
        serialized = serialization.serialize(value)
        contains = [object_id.hex() for object_id in serialized.contains]
        self._handle(serialized.contains)
        if serialized.size <= INLINE_BYTES:
            packed = serialization.pack(serialized)
            return messages.Returned(packed, len(packed), contains)
        self.write_large(f"{task}{index:08x}", serialized)
        return messages.Returned(None, serialized.size, contains)

    def last_submitted(self) -> int:
        return self._number

    def begin_producing(self, producer: Producer) -> None:
        self._producers[producer.task] = producer
        producer.open()

    def end_producing(self, producer: Producer) -> None:
        self._producers.pop(producer.task, None)

    def wait_for_producer(self, producer: Producer) -> None:
        # Whoever waits for its reader waits for a process: one that may be a driver, and do what it likes.
        reader = bytes.fromhex(producer.task[:16]) + FIRST + FIRST
        self._wait_until(producer.may_go_on, None, waits_for=[reader] if producer.is_ahead() else [])

    def fetch_package(self, package: str) -> Iterator[bytes]:
        key = self._keys.package(package)
        parts, have = self.query([("HMGET", key, "parts", "have")])[0]
        if parts is None or int(have or 0) < int(parts):
            raise LookupError(f"The package {package} is not in the cluster (any more): upload it again.")
        for index in range(int(parts)):
            part = self.query([("HGET", key, index)])[0]
            if part is None:
                raise LookupError(f"The package {package} went away while it was read: its job has ended.")
            yield part

    def set_context(self, context: TaskContext | None) -> None:
        _context.set(context)

    # ---- what differs from a driver ----------------------------------------------------------------------------------
    def _hear_work(self, message: Any) -> None:
        if type(message) is messages.JobInfo:
            self.job_id = JobID(bytes.fromhex(message.job))
            self.namespace = str(message.config.get("namespace") or "")
            self._live_in(message.config.get("runtime_env") or {}, message.environment)
        if type(message) is messages.TakeBack:
            self._hand_back(message.serial)
            return
        if type(message) is messages.StreamNews:
            if (producer := self._producers.get(message.task)) is not None:
                producer.hear(message)
            return
        self._work.append(message)

    def _hand_back(self, serial: int) -> None:
        back = self._take_unstarted(lambda run: run.serial <= serial)
        with self._lock:
            self._post(messages.HandedBack(back))
            self._channel.flush()

    def _take_unstarted(self, wanted: Callable[[messages.Run], bool]) -> list[int]:
        """Serials of the tasks that were sent ahead and have not started; an actor's calls stay, in their order."""
        taken: list[int] = []
        kept: deque[Work] = deque()
        while self._work:
            work = self._work.popleft()
            if type(work) is messages.Run and wanted(work) and unpack_head(work.spec).kind == TASK:
                taken.append(work.serial)
            else:
                kept.append(work)
        self._work = kept
        return taken

    def _comes_soon(self, waits_for: Iterable[bytes]) -> bool:
        """Inside a task, of values that somebody else makes. Its own it would have heard of: they are not ready."""
        own = self.worker_id
        ids = list(waits_for)
        return bool(ids) and _context.get() is not None and all(id[:8] != own for id in ids)

    def _begin_block(self, waits_for: Iterable[bytes]) -> bool:
        """About to wait inside a task: what was sent ahead goes back, and the CPU to others meanwhile."""
        context = _context.get()
        ids = [id.hex() for id in waits_for]
        if context is None or not ids:
            return False
        with self._lock:
            self._post(messages.Blocked(ids, self._take_unstarted(lambda run: True)))
            self._channel.flush()
        return True

    def _end_block(self, blocked: bool) -> None:
        if blocked:
            with self._lock:
                self._post(messages.Unblocked())

    def _pump(self, timeout: float | None) -> None:
        if self._lost is None and self._inbox.fileno() < 0 and not self._needs_inbox():
            self._pump_channel(timeout)
            return
        super()._pump(timeout)

    def _needs_inbox(self) -> bool:
        return bool(self._asked or self._outstanding)

    def _pump_channel(self, timeout: float | None) -> None:
        """A worker that has asked nobody anything needs no inbox, and no connection for it."""
        if self._channel.has_heard:
            self._hear_channel(select.POLLIN)
            return
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN | (select.POLLOUT if self._channel.wants_to_write else 0))
        if timeout is None and (
            len(self._table) or self._has_dropped() or (self._reader is not None and self._reader.watched)
        ):
            timeout = DROPPED_S  # threads of an actor may drop refs while this one waits
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        if not ready and self._has_dropped():
            self._flush()
        for _, event in ready:
            self._hear_channel(event)
        if ready:
            self._tell_followers()

    def _reroute(self, cause: ChannelLost, channel: NodeChannel | DirectChannel) -> None:
        self._lost = RaySystemError("The node of this worker is gone.")
        raise self._lost

    def close(self) -> None:
        self._closed = True
