"""Resource quantities, and the text that names a demand.

Quantities are fixed point, in units of 1/10000, so that sums of fractions are exact. A demand travels, is queued and is
shown as text: `CPU:1,GPU:0.5`, names sorted, zero quantities left out, the empty demand `-`. Equal demands have equal
texts: the text is the name of their queue in Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

UNIT = 10_000
NOTHING = "-"

Quantities = dict[str, int]


def to_units(quantity: float) -> int:
    return round(quantity * UNIT)


def from_units(units: int) -> float:
    return units / UNIT


def to_text(demand: Mapping[str, float]) -> str:
    """`{"GPU": 0.5, "CPU": 1}` -> `CPU:1,GPU:0.5`."""
    parts = []
    for name in sorted(demand):
        units = to_units(demand[name])
        if units:
            whole, fraction = divmod(units, UNIT)
            parts.append(f"{name}:{whole}" + (f".{fraction:04d}".rstrip("0") if fraction else ""))
    return ",".join(parts) or NOTHING


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[tuple[str, int], ...]:
    if text == NOTHING:
        return ()
    pairs = (part.rpartition(":") for part in text.split(","))
    return tuple((name, to_units(float(quantity))) for name, _, quantity in pairs)


def from_text(text: str) -> Quantities:
    """`CPU:1,GPU:0.5` -> `{"CPU": 10000, "GPU": 5000}` (units of 1/10000)."""
    return dict(_parse(text))


def fits(demand: str, free: Mapping[str, int]) -> bool:
    return all(free.get(name, 0) >= units for name, units in _parse(demand))


def take(demand: str, free: Quantities) -> None:
    """Subtract, even below zero: a worker that wakes from a blocking `get` retakes its CPU at once."""
    for name, units in _parse(demand):
        free[name] = free.get(name, 0) - units


def give(demand: str, free: Quantities) -> None:
    for name, units in _parse(demand):
        free[name] = free.get(name, 0) + units
