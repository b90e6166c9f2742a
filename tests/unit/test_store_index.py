"""The object table and its allocator, beside a model that knows nothing of holes, lists or sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from redray.store.allocator import LARGE, LINE, PAGE, Allocator
from redray.store.index import Index

CAPACITY = 40 * LINE


def filled(*sizes: int, secondary: bool = False) -> tuple[Index, list[int]]:
    index = Index(CAPACITY)
    offsets = []
    for number, size in enumerate(sizes):
        offset = index.create(f"o{number}", size, "w", secondary)
        assert offset is not None
        offsets.append(offset)
        assert index.seal(f"o{number}", "w")
    return index, offsets


def test_freed_memory_is_used_again_before_fresh_memory() -> None:
    index, offsets = filled(640, 640, 640)
    touched = index.statistics()["touched"]
    assert index.free("o1")
    assert index.create("again", 640, "w") == offsets[1]
    assert index.statistics()["touched"] == touched


def test_the_tightest_hole_wins() -> None:
    index, offsets = filled(640, 64, 128, 64, 320, 64)
    for name in ("o0", "o2", "o4"):
        index.free(name)
    assert index.create("tight", 100, "w") == offsets[2]
    assert index.create("next", 300, "w") == offsets[4]


def test_neighbouring_holes_become_one() -> None:
    index, offsets = filled(640, 640, 640, 640)
    for name in ("o0", "o2", "o1"):
        index.free(name)
    assert index.create("large", 3 * 640, "w") == offsets[0]


def test_a_hole_at_the_end_is_extended_rather_than_left_behind() -> None:
    index, offsets = filled(640, 1280)
    index.free("o1")
    assert index.create("longer", 1500, "w") == offsets[1]


def test_full_is_none_and_changes_nothing() -> None:
    index, _ = filled(CAPACITY - LINE)
    before = index.statistics()
    assert index.create("too large", LINE + 1, "w") is None
    assert index.statistics() == before
    assert index.create("fits", LINE, "w") is not None


def test_large_objects_start_on_a_page_and_share_none() -> None:
    allocator = Allocator(8 * LARGE)
    assert allocator.allocate(10) == 0
    first, second = allocator.allocate(LARGE + 1), allocator.allocate(LARGE)
    assert first == PAGE
    assert second == PAGE + LARGE + PAGE
    assert allocator.allocate(PAGE - LINE) == LINE, "the gap that alignment left is not lost"
    allocator.validate()


def test_an_object_exists_once() -> None:
    index, _ = filled(64)
    with pytest.raises(ValueError, match="already"):
        index.create("o0", 64, "w")


def test_what_is_not_sealed_cannot_be_read() -> None:
    index = Index(CAPACITY)
    index.create("a", 64, "w")
    assert index.find("a") is None
    assert not index.pin("a", "reader")
    assert not index.seal("a", "somebody else")
    assert index.seal("a", "w")
    assert not index.seal("a", "w")
    assert index.pin("a", "reader")


def test_freed_while_read_stays_until_the_last_pin() -> None:
    index, _ = filled(CAPACITY)
    index.pin("o0", "r1")
    index.pin("o0", "r1")
    index.pin("o0", "r2")
    assert not index.free("o0")
    assert index.find("o0") is None
    assert index.unpin("o0", "r1")
    index.release_process("r2")
    assert index.create("next", 64, "w") is None
    assert index.unpin("o0", "r1")
    assert index.create("next", 64, "w") == 0
    assert not index.unpin("o0", "r1")


WRITER_ENDS = {
    "seals": lambda index: index.seal("a", "w"),
    "gives up": lambda index: index.abort("a", "w"),
    "dies": lambda index: index.release_process("w"),
}


@pytest.mark.parametrize("end", WRITER_ENDS)
def test_freed_while_written_stays_until_the_writer_is_done(end: str) -> None:
    index = Index(CAPACITY)
    index.create("a", CAPACITY, "w")
    assert not index.free("a")
    assert index.create("b", 64, "w2") is None
    WRITER_ENDS[end](index)
    assert index.create("b", 64, "w2") == 0
    index.validate()


def test_a_new_copy_does_not_end_the_old_ones_readers() -> None:
    index, offsets = filled(64)
    index.pin("o0", "r")
    index.free("o0")
    second = index.create("o0", 64, "w2")
    assert second != offsets[0]
    index.seal("o0", "w2")
    index.pin("o0", "r")
    index.unpin("o0", "r")
    assert index.statistics()["doomed"] == 1, "the view that died may have been the new copy's"
    index.unpin("o0", "r")
    assert index.statistics()["doomed"] == 0
    assert index.find("o0") is not None


def test_a_late_writer_seals_its_own_copy_only() -> None:
    index = Index(CAPACITY)
    index.create("a", 64, "zombie")
    index.free("a")
    index.create("a", 64, "w")
    assert not index.seal("a", "zombie")
    assert index.find("a") is None
    assert index.seal("a", "w")
    index.validate()


def test_a_dead_process_leaves_nothing_unsealed_and_no_pin() -> None:
    index, _ = filled(64, 64)
    index.create("half", 64, "w")
    index.pin("o0", "w")
    assert index.release_process("w") == ["half"]
    statistics = index.statistics()
    assert [statistics[name] for name in ("objects", "pinned", "unsealed", "used")] == [2, 0, 0, 128]


def test_eviction_takes_unpinned_secondary_copies_least_recently_used_first() -> None:
    index, _ = filled(64, 64, 64, 64, secondary=True)
    index.create("primary", 64, "w")
    index.seal("primary", "w")
    index.create("unsealed", 64, "w", secondary=True)
    index.find("o0")
    index.pin("o1", "r")
    index.promote("o3")
    assert [evicted(index), evicted(index), evicted(index)] == ["o2", "o0", None]
    index.unpin("o1", "r")
    assert evicted(index) == "o1"
    index.validate()


def evicted(index: Index) -> str | None:
    entry = index.evict()
    return entry.object if entry is not None else None


def test_what_only_memory_has_is_spilled_least_recently_used_first_and_may_go_then() -> None:
    index, _ = filled(64, 64, 64, 64)
    index.create("copy", 64, "w", secondary=True)
    index.seal("copy", "w")
    index.find("o0")
    index.pin("o1", "r")
    assert [entry.object for entry in index.spillable(65)] == ["o2", "o3"]
    assert [entry.object for entry in index.spillable(1_000)] == ["o2", "o3", "o0"]
    two, three = index.spillable(65)
    index.free("o2")
    assert not index.spilled(two), "it was freed while it was written"
    assert index.spilled(three)
    assert evicted(index) == "copy"
    assert evicted(index) == "o3"
    assert evicted(index) is None
    index.validate()


def test_a_copy_of_what_is_on_disk_may_go_as_it_is() -> None:
    index = Index(CAPACITY)
    index.create("back", 64, "n", on_disk=True)
    index.seal("back", "n")
    assert index.spillable(64) == []
    assert evicted(index) == "back"
    index.validate()


class Copy:
    def __init__(self, object: str, offset: int, size: int, owner: str, secondary: bool) -> None:
        self.object, self.offset, self.size, self.owner, self.secondary = object, offset, size, owner, secondary
        self.sealed = self.freed = self.on_disk = False


OBJECTS = st.sampled_from("abc")
PROCESSES = st.sampled_from(["w1", "w2"])


class IndexBesideModel(RuleBasedStateMachine):
    """The model is a list of copies and a list of pins; memory counts as taken exactly as long as the rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index(CAPACITY, base=LINE)
        self.copies: list[Copy] = []
        self.pins: list[tuple[str, str]] = []

    def visible(self, object: str) -> Copy | None:
        return next((copy for copy in self.copies if copy.object == object and not copy.freed), None)

    def collect(self) -> None:
        pinned = {object for object, _ in self.pins}
        self.copies = [c for c in self.copies if not (c.freed and c.sealed and c.object not in pinned)]

    def unsealed(self, object: str, owner: str) -> Copy | None:
        return next((c for c in self.copies if (c.object, c.owner, c.sealed) == (object, owner, False)), None)

    @rule(object=OBJECTS, size=st.integers(1, CAPACITY), owner=PROCESSES, secondary=st.booleans())
    def create(self, object: str, size: int, owner: str, secondary: bool) -> None:
        if self.visible(object):
            with pytest.raises(ValueError, match="already"):
                self.index.create(object, size, owner, secondary)
            return
        hole = self.index.largest_hole
        offset = self.index.create(object, size, owner, secondary)
        assert (offset is None) == (size > hole)
        if offset is not None:
            self.copies.append(Copy(object, offset, size, owner, secondary))

    @rule(object=OBJECTS, owner=PROCESSES)
    def seal(self, object: str, owner: str) -> None:
        copy = self.unsealed(object, owner)
        assert self.index.seal(object, owner) == (copy is not None and not copy.freed)
        if copy:
            copy.sealed = True

    @rule(object=OBJECTS, owner=PROCESSES)
    def abort(self, object: str, owner: str) -> None:
        copy = self.unsealed(object, owner)
        assert self.index.abort(object, owner) == (copy is not None)
        if copy:
            self.copies.remove(copy)

    @rule(object=OBJECTS)
    def free(self, object: str) -> None:
        copy = self.visible(object)
        now = copy is not None and copy.sealed and object not in {name for name, _ in self.pins}
        assert self.index.free(object) == now
        if copy:
            copy.freed = True

    @rule(object=OBJECTS, process=PROCESSES)
    def pin(self, object: str, process: str) -> None:
        copy = self.visible(object)
        readable = copy is not None and copy.sealed
        assert self.index.pin(object, process) == readable
        if readable:
            self.pins.append((object, process))

    @rule(object=OBJECTS, process=PROCESSES)
    def unpin(self, object: str, process: str) -> None:
        held = (object, process) in self.pins
        assert self.index.unpin(object, process) == held
        if held:
            self.pins.remove((object, process))

    @rule(process=PROCESSES)
    def release_process(self, process: str) -> None:
        abandoned = [copy for copy in self.copies if copy.owner == process and not copy.sealed]
        assert sorted(self.index.release_process(process)) == sorted(copy.object for copy in abandoned)
        self.copies = [copy for copy in self.copies if copy not in abandoned]
        self.pins = [pin for pin in self.pins if pin[1] != process]

    @rule()
    def evict(self) -> None:
        pinned = {object for object, _ in self.pins}
        idle = [c for c in self.copies if c.sealed and not c.freed and c.object not in pinned]
        allowed = {c.object for c in idle if c.secondary or c.on_disk}
        victim = evicted(self.index)
        assert (victim in allowed) if allowed else victim is None
        if victim:
            copy = self.visible(victim)
            assert copy
            copy.freed = True

    @rule(size=st.integers(1, CAPACITY))
    def spill(self, size: int) -> None:
        pinned = {object for object, _ in self.pins}
        idle = [c for c in self.copies if c.sealed and not c.freed and c.object not in pinned]
        allowed = {c.object for c in idle if not c.secondary and not c.on_disk}
        entries = self.index.spillable(size)
        assert {entry.object for entry in entries} <= allowed
        assert sum(entry.size for entry in entries) >= size or len(entries) == len(allowed)
        for entry in entries[:1]:
            assert self.index.spilled(entry)
            copy = self.visible(entry.object)
            assert copy
            copy.on_disk = True

    @rule(object=OBJECTS)
    def promote(self, object: str) -> None:
        self.index.promote(object)
        copy = self.visible(object)
        if copy:
            copy.secondary = False

    @invariant()
    def agrees(self) -> None:
        self.collect()
        self.index.validate()
        spans = sorted((copy.offset, copy.offset + copy.size) for copy in self.copies)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "copies overlap"
        assert all(LINE <= start and end <= CAPACITY and start % LINE == 0 for start, end in spans)
        assert self.index.used == sum(-(-copy.size // LINE) * LINE for copy in self.copies)
        for name in "abc":
            found: Any = self.index.find(name)
            copy = self.visible(name)
            assert (found.offset if found else None) == (copy.offset if copy and copy.sealed else None)


TestIndexBesideModel = IndexBesideModel.TestCase
TestIndexBesideModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
