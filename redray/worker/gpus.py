"""GPUs by number, as the units of each that are free. Pure."""

from __future__ import annotations

from redray.resources import UNIT

Share = list[tuple[int, int]]
"""(GPU number, units of it)."""


class GpuPool:
    """The GPUs of a node, or those that a bundle of a placement group got of them."""

    def __init__(self, units: dict[int, int]) -> None:
        self.size = dict(units)
        self.free = dict(units)

    def choose(self, units: int) -> Share | None:
        """Whole GPUs from untouched ones; a fraction from the fullest with room, so that fractions share.
        None: no room."""
        whole, fraction = divmod(units, UNIT)
        untouched = [number for number, free in self.free.items() if free == UNIT]
        if len(untouched) < whole:
            return None
        chosen = [(number, UNIT) for number in untouched[:whole]]
        if fraction:
            taken = untouched[:whole]
            candidates = [n for n, free in self.free.items() if free >= fraction and n not in taken]
            if not candidates:
                return None
            chosen.append((min(candidates, key=self.free.__getitem__), fraction))
        return chosen

    def add(self, share: Share, sign: int) -> None:
        for number, units in share:
            self.free[number] += sign * units

    def claimable(self) -> int:
        """The untouched ones and the largest rest of another: two halves of two GPUs are not one."""
        whole = sum(units for units in self.free.values() if units == UNIT)
        return whole + max((units for units in self.free.values() if units < UNIT), default=0)
