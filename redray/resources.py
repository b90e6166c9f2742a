"""Resource quantities, and the text that names a demand.

Quantities are fixed point, in units of 1/10000, so that sums of fractions are exact. A demand travels, is queued and is
shown as text: `CPU:1,GPU:0.5`, names sorted, zero quantities left out, the empty demand `-`. Equal demands have equal
texts: the text is the name of their queue in Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def missing(demand: str, totals: Sequence[Mapping[str, float]]) -> str:
    """What no single one of `totals` has of a demand, in words; "" if one of them has all."""
    wanted = from_text(demand)
    if any(all(to_units(total.get(name, 0)) >= units for name, units in wanted.items()) for total in totals):
        return ""
    lacking = []
    for name, units in wanted.items():
        most = max((total.get(name, 0) for total in totals), default=0)
        if to_units(most) < units:
            lacking.append(f"{from_units(units):g} {name} (the largest has {most:g})")
    return " and ".join(lacking) or "all of it at once"


def take(demand: str, free: Quantities) -> None:
    """Subtract, even below zero: a worker that wakes from a blocking `get` retakes its CPU at once."""
    for name, units in _parse(demand):
        free[name] = free.get(name, 0) - units


def give(demand: str, free: Quantities) -> None:
    for name, units in _parse(demand):
        free[name] = free.get(name, 0) + units


# ---- placement groups ------------------------------------------------------------------------------------------------
# A bundle is resources under other names, as in Ray: `CPU_group_0_<id>` are the CPUs of the group's first bundle,
# `CPU_group_<id>` those of any. `bundle_group_` is there for what needs nothing else.
_MARK = "_group_"
_ID = 24  # hexadecimal digits of a group's id
_BUNDLE = "bundle"
_BUNDLE_UNITS = 1000 * UNIT
_BUNDLE_SHARE = UNIT // 1000


def group_demand(demand: str, group: str, index: int) -> str:
    """What a task that needs `demand` asks for in a placement group; `index` -1 is any bundle."""
    needed = from_text(demand) or {_BUNDLE: _BUNDLE_SHARE}
    return to_text({name: from_units(units) for name, units in _renamed(needed, group, index)})


def bundle_resources(demand: str, group: str, index: int) -> Quantities:
    """What a bundle of this demand has to offer, in units."""
    return dict(_renamed({**from_text(demand), _BUNDLE: _BUNDLE_UNITS}, group, index))


def _renamed(quantities: Quantities, group: str, index: int) -> Iterator[tuple[str, int]]:
    for name, units in quantities.items():
        yield f"{name}{_MARK}{group}", units
        if index >= 0:
            yield f"{name}{_MARK}{index}_{group}", units


def _split(name: str) -> tuple[str, str, str] | None:
    """`CPU_group_0_<id>` -> (CPU, 0, id), `CPU_group_<id>` -> (CPU, "", id). None: no group's resource."""
    plain, mark, rest = name.rpartition(_MARK)
    index, _, group = rest.rpartition("_")
    if not mark or len(group) != _ID or (index and not index.isdigit()):
        return None
    return plain, index, group


def is_of_group(name: str) -> bool:
    return _MARK in name and _split(name) is not None


def group_of(demand: str) -> str | None:
    """The id of the placement group whose resources a demand names."""
    if _MARK not in demand:
        return None
    return next((found[2] for part in demand.split(",") if (found := _split(part.rpartition(":")[0]))), None)


def plain(demand: str) -> Quantities:
    """What is asked for, under its plain names: the same inside and outside of a placement group."""
    if group_of(demand) is None:
        return from_text(demand)
    split = ((_split(name), units) for name, units in _parse(demand))
    return {found[0]: units for found, units in split if found and not found[1] and found[0] != _BUNDLE}


def cpu_part(demand: str) -> Quantities:
    """What a blocked worker lends of a demand."""
    return {name: units for name, units in _parse(demand) if name == "CPU" or name.startswith("CPU" + _MARK)}


def gpu_units(demand: str) -> int:
    return plain(demand).get("GPU", 0) if "GPU" in demand else 0


def with_memory(resources: Mapping[str, float] | None, memory: float | None) -> dict[str, float]:
    """The resources of a node that hands out `memory` bytes; None: what its machine has, less its object store."""
    return dict(resources or {}) if memory is None else {**(resources or {}), "memory": memory}
