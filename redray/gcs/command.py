"""One call of a Lua script, as data: what the tables of this package make, and what channels and connections carry."""

from __future__ import annotations

from typing import NamedTuple

Argument = bytes | str | int | float

DIRECT = "direct"
"""The route of a process that speaks to Redis itself."""


class Command(NamedTuple):
    """A numbered command has no keys of its own: the channel that carries it adds its key and the envelope (worker,
    route, number, seen, now) before `args`. Others name their keys and all their arguments."""

    verb: str
    args: list[Argument]
    keys: tuple[str, ...] = ()


def envelope(worker: str, route: str, number: int, seen: str, now: int = 0) -> list[Argument]:
    """The first arguments of every numbered script, see lua/lib/channel.lua."""
    return [worker, route, number, seen, now]
