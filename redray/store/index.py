"""Which objects lie in the arena, who reads them, and when their memory may be used again. Pure: no I/O, no clock.

    create -> CREATED  (its owner writes)     seal -> SEALED  (anyone reads)     free, eviction -> gone

What is freed while somebody reads it, or still writes it, disappears from sight at once (a new object of the same id
may be created) and gives its memory back only after its last pin, or its writer, is gone. Pins count per object id and
not per copy, since a process that drops a view does not know which copy it had: a doomed copy outlives every pin of
its id.
"""

from __future__ import annotations

from enum import Enum

from redray.store.allocator import Allocator


class State(Enum):
    CREATED = "created"
    SEALED = "sealed"


class Entry:
    """One copy of an object. `secondary`: another node has the object too; `on_disk`: so has this node's disk. Either
    way this copy may go when space is short."""

    __slots__ = ("object", "offset", "on_disk", "owner", "secondary", "size", "state")

    def __init__(self, object: str, offset: int, size: int, owner: str, secondary: bool, on_disk: bool) -> None:
        self.object = object
        self.offset = offset
        self.size = size
        self.owner = owner
        self.secondary = secondary
        self.on_disk = on_disk
        self.state = State.CREATED


class Index:
    def __init__(self, capacity: int, base: int = 0) -> None:
        self._allocator = Allocator(capacity, base)
        self._entries: dict[str, Entry] = {}  # what can be found
        self._doomed: dict[str, list[Entry]] = {}  # freed, but still read or written
        self._unsealed: dict[str, list[Entry]] = {}  # by owner, doomed ones included
        self._pins: dict[str, dict[str, int]] = {}  # object -> process -> count
        self._pinned_by: dict[str, set[str]] = {}  # process -> objects
        # Sealed and not pinned, least recently used first: what may go at once, and what must be written to disk first.
        self._evictable: dict[str, Entry] = {}
        self._spillable: dict[str, Entry] = {}

    # ---- an object's life --------------------------------------------------------------------------------------------
    def create(self, object: str, size: int, owner: str, secondary: bool = False, on_disk: bool = False) -> int | None:
        """The offset where `owner` is to write the object, or None if no free piece is long enough.

        Raises ValueError if the object is here already: its earlier copy must be freed first.
        """
        if object in self._entries:
            raise ValueError(f"Object {object} is in the store already ({self._entries[object].state.value}).")
        offset = self._allocator.allocate(size)
        if offset is None:
            return None
        entry = self._entries[object] = Entry(object, offset, size, owner, secondary, on_disk)
        self._unsealed.setdefault(owner, []).append(entry)
        return offset

    def seal(self, object: str, owner: str) -> bool:
        """The owner has written it: let it be read. False if it was freed meanwhile, or is not this owner's to seal."""
        entry = self._take_unsealed(object, owner)
        if entry is None:
            return False
        entry.state = State.SEALED
        if self._entries.get(object) is not entry:
            self._release_doomed(object)
            return False
        self._note_idle(entry)
        return True

    def abort(self, object: str, owner: str) -> bool:
        """The owner gave up writing it, and no longer does. False if it has no unsealed object of that id."""
        entry = self._take_unsealed(object, owner)
        if entry is None:
            return False
        self._forget_unwritten(entry)
        return True

    def find(self, object: str) -> Entry | None:
        """The copy that may be read, which counts as a use of it."""
        entry = self._entries.get(object)
        if entry is None or entry.state is not State.SEALED:
            return None
        for idle in (self._evictable, self._spillable):
            if object in idle:
                idle[object] = idle.pop(object)
        return entry

    def free(self, object: str) -> bool:
        """Forget the object. True if its memory is free now; False if it is still in use, or unknown."""
        entry = self._entries.pop(object, None)
        if entry is None:
            return False
        self._note_in_use(object)
        if entry.state is State.SEALED and object not in self._pins:
            self._allocator.free(entry.offset)
            return True
        self._doomed.setdefault(object, []).append(entry)
        return False

    def promote(self, object: str) -> None:
        """This copy is the only one now: keep it until it is freed."""
        entry = self._entries.get(object)
        if entry is not None:
            entry.secondary = False
            self._note_in_use(object)
            self._note_idle(entry)

    def evict(self) -> Entry | None:
        """Drop the least recently used copy that may be dropped, and say which; None if there is none."""
        entry = next(iter(self._evictable.values()), None)
        if entry is not None:
            self.free(entry.object)
        return entry

    def spillable(self, size: int) -> list[Entry]:
        """The least recently used copies that nobody reads and only memory has, `size` bytes of them if there are."""
        found: list[Entry] = []
        for entry in self._spillable.values():
            if size <= 0:
                break
            found.append(entry)
            size -= entry.size
        return found

    def spilled(self, entry: Entry) -> bool:
        """The disk has this copy now, too. False if it was freed meanwhile."""
        if self._entries.get(entry.object) is not entry:
            return False
        entry.on_disk = True
        self._note_in_use(entry.object)
        self._note_idle(entry)
        return True

    # ---- readers -----------------------------------------------------------------------------------------------------
    def pin(self, object: str, process: str) -> bool:
        """One more reader in `process`. False if there is nothing to read."""
        if self.find(object) is None:
            return False
        self._note_in_use(object)
        pins = self._pins.setdefault(object, {})
        pins[process] = pins.get(process, 0) + 1
        self._pinned_by.setdefault(process, set()).add(object)
        return True

    def unpin(self, object: str, process: str) -> bool:
        """One reader less. False if `process` has no pin of it, as after it was declared dead."""
        pins = self._pins.get(object)
        if pins is None or process not in pins:
            return False
        pins[process] -= 1
        if not pins[process]:
            self._drop_pins(object, process)
        return True

    def release_process(self, process: str) -> list[str]:
        """A process is dead: its pins go, and what it had not sealed goes too. Returns those unsealed objects."""
        for object in sorted(self._pinned_by.get(process, ())):
            self._drop_pins(object, process)
        abandoned = self._unsealed.pop(process, [])
        for entry in abandoned:
            self._forget_unwritten(entry)
        return [entry.object for entry in abandoned]

    # ---- figures -----------------------------------------------------------------------------------------------------
    @property
    def used(self) -> int:
        return self._allocator.used

    @property
    def largest_hole(self) -> int:
        return self._allocator.largest_hole

    def statistics(self) -> dict[str, int]:
        return {
            "capacity": self._allocator.capacity - self._allocator.base,
            "used": self.used,
            "touched": self._allocator.touched - self._allocator.base,
            "largest_hole": self.largest_hole,
            "objects": len(self._entries),
            "unsealed": sum(map(len, self._unsealed.values())),
            "pinned": len(self._pins),
            "doomed": sum(map(len, self._doomed.values())),
            "evictable": len(self._evictable),
            "spillable": len(self._spillable),
        }

    def validate(self) -> None:
        """Raise AssertionError unless all tables agree. For tests and `redray doctor`."""
        self._allocator.validate()
        entries = [*self._entries.values(), *(entry for doomed in self._doomed.values() for entry in doomed)]
        taken = sorted(entry.offset for entry in entries)
        assert taken == sorted(self._allocator._taken), "memory is taken that no object owns, or the reverse"
        unsealed = {id(entry) for entry in entries if entry.state is State.CREATED}
        assert unsealed == {id(entry) for group in self._unsealed.values() for entry in group}, (
            "unsealed objects differ"
        )
        for object, doomed in self._doomed.items():
            waits = object in self._pins or any(entry.state is State.CREATED for entry in doomed)
            assert doomed and waits, f"{object} is doomed and nothing holds it"
        by_process = {(process, object) for process, objects in self._pinned_by.items() for object in objects}
        assert by_process == {(process, object) for object, pins in self._pins.items() for process in pins}, (
            "pins differ"
        )
        assert all(count > 0 for pins in self._pins.values() for count in pins.values()), "a pin that counts nothing"
        idle = {entry.object: entry for entry in self._entries.values() if self._is_idle(entry)}
        evictable = {object for object, entry in idle.items() if entry.secondary or entry.on_disk}
        assert evictable == set(self._evictable), "evictable objects differ"
        assert set(idle) - evictable == set(self._spillable), "spillable objects differ"

    # ---- inside ------------------------------------------------------------------------------------------------------
    def _is_idle(self, entry: Entry) -> bool:
        return entry.state is State.SEALED and entry.object not in self._pins

    def _note_idle(self, entry: Entry) -> None:
        if self._is_idle(entry):
            (self._evictable if entry.secondary or entry.on_disk else self._spillable)[entry.object] = entry

    def _note_in_use(self, object: str) -> None:
        self._evictable.pop(object, None)
        self._spillable.pop(object, None)

    def _take_unsealed(self, object: str, owner: str) -> Entry | None:
        entries = self._unsealed.get(owner, [])
        for index, entry in enumerate(entries):
            if entry.object == object:
                del entries[index]
                if not entries:
                    del self._unsealed[owner]
                return entry
        return None

    def _forget_unwritten(self, entry: Entry) -> None:
        """Nobody writes this entry any more, and nobody could read it."""
        if self._entries.get(entry.object) is entry:
            del self._entries[entry.object]
        else:
            doomed = self._doomed[entry.object]
            doomed.remove(entry)
            if not doomed:
                del self._doomed[entry.object]
        self._allocator.free(entry.offset)

    def _drop_pins(self, object: str, process: str) -> None:
        pins = self._pins[object]
        del pins[process]
        objects = self._pinned_by[process]
        objects.discard(object)
        if not objects:
            del self._pinned_by[process]
        if not pins:
            del self._pins[object]
            self._release_doomed(object)
            entry = self._entries.get(object)
            if entry is not None:
                self._note_idle(entry)

    def _release_doomed(self, object: str) -> None:
        if object in self._pins:
            return
        kept = []
        for entry in self._doomed.pop(object, ()):
            if entry.state is State.CREATED:
                kept.append(entry)
            else:
                self._allocator.free(entry.offset)
        if kept:
            self._doomed[object] = kept
