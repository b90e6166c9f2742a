"""A node's objects: room for writers, values brought here for readers, copies for other nodes."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redray.exceptions import ObjectLostError, ObjectStoreFullError, OutOfDiskError, RayError
from redray.gcs import objects
from redray.gcs.schema import Message
from redray.messages import IS_HERE, Allocate, Locate, Reply
from redray.store.fetch import Pulls
from redray.store.local_store import LocalStore
from redray.store.mailbox import Mailbox
from redray.store.transfer import TransferServer
from redray.worker.process_link import ProcessLink
from redray.worker.redis_link import RedisLink
from redray.worker.spiller import Spiller

PULL_TIMEOUT_S = 10.0
GIVE_UP_S = 30.0
ROOM_S = 3.0  # how long a put waits for room when the store is full
RETRY_S = 0.2

TryForRoom = Callable[[bool], bool]
"""Called until it returns True; its argument says that this is the last time."""

Found = Callable[[Any], None]
"""Called once with what became of a request: True (it is here), its packed value, or an exception."""


class Wanted:
    """An object that somebody here waits for. `coming`: it is being pulled, or read back from disk."""

    def __init__(self) -> None:
        self.waiters: list[Found] = []
        self.coming = False
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
        spill_to: Sequence[str],
    ) -> None:
        self.store = store
        self.mailbox = Mailbox()
        self._link = link
        self._node = node
        self._address_of = address_of
        self._here = here
        self._touched = touched  # frames were posted to this process outside of its turn
        self._wanted: dict[str, Wanted] = {}
        # For room that frees on their way, or writes to disk, will make: (bytes, what to try, until when).
        self._waiting: deque[tuple[int, TryForRoom, float]] = deque()
        self._spiller = Spiller(store, self.mailbox, spill_to, self._serve_waiting)
        self._pulls = Pulls(secret)
        self._server = TransferServer(listen, secret, self._open_object, self._open_upload)
        self._dup = os.dup(store.arena.fd)
        self.transfer_address = self._server.address

    # ---- local processes ---------------------------------------------------------------------------------------------
    def allocate(self, process: ProcessLink, message: Allocate) -> None:
        def try_it(is_last: bool) -> bool:
            """Answers the process if there is room, or if this is the last attempt."""
            if process.at_end:
                return True
            if self.store.has(message.object):  # an item of a stream, which an earlier attempt has written here
                process.post(Reply(message.request, [IS_HERE]))
                self._touched(process)
                return True
            try:
                offset = self.store.create(message.object, message.size, process.worker)
            except (ObjectStoreFullError, ValueError) as error:
                if not is_last and isinstance(error, ObjectStoreFullError):
                    return False
                failure = self._why_full(error)
                process.post(Reply(message.request, None, type(failure).__name__, str(failure)))
            else:
                process.post(Reply(message.request, [offset]))
            self._touched(process)
            return True

        self._when_there_is_room(message.size, try_it)

    def _when_there_is_room(self, size: int, try_it: TryForRoom) -> None:
        """First come, first served: a large one is not overtaken for ever by small ones."""
        if self._waiting or not try_it(size > self.store.capacity):
            self._waiting.append((size, try_it, time.monotonic() + ROOM_S))
            self._serve_waiting()
        self._report_evictions()

    def _serve_waiting(self) -> None:
        now = time.monotonic()
        while self._waiting:
            first = self._waiting.popleft()  # while it is tried, others may be tried and may line up
            size, try_it, deadline = first
            if not try_it(False):
                if self._spiller.make_room(size) or now < deadline:
                    self._waiting.appendleft(first)
                    break
                try_it(True)
        self._report_evictions()

    def _why_full(self, error: Exception) -> Exception:
        """A full disk is the reason, where there is one."""
        if isinstance(error, ValueError):
            return ObjectStoreFullError(str(error))
        return OutOfDiskError(f"{error} {self._spiller.failure}") if self._spiller.failure else error

    def locate(self, process: ProcessLink, message: Locate) -> None:
        results: list[Any] = [None] * len(message.objects)
        left = len(message.objects)

        def found(at: int, object: str, result: Any) -> None:
            nonlocal left
            results[at] = self._answer(process, object, result)
            left -= 1
            if left == 0:
                process.post(Reply(message.request, results))
                self._touched(process)

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
        self._spiller.remove_empty()
        self._serve_waiting()

    def unpin(self, process: ProcessLink, ids: list[str]) -> None:
        for object in ids:
            self.store.unpin(object, process.worker)
        self._serve_waiting()

    def release_process(self, worker: str) -> None:
        self.store.release_process(worker)
        self._serve_waiting()

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
            if self.store.on_disk(object) is not None:
                self._read_back(object, wanted)
            else:
                self._link.call(objects.wait([object]))
        wanted.waiters.append(found)

    def _read_back(self, object: str, wanted: Wanted) -> None:
        """From this node's disk, when there is room."""
        wanted.coming = True

        def try_it(is_last: bool) -> bool:
            place = self.store.on_disk(object)
            if place is None:
                self._came(object, ObjectLostError(object))  # freed meanwhile
                return True
            try:
                offset = self.store.create_restored(object, place.size, self._node)
            except (ObjectStoreFullError, ValueError) as error:
                if is_last:
                    self._resolve(object, self._why_full(error))
                return is_last
            target = lambda: self.store.arena.writable(offset, place.size)  # noqa: E731
            self._spiller.read_back(object, place, target, self._was_read)
            return True

        place = self.store.on_disk(object)
        assert place is not None
        self._when_there_is_room(place.size, try_it)

    def _was_read(self, object: str, error: RayError | None) -> None:
        if error is None:
            self._came(object, None)
            return
        sys.stderr.write(f"{error}\n")
        self.store.abort(object, self._node)
        self.free(object)
        self._link.call(objects.located(False, [object]))  # this copy is lost: another one, or another run, will do
        self._came(object, error)

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
            elif not wanted.coming:
                self._pull(object, wanted, int(size), [node for node in nodes if node != self._node])

    def _pull(self, object: str, wanted: Wanted, size: int, nodes: list[str]) -> None:
        if not nodes:
            self._failed(object, ObjectLostError(object))
            return
        wanted.coming = True
        source = nodes[hash(self._node) % len(nodes)]

        def with_address(address: tuple[str, int] | None) -> None:
            if address is None:
                self._came(object, ObjectLostError(object))
                return

            def try_it(is_last: bool) -> bool:
                try:
                    offset = self.store.create(object, size, self._node, secondary=True)
                except (ObjectStoreFullError, ValueError) as error:
                    if not is_last and isinstance(error, ObjectStoreFullError):
                        return False
                    self._came(object, error if isinstance(error, RayError) else ObjectLostError(object))
                    return True
                target = lambda: self.store.arena.writable(offset, size)  # noqa: E731
                self._pulls.start(address, object, size, target, PULL_TIMEOUT_S, pulled)
                return True

            self._when_there_is_room(size, try_it)

        def pulled(id: str, error: RayError | None) -> None:
            self.mailbox.post(self._pulled, id, error)

        self._address_of(source, with_address)

    def _pulled(self, object: str, error: RayError | None) -> None:
        if error is not None:
            self.store.abort(object, self._node)
        self._came(object, error, is_new=True)

    def _came(self, object: str, error: RayError | None, is_new: bool = False) -> None:
        """What was written here by this node is whole, or is not to come."""
        wanted = self._wanted.get(object)
        if wanted is not None:
            wanted.coming = False
        if error is None and not self.store.seal(object, self._node):
            error = ObjectLostError(object)
        if error is not None:
            self._failed(object, error)
            return
        self._here.add(object)
        if is_new:
            self._link.call(objects.located(True, [object]))
        self._resolve(object, True)

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
        self._serve_waiting()
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
            return self._open_on_disk(object)
        return self._dup, place[0], place[1], lambda: self.mailbox.post(self.store.unpin, object, "transfer")

    def _open_on_disk(self, object: str) -> tuple[int, int, int, Callable[[], None]] | None:
        """From the file as it is; what cannot be sent so comes back to memory, where the next one who asks finds it."""
        place = self.mailbox.ask(self.store.on_disk, object)
        file = self._spiller.open(place) if place is not None else None
        if place is None or file is None:
            if place is not None:
                self.mailbox.post(self.want, object, lambda _: None)
            return None
        return file, place.offset, place.size, lambda: os.close(file)

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
        self._spiller.close()
        os.close(self._dup)
        self.store.close()
