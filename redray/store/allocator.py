"""Where in the arena an object goes: best fit with coalescing, memory that was used before first.

The first touch of a page costs more than copying it, so `touched`, the end of what was ever handed out, grows only when
no hole below it fits. Pure: offsets and sizes in, offsets out.
"""

from __future__ import annotations

from bisect import bisect_left, insort

LINE = 64
PAGE = 4096
LARGE = 1 << 20  # from here on whole pages: two large objects never share one


class Allocator:
    """Hands out pieces of `[base, capacity)`. All offsets and sizes are in bytes."""

    def __init__(self, capacity: int, base: int = 0) -> None:
        self.base = base
        self.capacity = capacity
        self.touched = base
        self.used = 0
        self._taken: dict[int, int] = {}  # offset -> size, rounded up
        self._holes: dict[int, int] = {}  # offset -> size of every hole below `touched`; no two of them are neighbours
        self._hole_ends: dict[int, int] = {}  # end -> offset
        self._by_size: list[tuple[int, int]] = []  # (size, offset) of every hole, sorted

    def allocate(self, size: int) -> int | None:
        """The offset of `size` free bytes, at a multiple of 64 (large: of 4096); None if no hole is long enough."""
        unit = PAGE if size >= LARGE else LINE
        need = _up(max(size, 1), unit)
        offset = self._from_hole(need, unit)
        if offset is None:
            offset = self._from_tail(need, unit)
        if offset is not None:
            self._taken[offset] = need
            self.used += need
        return offset

    def free(self, offset: int) -> None:
        size = self._taken.pop(offset)
        self.used -= size
        end = offset + size
        if end in self._holes:
            end += self._remove_hole(end)
        before = self._hole_ends.get(offset)
        if before is not None:
            self._remove_hole(before)
            offset = before
        self._add_hole(offset, end)

    @property
    def largest_hole(self) -> int:
        """The longest free piece, the part never touched included."""
        tail = self.capacity - self._hole_ends.get(self.touched, self.touched)
        return max(tail, self._by_size[-1][0] if self._by_size else 0)

    def _from_hole(self, need: int, unit: int) -> int | None:
        for index in range(bisect_left(self._by_size, (need, 0)), len(self._by_size)):
            size, start = self._by_size[index]
            offset = _up(start, unit)
            if offset + need <= start + size:
                self._remove_hole(start)
                self._add_hole(start, offset)
                self._add_hole(offset + need, start + size)
                return offset
        return None

    def _from_tail(self, need: int, unit: int) -> int | None:
        start = self._hole_ends.get(self.touched, self.touched)
        offset = _up(start, unit)
        if offset + need > self.capacity:
            return None
        if start != self.touched:
            self._remove_hole(start)
        self._add_hole(start, offset)
        self.touched = offset + need
        return offset

    def _add_hole(self, start: int, end: int) -> None:
        if end > start:
            self._holes[start] = end - start
            self._hole_ends[end] = start
            insort(self._by_size, (end - start, start))

    def _remove_hole(self, start: int) -> int:
        size = self._holes.pop(start)
        del self._hole_ends[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
        return size

    def validate(self) -> None:
        """Raise AssertionError unless taken pieces and holes tile `[base, touched)` exactly."""
        at, last_was_hole = self.base, False
        for start, size, hole in sorted(
            [(start, size, False) for start, size in self._taken.items()]
            + [(start, size, True) for start, size in self._holes.items()]
        ):
            assert start == at, f"{at}..{start} is neither taken nor a hole, or both"
            assert size > 0 and not (hole and last_was_hole), f"the hole at {start} was not merged"
            at, last_was_hole = start + size, hole
        assert at == self.touched <= self.capacity, f"tiles end at {at}, touched is {self.touched}"
        assert self.used == sum(self._taken.values()), f"used is {self.used}"
        assert self._by_size == sorted((size, start) for start, size in self._holes.items()), "holes by size differ"
        assert self._hole_ends == {start + size: start for start, size in self._holes.items()}, "holes by end differ"


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
