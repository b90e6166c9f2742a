"""Values of a session: put, get, wait, and futures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from redray import messages
from redray.arrivals import Arrival, Fetch, Located
from redray.exceptions import GetTimeoutError, NodeDiedError, ObjectLostError, RaySystemError, RayTaskError
from redray.gcs import objects
from redray.gcs.command import Command
from redray.hearing import Hearing
from redray.ids import PUT_INDEX
from redray.refs import ObjectRef, counted
from redray.store import serialization

INLINE_BYTES = 100 * 1024
MAP_S = 5.0  # for a value on this node to be mapped, whatever the timeout of its get
DOWNLOAD_S = 30.0  # for an object that is computed again meanwhile
RETRY_S = 0.2


class Values(Hearing):
    """Makes values known to the cluster, and brings values here."""

    # ---- put ---------------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> ObjectRef[Any]:
        self._check_usable()
        try:
            serialized = serialization.serialize(value)
        except TypeError as error:
            raise TypeError(f"Could not serialize the put value: {error}") from error
        return self._put_serialized(serialized)

    def _put_serialized(self, serialized: serialization.Serialized) -> ObjectRef[Any]:
        self._check_known(serialized.contains)
        self._handle(serialized.contains)
        contains = [inner.hex() for inner in serialized.contains]
        if serialized.size <= INLINE_BYTES:
            return self.put_packed(serialization.pack(serialized), contains)
        object_id = self._new_object()
        node = self.write_large(object_id.hex(), serialized)
        command = objects.put(object_id.hex(), b"", serialized.size, node, contains)
        return self._record_put(object_id, Located(serialized.size, [node]), command)

    def put_packed(self, packed: bytes, contains: Sequence[str] = ()) -> ObjectRef[Any]:
        """Put a value, or an error, that is packed already and small."""
        object_id = self._new_object()
        return self._record_put(object_id, packed, objects.put(object_id.hex(), packed, len(packed), "", contains))

    def _new_object(self) -> bytes:
        with self._lock:
            if self._flusher is None and self.kind == "driver":
                self._start_flusher()  # it sees when the ref is dropped, whatever the driver does then
            self._number += 1
            return self.worker_id[:] + self._number.to_bytes(4, "big") + PUT_INDEX.to_bytes(4, "big")

    def _record_put(self, object_id: bytes, arrival: Arrival, command: Command) -> ObjectRef[Any]:
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
                if answer[0] != messages.IS_HERE:
                    self._arena().write(serialized, answer[0], tag)
                return welcome.node
            except NodeDiedError:
                if self._has_node():
                    raise
        return self._upload(object, serialized)

    def _upload(self, object: str, serialized: serialization.Serialized) -> str:
        from redray.remote_objects import upload

        return upload(self.query, self._keys, self._address, object, serialization.pack(serialized))

    # ---- get ---------------------------------------------------------------------------------------------------------
    def get(self, refs: list[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        self._check_usable()
        arrived = self._arrived
        deadline = None if timeout is None else time.monotonic() + timeout
        missing = [ref for ref in refs if ref not in arrived]
        if missing:
            self._want(missing)
            failed = self._wait_for_values(missing, deadline)
            if failed is not None:
                self._handle(refs)
                self._raise(failed)
        views = self._bring(refs, deadline)
        values = []
        for ref in refs:
            is_error, value = self._load(ref, views[ref])
            if is_error:
                self._handle(refs)
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

    def _handle(self, refs: Iterable[bytes]) -> None:
        """Somebody has seen, or will see, their errors. One `get` raises one error for all that it was asked for."""
        for ref in refs:
            self._unhandled.handle(ref)

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
            self._note(self._arrived.get(ref), packed)

    def _download(self, ref: ObjectRef[Any], deadline: float | None) -> bytes | memoryview:
        """Without a node: from whoever has it. Where nobody does any more, it may be computed again soon."""
        from redray.remote_objects import download

        give_up = time.monotonic() + DOWNLOAD_S
        while isinstance(arrival := self._arrived[ref], Located):
            try:
                packed = download(self.query, self._keys, self._address, ref.hex(), arrival)
                arrival.keep(packed)
                return packed
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

    # ---- wait --------------------------------------------------------------------------------------------------------
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

    def _is_on_this_node(self, ref: bytes) -> bool:
        arrival, welcome = self._arrived.get(ref), self._channel.welcome
        return isinstance(arrival, Located) and welcome is not None and welcome.node in arrival.nodes

    # ---- futures -----------------------------------------------------------------------------------------------------
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

    def _fulfil_later(self, due: list[tuple[ObjectRef[Any], Future[Any]]]) -> None:
        """A large value needs an answer that this thread must read: another one fulfils."""
        from redray.background import ensure_reader

        for ref, future in due:
            ensure_reader(self).put(ref, future)

    def read_for_futures(self) -> None:
        """Read until no future waits any more."""
        self._wait_until(lambda: self._closed or not self._has_futures(), None)

    def _has_futures(self) -> bool:
        return bool(self._futures)

    def fail_futures(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._futures = list(self._futures.values()), {}
        for futures in waiting:
            for _, future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)


def _as_raised(error: BaseException) -> BaseException:
    return error.as_instanceof_cause() if isinstance(error, RayTaskError) else error
