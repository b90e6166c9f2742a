"""A node's object store: the index says where, the arena is the memory."""

from __future__ import annotations

from pathlib import Path

from redray.exceptions import ObjectStoreFullError
from redray.store.arena import HEADER, Arena
from redray.store.index import Entry, Index
from redray.store.spill_book import Place, SpillBook


class LocalStore:
    """Used by the node's loop only: every method is a few dictionary operations, and none reserves or copies memory.

    Objects and processes are named by their ids in hexadecimal.
    """

    def __init__(self, directory: str | Path, capacity: int) -> None:
        self._arena = Arena.create(Path(directory), capacity)
        self._index = Index(HEADER + capacity, HEADER)
        self.evicted: list[str] = []
        """Copies dropped to make room, for the node to report and clear. What its disk has is still here."""
        self.empty_files: list[str] = []
        """Files on disk that hold nothing any more, for the node to remove and clear."""
        self._spilled = SpillBook()

    def create(self, object: str, size: int, owner: str, secondary: bool = False) -> int:
        """Give `owner` room to write an object, and return its offset.

        A `secondary` copy of what another node holds may be dropped again, oldest use first, when space is short.
        Raises ObjectStoreFullError if the object does not fit even so, ValueError if it is here already.
        """
        if object in self._spilled:
            raise ValueError(f"Object {object} is in the store already (on disk).")
        return self._make(object, size, owner, secondary)

    def create_restored(self, object: str, size: int, owner: str) -> int:
        """Room to read an object back to from disk; errors as in `create`. The copy on disk stays until it is freed."""
        return self._make(object, size, owner, secondary=False, on_disk=True)

    def _make(self, object: str, size: int, owner: str, secondary: bool, on_disk: bool = False) -> int:
        offset = self._index.create(object, size, owner, secondary, on_disk)
        if offset is None and size <= self.capacity:
            offset = self._make_by_evicting(object, size, owner, secondary, on_disk)
        if offset is None:
            raise ObjectStoreFullError(
                f"Object {object} of {size} bytes does not fit: {self.used} of the store's {self.capacity} bytes hold "
                f"objects that are still needed (the longest free piece is {self._index.largest_hole} bytes). "
                f"Drop references, or start the node with more object_store_memory."
            )
        return offset

    def _make_by_evicting(self, object: str, size: int, owner: str, secondary: bool, on_disk: bool) -> int | None:
        while (victim := self._index.evict()) is not None:
            if not victim.on_disk:
                self.evicted.append(victim.object)
            offset = self._index.create(object, size, owner, secondary, on_disk)
            if offset is not None:
                return offset
        return None

    # ---- on disk -----------------------------------------------------------------------------------------------------
    def spillable(self, size: int) -> list[Entry]:
        """What should go to disk to make `size` bytes of room, as far as there is such: pin it while it is written."""
        return self._index.spillable(size)

    def spilled(self, entry: Entry, place: Place) -> bool:
        """It is on disk, so its memory may go when room is needed. False if it was freed meanwhile."""
        if not self._index.spilled(entry):
            return False
        self._spilled.add(entry.object, place)
        return True

    def on_disk(self, object: str) -> Place | None:
        return self._spilled.place(object)

    def has(self, object: str) -> bool:
        """Whether it is here, in memory or on disk."""
        return self.contains(object) or object in self._spilled

    # ---- an object's life --------------------------------------------------------------------------------------------
    def seal(self, object: str, owner: str) -> bool:
        """The owner has written it. False if it was freed meanwhile: then it is gone, and nobody may be told of it."""
        return self._index.seal(object, owner)

    def abort(self, object: str, owner: str) -> bool:
        """The owner will not write it after all."""
        return self._index.abort(object, owner)

    def contains(self, object: str) -> bool:
        return self._index.find(object) is not None

    def locate(self, object: str) -> tuple[int, int] | None:
        """(offset, size) of a sealed object."""
        entry = self._index.find(object)
        return (entry.offset, entry.size) if entry is not None else None

    def pin(self, object: str, process: str) -> bool:
        """Once for each time that a process is told where the object is. False if it is not here."""
        return self._index.pin(object, process)

    def unpin(self, object: str, process: str) -> bool:
        return self._index.unpin(object, process)

    def promote(self, object: str) -> None:
        """The other copies are gone: keep this one until it is freed."""
        self._index.promote(object)

    def free(self, object: str) -> bool:
        """Forget it; its memory comes back when its last reader and its writer are done. True if that is now."""
        emptied = self._spilled.free(object)
        if emptied is not None:
            self.empty_files.append(emptied)
        return self._index.free(object)

    def release_process(self, process: str) -> list[str]:
        """The process is dead: drop its pins, and the objects it had not sealed, which are returned."""
        return self._index.release_process(process)

    def view(self, object: str) -> memoryview:
        """The bytes of a sealed object. Raises KeyError if it is not here. Pin it for as long as the view lives."""
        entry = self._index.find(object)
        if entry is None:
            raise KeyError(object)
        return self._arena.view(entry.offset, entry.size).toreadonly()

    @property
    def arena(self) -> Arena:
        """For threads of this process that write what they were given by `create`, or read what is pinned for them."""
        return self._arena

    @property
    def path(self) -> str:
        return str(self._arena.path)

    @property
    def capacity(self) -> int:
        return self._arena.capacity

    @property
    def used(self) -> int:
        return self._index.used

    def statistics(self) -> dict[str, int]:
        spilled = {"spilled": len(self._spilled), "spilled_bytes": self._spilled.bytes}
        return self._index.statistics() | {"reserved": self._arena.reserved} | spilled

    def validate(self) -> None:
        self._index.validate()

    def close(self) -> None:
        """Unlink the memory: readers keep what they have mapped, and it is gone with the last of them."""
        self._arena.unlink()
        self._arena.close()
