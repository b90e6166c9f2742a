"""What a node's memory has no room for goes to disk, and comes back when somebody wants it.

The loop decides and keeps the books (`store/local_store.py`); threads read and write. An object is pinned while it is
written, and its memory is dropped only when room is needed: what is wanted again soon needs no reading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from redray.exceptions import OutOfDiskError, RayError
from redray.store.disks import RETRY_S, Disks, checksum
from redray.store.index import Entry
from redray.store.job_threads import JobThreads
from redray.store.local_store import LocalStore
from redray.store.mailbox import Mailbox
from redray.store.spill_book import Place

FUSE = 64 << 20  # bytes: so much is written to a file at a time, if there is as much
CLOSE_S = 5.0
_PIN = "spill"

Restored = Callable[[str, "RayError | None"], object]


class Spiller:
    """`made_room()` is called in the loop each time a write has ended, well or not."""

    def __init__(
        self, store: LocalStore, mailbox: Mailbox, places: Sequence[str], made_room: Callable[[], object]
    ) -> None:
        self.failure: OutOfDiskError | None = None  # of the last write, if it found no room
        self._store = store
        self._mailbox = mailbox
        self._made_room = made_room
        self._disks = Disks(places)
        self._threads = JobThreads("spill", 2)  # a reader need not wait for a writer
        self._writing = False
        self._next_try = 0.0  # after a write that failed
        self._files = 0

    # ---- out ---------------------------------------------------------------------------------------------------------
    def make_room(self, size: int) -> bool:
        """Begin to write what was used least recently. True while that goes on: there will be more room, then."""
        if self._writing:
            return True
        if self.failure is not None and time.monotonic() < self._next_try:
            return False
        entries = self._store.spillable(max(size, FUSE))
        if not entries:
            return False
        for entry in entries:
            self._store.pin(entry.object, _PIN)
        self._writing = True
        self._files += 1
        name = f"objects-{self._files}"
        self._threads.start(lambda: self._write(name, entries))
        return True

    def _write(self, name: str, entries: list[Entry]) -> None:
        """In a thread."""
        places: list[Place] = []
        failure: Exception | None = None
        try:
            views = [self._store.arena.view(entry.offset, entry.size).toreadonly() for entry in entries]
            file = self._disks.write(name, views)
            at = 0
            for view in views:
                places.append(Place(file, at, len(view), checksum(view)))
                at += len(view)
        except Exception as error:  # whatever it is, somebody waits for the room and must hear of it
            failure = error
        self._mailbox.post(self._written, entries, places, failure)

    def _written(self, entries: list[Entry], places: list[Place], failure: Exception | None) -> None:
        self._writing = False
        for entry in entries:
            self._store.unpin(entry.object, _PIN)
        if failure is not None:
            self._next_try = time.monotonic() + RETRY_S
            self.failure = (
                failure
                if isinstance(failure, OutOfDiskError)
                else OutOfDiskError(f"Objects could not be written to disk: {failure}.")
            )
        else:
            self.failure = None
            kept = [self._store.spilled(entry, place) for entry, place in zip(entries, places, strict=True)]
            if not any(kept):
                self._remove(places[0].file)
        self._made_room()

    # ---- back --------------------------------------------------------------------------------------------------------
    def read_back(self, object: str, place: Place, target: Callable[[], memoryview], done: Restored) -> None:
        """Fill `target()` with the object; then `done(object, error or None)` is called in the loop."""
        self._threads.start(lambda: self._read(object, place, target, done))

    def _read(self, object: str, place: Place, target: Callable[[], memoryview], done: Restored) -> None:
        """In a thread."""
        failure: RayError | None = None
        try:
            memory = target()
            self._disks.read(place.file, place.offset, memory)
            if checksum(memory) != place.checksum:
                failure = OutOfDiskError(f"{place.file} gave other bytes for object {object} than were written there.")
        except Exception as error:  # as above
            failure = OutOfDiskError(f"Object {object} could not be read back from disk: {error}.")
        self._mailbox.post(done, object, failure)

    def open(self, place: Place) -> int | None:
        """A descriptor of the file, to send from; None where there is none. The caller closes it."""
        try:
            return self._disks.open(place.file)
        except OSError:
            return None  # it was freed meanwhile, or is damaged: reading it back says which

    def remove_empty(self) -> None:
        """Files that hold nothing any more go."""
        while self._store.empty_files:
            self._remove(self._store.empty_files.pop())

    def _remove(self, file: str) -> None:
        self._threads.start(lambda: self._remove_in_thread(file))

    def _remove_in_thread(self, file: str) -> None:
        try:
            self._disks.remove(file)
        except Exception as error:
            self._mailbox.post(_log, f"{file} could not be removed: {error}")

    def close(self) -> None:
        self._threads.close()
        self._threads.join(CLOSE_S)
        self._disks.close()


def _log(text: str) -> None:
    os.write(2, f"{text}\n".encode())
