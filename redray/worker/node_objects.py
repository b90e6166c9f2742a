"""A node's objects: room for writers, values brought here for readers, copies for other nodes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from redray.exceptions import ObjectLostError, ObjectStoreFullError, RayError
from redray.gcs import objects
from redray.gcs.schema import Message
from redray.messages import IS_HERE, Allocate, Locate, Reply
from redray.store.fetch import Pulls
from redray.store.local_store import LocalStore
from redray.store.mailbox import Mailbox
from redray.store.transfer import TransferServer
from redray.worker.process_link import ProcessLink
from redray.worker.redis_link import RedisLink

PULL_TIMEOUT_S = 10.0
GIVE_UP_S = 30.0
ROOM_S = 3.0  # how long a put waits for room when the store is full
RETRY_S = 0.2

Found = Callable[[Any], None]
"""Called once with what became of a request: True (it is here), its packed value, or an exception."""


class Wanted:
    """An object that somebody here waits for."""

    def __init__(self) -> None:
        self.waiters: list[Found] = []
        self.pulling = False
        self.since = 0.0  # of the first failed pull
        self.retry_at = 0.0


class NodeObjects:
    """`here` mirrors what is sealed in the store, for the scheduler."""

    def __init__(
        self,
        store: LocalStore,
        link: RedisLink,
        node: str,
        listen: tuple[str, int],
        secret: bytes,
        address_of: Callable[[str, Callable[[tuple[str, int] | None], None]], None],
        here: set[str],
        touched: Callable[[ProcessLink], object],
    ) -> None:
        self.store = store
        self.mailbox = Mailbox()
        self._link = link
        self._node = node
        self._address_of = address_of
        self._here = here
        self._touched = touched  # frames were posted to this process outside of its turn
        self._wanted: dict[str, Wanted] = {}
        # For room that frees on their way will make.
        self._waiting: deque[tuple[ProcessLink, Allocate, float]] = deque()
        self._pulls = Pulls(secret)
        self._server = TransferServer(listen, secret, self._open_object, self._open_upload)
        self._dup = os.dup(store.arena.fd)
        self.transfer_address = self._server.address

    # ---- local processes ---------------------------------------------------------------------------------------------
    def allocate(self, process: ProcessLink, message: Allocate) -> None:
        if self._waiting or not self._try_allocate(process, message, message.size > self.store.capacity):
            self._waiting.append((process, message, time.monotonic() + ROOM_S))

    def _try_allocate(self, process: ProcessLink, message: Allocate, is_last: bool) -> bool:
        """Answers the process if there is room, or if this is the last attempt."""
        if self.store.contains(message.object):  # an item of a stream, which an earlier attempt has written here
            process.post(Reply(message.request, [IS_HERE]))
            self._touched(process)
            return True
        try:
            offset = self.store.create(message.object, message.size, process.worker)
        except (ObjectStoreFullError, ValueError) as error:
            if is_last or isinstance(error, ValueError):
                process.post(Reply(message.request, None, "ObjectStoreFullError", str(error)))
                self._touched(process)
                return True
            return False
        self._report_evictions()
        process.post(Reply(message.request, [offset]))
        self._touched(process)
        return True

    def _allocate_waiting(self) -> None:
        """First come, first served: a large one is not overtaken for ever by small ones."""
        now = time.monotonic()
        while self._waiting:
            process, message, deadline = self._waiting[0]
            if not process.at_end and not self._try_allocate(process, message, now >= deadline):
                return
            self._waiting.popleft()

    def locate(self, process: ProcessLink, message: Locate) -> None:
        results: list[Any] = [None] * len(message.objects)
        left = len(message.objects)

        def found(at: int, object: str, result: Any) -> None:
            nonlocal left
            results[at] = self._answer(process, object, result)
            left -= 1
            if left == 0:
                process.post(Reply(message.request, results))

        for at, object in enumerate(message.objects):
            self.want(object, lambda result, at=at, object=object: found(at, object, result))  # type: ignore[misc]

    def _answer(self, process: ProcessLink, object: str, result: Any) -> Any:
        if isinstance(result, BaseException):
            return [type(result).__name__, str(result)]
        if isinstance(result, bytes):
            return result
        place = self.store.locate(object)
        if place is None or not self.store.pin(object, process.worker):
            return ["ObjectLostError", f"Object {object} was freed while it was asked for."]
        return list(place)

    def seal(self, object: str, owner: str) -> bool:
        sealed = self.store.seal(object, owner)
        if sealed:
            self._here.add(object)
            self._resolve(object, True)
        return sealed

    def free(self, object: str) -> None:
        self._here.discard(object)
        self.store.free(object)
        self._allocate_waiting()

    def unpin(self, process: ProcessLink, ids: list[str]) -> None:
        for object in ids:
            self.store.unpin(object, process.worker)
        self._allocate_waiting()

    def release_process(self, worker: str) -> None:
        self.store.release_process(worker)
        self._allocate_waiting()

    def _report_evictions(self) -> None:
        if self.store.evicted:
            evicted = list(self.store.evicted)
            self.store.evicted.clear()
            self._here.difference_update(evicted)
            self._link.call(objects.located(False, evicted))

    # ---- bringing objects here ---------------------------------------------------------------------------------------
    def want(self, object: str, found: Found) -> None:
        if self.store.contains(object):
            found(True)
            return
        wanted = self._wanted.get(object)
        if wanted is None:
            wanted = self._wanted[object] = Wanted()
            self._link.call(objects.wait([object]))
        wanted.waiters.append(found)

    def news(self, kind: str, object: str, data: bytes) -> None:
        """An inbox message about an object: a value, or where it is."""
        wanted = self._wanted.get(object)
        if wanted is None:
            return
        if kind == Message.VALUE:
            self._resolve(object, data)
        elif kind == Message.LOCATED:
            size, *nodes = data.decode().split(" ")
            if self.store.contains(object):
                self._resolve(object, True)
            elif not wanted.pulling:
                self._pull(object, wanted, int(size), [node for node in nodes if node != self._node])

    def _pull(self, object: str, wanted: Wanted, size: int, nodes: list[str]) -> None:
        if not nodes:
            self._failed(object, ObjectLostError(object))
            return
        wanted.pulling = True
        source = nodes[hash(self._node) % len(nodes)]

        def start(address: tuple[str, int] | None) -> None:
            if address is None:
                self._pulled(object, ObjectLostError(object))
                return
            try:
                offset = self.store.create(object, size, self._node, secondary=True)
            except (ObjectStoreFullError, ValueError) as error:
                self._pulled(object, error if isinstance(error, RayError) else ObjectLostError(object))
                return
            self._report_evictions()
            arena = self.store.arena
            done = lambda id, error: self.mailbox.post(self._pulled, id, error)  # noqa: E731
            self._pulls.start(address, object, size, lambda: arena.writable(offset, size), PULL_TIMEOUT_S, done)

        self._address_of(source, start)

    def _pulled(self, object: str, error: RayError | None) -> None:
        wanted = self._wanted.get(object)
        if wanted is not None:
            wanted.pulling = False
        if error is not None:
            self.store.abort(object, self._node)
            self._failed(object, error)
            return
        if self.store.seal(object, self._node):
            self._here.add(object)
            self._link.call(objects.located(True, [object]))
            self._resolve(object, True)
        else:
            self._failed(object, ObjectLostError(object))

    def _failed(self, object: str, error: RayError) -> None:
        """Another copy, a new computation or the reaper will be heard of: ask again, for a while."""
        wanted = self._wanted.get(object)
        if wanted is None:
            return
        now = time.monotonic()
        wanted.since = wanted.since or now
        if now - wanted.since > GIVE_UP_S:
            self._resolve(object, error)
        else:
            wanted.retry_at = now + RETRY_S

    def tick(self) -> None:
        self._allocate_waiting()
        now = time.monotonic()
        again = [object for object, wanted in self._wanted.items() if wanted.retry_at and wanted.retry_at <= now]
        for object in again:
            self._wanted[object].retry_at = 0.0
        if again:
            self._link.call(objects.wait(again))

    @property
    def is_waiting(self) -> bool:
        return bool(self._wanted or self._waiting)

    def _resolve(self, object: str, result: Any) -> None:
        wanted = self._wanted.pop(object, None)
        for found in wanted.waiters if wanted is not None else ():
            found(result)

    # ---- other nodes (in the transfer server's thread) ---------------------------------------------------------------
    def _open_object(self, object: str) -> tuple[int, int, int, Callable[[], None]] | None:
        def pin() -> tuple[int, int] | None:
            return self.store.locate(object) if self.store.pin(object, "transfer") else None

        place = self.mailbox.ask(pin)
        if place is None:
            return None
        return self._dup, place[0], place[1], lambda: self.mailbox.post(self.store.unpin, object, "transfer")

    def _open_upload(self, object: str, size: int) -> tuple[Callable[[], memoryview], Callable[[bool], None]]:
        offset = self.mailbox.ask(self.store.create, object, size, "transfer")

        def finish(complete: bool) -> None:
            if complete:
                self.mailbox.ask(self.seal, object, "transfer")
            else:
                self.mailbox.post(self.store.abort, object, "transfer")

        return lambda: self.store.arena.writable(offset, size), finish

    def close(self) -> None:
        self.mailbox.close()
        self._server.close()
        self._pulls.close()
        os.close(self._dup)
        self.store.close()
