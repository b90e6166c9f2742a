"""A worker's session without a node: a test puts work in, and reads what the worker sent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from redray.messages import Done, Exit, Returned, Run, StreamNews, Yielded
from redray.refs import ObjectRef
from redray.spec import TASK, TaskHead, pack
from redray.store import serialization
from redray.task_context import TaskContext
from redray.worker.host import Outgoing, Work
from redray.worker.marks import Mark, Marks
from redray.worker.producer import Producer

INLINE = 100 * 1024
current: ContextVar[TaskContext | None] = ContextVar("current", default=None)


class FakeHost:
    """Functions are given by name instead of being pickled; values beyond `INLINE` are kept in `stored`."""

    def __init__(self, functions: dict[str, Any] | None = None) -> None:
        self.functions = functions or {}
        self.values: dict[str, tuple[bool, Any]] = {}
        self.stored: dict[tuple[str, int], bytes] = {}
        self.sent: list[Outgoing] = []
        self.batches: list[int] = []
        self._posted: list[Outgoing] = []
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._changed = threading.Condition()

    # ---- for the test ------------------------------------------------------------------------------------------------
    def give(self, *works: Work) -> None:
        for work in works:
            self._queue.put(work)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"sent so far: {self.sent}"

    def dones(self) -> list[Done]:
        return [message for message in self.sent if isinstance(message, Done)]

    def done(self, task: str) -> Done:
        """The `Done` of `task`, waited for."""
        self.wait_for(lambda: any(done.task == task for done in self.dones()))
        return next(done for done in self.dones() if done.task == task)

    # ---- Host --------------------------------------------------------------------------------------------------------
    def next_run(self, wait: bool) -> Work | None:
        if wait:
            self.flush()
            return self._queue.get()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def post(self, message: Outgoing) -> None:
        with self._changed:
            self._posted.append(message)

    def flush(self) -> None:
        with self._changed:
            if self._posted:
                self.batches.append(len(self._posted))
                self.sent += self._posted
                self._posted.clear()
                self._changed.notify_all()

    def last_submitted(self) -> int:
        return 0

    def load_function(self, function: str, pickled: bytes | None) -> Any:
        return self.functions[function]

    def load_values(self, ids: list[str], inline: dict[str, bytes]) -> list[tuple[bool, Any]]:
        return [serialization.load(inline[id]) if id in inline else self.values[id] for id in ids]

    def store_return(self, task: str, index: int, value: Any) -> Returned:
        serialized = serialization.serialize(value)
        packed = serialization.pack(serialized)
        contains = [ref.hex() for ref in serialized.contains]
        if len(packed) <= INLINE:
            return Returned(packed, len(packed), contains)
        self.stored[task, index] = packed
        return Returned(None, len(packed), contains)

    def put(self, value: Any) -> ObjectRef[Any]:
        return self.put_packed(serialization.pack(serialization.serialize(value)))

    def put_packed(self, packed: bytes) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = ObjectRef(bytes.fromhex(task_id()) + b"\xff" * 4)
        self.values[ref.hex()] = serialization.load(packed)
        return ref

    def begin_producing(self, producer: Producer) -> None:
        producer.open()

    def end_producing(self, producer: Producer) -> None:
        pass

    def wait_for_producer(self, producer: Producer) -> None:
        """As a node whose reader is always fast enough."""
        count = sum(isinstance(message, Yielded) and message.task == producer.task for message in self.sent)
        producer.hear(StreamNews(producer.task, count, count, 0))

    def set_context(self, context: TaskContext | None) -> None:
        current.set(context)


_number = 0


def task_id() -> str:
    global _number
    _number += 1
    return f"{_number:024x}"


def payload(*args: Any, slots: list[tuple[int | str, int]] | None = None, **kwargs: Any) -> bytes:
    if not args and not kwargs:
        return b""
    return serialization.pack(serialization.serialize((args, kwargs, slots or [])))


def run(function: str, body: bytes = b"", attempt: int = 1, values: dict[str, bytes] | None = None, **head: Any) -> Run:
    """A run of `function`; further keywords are fields of the head."""
    gpus = head.pop("gpus", [])
    fields: dict[str, Any] = {
        "task": task_id(),
        "kind": TASK,
        "job": "00" * 8,
        "name": function,
        "demand": "CPU:1",
        "num_returns": 1,
        "max_retries": 0,
        "waits_for": [],
        "keeps": [],
        "depth": 0,
        "priority": 0,
        "parent": "",
        "function": function,
    }
    return Run(pack(TaskHead(**{**fields, **head}), body), attempt, values or {}, None, gpus, serial=_number)


def mark() -> Mark:
    marks = Marks(4)
    number = marks.take()
    assert number is not None
    return marks.mark(number)


def result(done: Done, index: int = 0) -> Any:
    packed = done.returns[index].inline
    assert packed is not None
    return serialization.deserialize(packed)


EXIT = Exit("the test is over")
