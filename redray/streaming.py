"""The reader's side of streams: what this process has heard of its generators' items, and how it waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from redray.background import ensure_reader
from redray.gcs import streams
from redray.generators import EndOfStream, ObjectRefGenerator
from redray.ids import STREAM_INDEX
from redray.refs import ObjectRef, counted, dropped
from redray.sending import FIRST
from redray.store import serialization
from redray.values import Values

_HANDLE = STREAM_INDEX.to_bytes(4, "big")


class SessionStream:
    """One generator's items, numbered from 1: `heard` of are published and counted here, `taken` were handed out."""

    def __init__(self, session: Streaming, task: bytes, backpressure: int) -> None:
        self.session = session
        self.task = task
        self.handle = task + _HANDLE
        self.end: ObjectRef[None] = counted(task + FIRST)
        self.heard = 0
        self.taken = 0
        self.gave_end = False  # its error was handed out, in place of an item
        self.backpressure = backpressure  # items that the task may be ahead, 0: as many as it likes
        self.futures: list[Future[None]] = []

    def item(self, index: int) -> bytes:
        return self.task + index.to_bytes(4, "big")

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        return self.session.take_item(self, timeout)

    def is_ready(self) -> bool:
        return self.taken < self.heard or self.session.has_ended(self)

    def is_over(self) -> bool:
        return self.taken >= self.heard and self.session.has_ended(self) and not self.session.has_failed(self)

    def future(self) -> Future[None] | None:
        return self.session.stream_future(self)

    def resolve(self) -> None:
        """Something came: whoever waits looks again."""
        waiting = self.session.take_waiting(self)
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


class Streaming(Values):
    """Any number of streams, each read by one thread at a time. The lock is held where their books are written."""

    def begin_stream(self, task: bytes, backpressure: int) -> ObjectRefGenerator[Any]:
        """The generator of a call that is being submitted. The lock is held."""
        self._table.add_own(task + FIRST)
        stream = SessionStream(self, task, backpressure)
        self._table.add_own(stream.handle)
        self._streams[task] = stream
        return ObjectRefGenerator(stream)

    # ---- reading -----------------------------------------------------------------------------------------------------
    def take_item(self, stream: SessionStream, timeout: float | None) -> ObjectRef[Any] | None:
        """See `redray.generators.Stream.take`."""
        self._check_usable()
        if not stream.is_ready():
            deadline = None if timeout is None else time.monotonic() + timeout
            self._want([stream.end])
            if not self._wait_until(stream.is_ready, deadline, waits_for=[stream.end]):
                return None
        with self._lock:
            if stream.taken < stream.heard:
                stream.taken += 1
                self._tell_taken(stream)
                return counted(stream.item(stream.taken))
            if self.has_failed(stream):
                stream.gave_end = True
                self._table.add_own(stream.end[:])
                return counted(stream.end[:])
        raise EndOfStream

    def _tell_taken(self, stream: SessionStream) -> None:
        """Let a task go on that waits for this."""
        if stream.backpressure:
            self._flush_batch()
            self._call(streams.consume(stream.task.hex(), stream.taken, 0))
            self._send_out()

    def has_ended(self, stream: SessionStream) -> bool:
        return stream.end in self._arrived

    def has_failed(self, stream: SessionStream) -> bool:
        """Whether the end is an error that was not handed out yet. A good end is the smallest of values: None."""
        end = self._arrived.get(stream.end)
        if end is None or stream.gave_end:
            return False
        return not isinstance(end, bytes) or serialization.is_error(end)

    # ---- news --------------------------------------------------------------------------------------------------------
    def _hear_item(self, stream: SessionStream, object_id: bytes) -> None:
        index = int.from_bytes(object_id[12:], "big")
        if index > stream.heard:
            self._hear_up_to(stream, index)

    def _hear_up_to(self, stream: SessionStream, index: int) -> None:
        """Items are published in order: who hears of one knows that those before it are there."""
        with self._lock:
            if stream.task in self._streams:
                for number in range(stream.heard + 1, index + 1):
                    self._table.add_own(stream.item(number))
                stream.heard = max(stream.heard, index)

    # ---- the end of a generator --------------------------------------------------------------------------------------
    def _end_stream(self, handle: bytes) -> None:
        """The generator is gone: let go of what it has not handed out, and have the rest dropped."""
        stream = self._streams.pop(handle[:12], None)
        if stream is None:
            return
        dropped.extend(stream.item(number) for number in range(stream.taken + 1, stream.heard + 1))
        if not self.has_ended(stream) or self._lagged:
            self._call(streams.consume(stream.task.hex(), streams.GONE, stream.heard))

    # ---- waiting -----------------------------------------------------------------------------------------------------
    def stream_future(self, stream: SessionStream) -> Future[None] | None:
        self._check_usable()
        with self._lock:
            if stream.is_ready():
                return None
            future: Future[None] = Future()
            stream.futures.append(future)
            self._want([stream.end])
        ensure_reader(self)
        return future

    def take_waiting(self, stream: SessionStream) -> list[Future[None]]:
        with self._lock:  # else one could be added behind our back, and wait for ever
            waiting, stream.futures = stream.futures, []
        return waiting

    def _has_futures(self) -> bool:
        return super()._has_futures() or any(stream.futures for stream in list(self._streams.values()))

    def fail_futures(self, error: BaseException) -> None:
        super().fail_futures(error)
        for stream in list(self._streams.values()):
            for future in self.take_waiting(stream):
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

    def wait_any(
        self, waitables: list[Any], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        """`wait` for refs and generators: a generator is ready when its next item is, or its end."""
        self._check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        refs = [each for each in waitables if isinstance(each, ObjectRef)]
        ends = [each._generator_ref for each in waitables if not isinstance(each, ObjectRef)]
        missing = [ref for ref in (*refs, *ends) if ref not in self._arrived]
        self._want(missing)
        fetching: Iterable[bytes] = refs if fetch_local else ()
        if fetch_local and self._has_node():
            self._fetch_local(refs)

        def is_ready(each: Any) -> bool:
            if isinstance(each, ObjectRef):
                return self._is_here(each, fetch_local)
            return bool(each._stream.is_ready())

        def done() -> bool:
            return sum(map(is_ready, waitables)) >= num_returns

        self._wait_until(done, deadline, waits_for=missing, fetching=fetching)
        ready = [each for each in waitables if is_ready(each)][:num_returns]
        chosen = set(map(id, ready))
        return ready, [each for each in waitables if id(each) not in chosen]
