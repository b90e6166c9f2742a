"""Which lines of the workers' output a driver shows, and how: prefix, colour, one line for many that are alike. Pure.

The first of several like lines is shown at once. Those that other processes print within the window are counted, and
the last of them is shown at its end with how many they were. What one process prints again and again is shown as it is.
Lines are alike if they differ only in words that contain a digit or a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

WINDOW_S = 5.0
MOST_GROUPS = 10_000  # different lines within one window: beyond it, the others are shown as they come
_CYAN, _GREEN, _RESET = "\x1b[36m", "\x1b[32m", "\x1b[0m"
_COLOURS = [f"\x1b[{number}m" for number in (35, 33, 32, 91, 94, 95, 92, 93)]  # by process, on request


class Line(NamedTuple):
    """One line of a process. `pid` is "" for what the cluster itself has to say, which gets no prefix."""

    name: str
    pid: str
    host: str
    stream: str
    text: str


class Style(NamedTuple):
    """How lines are shown.

    Args:
        own_host: the driver's node: lines of other hosts say where they come from.
        coloured: the prefix is cyan. `by_process`: in a colour of its own for each process.
    """

    own_host: str = ""
    coloured: bool = False
    by_process: bool = False

    def show(self, line: Line, repeated: int = 0, note: str = "") -> str:
        if not line.pid:
            return f"{line.text}\n"
        where = f", ip={line.host}" if line.host and line.host != self.own_host else ""
        prefix = f"({line.name} pid={line.pid}{where})"
        more = f" [repeated {repeated}x across cluster]{note}" if repeated else ""
        if not (self.coloured or self.by_process):
            return f"{prefix} {line.text}{more}\n"
        colour = _COLOURS[int(line.pid) % len(_COLOURS)] if self.by_process else _CYAN
        return f"{colour}{prefix}{_RESET} {line.text}{_GREEN + more + _RESET if more else ''}\n"


class Options(NamedTuple):
    """What the environment says, under Ray's names or REDRAY_...: DEDUP_LOGS (0 shows every line),
    DEDUP_LOGS_AGG_WINDOW_S, DEDUP_LOGS_ALLOW_REGEX (lines always shown), DEDUP_LOGS_SKIP_REGEX (never shown),
    COLOR_PREFIX (1: a colour for each process)."""

    window_s: float = WINDOW_S  # 0: every line is shown
    allow: str = ""
    skip: str = ""
    colour_by_process: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Options:
        def found(name: str, default: str) -> str:
            return environment.get(f"REDRAY_{name}", environment.get(f"RAY_{name}", default))

        window = float(found("DEDUP_LOGS_AGG_WINDOW_S", str(WINDOW_S)))
        return cls(
            window if found("DEDUP_LOGS", "1") == "1" else 0.0,
            found("DEDUP_LOGS_ALLOW_REGEX", ""),
            found("DEDUP_LOGS_SKIP_REGEX", ""),
            found("COLOR_PREFIX", "0") == "1",
        )


class _Group:
    """Lines that are alike: when the first came, who printed them, and how many were held back."""

    __slots__ = ("count", "last", "since", "sources")

    def __init__(self, since: float, line: Line) -> None:
        self.since, self.last, self.count = since, line, 0
        self.sources = {(line.host, line.pid)}


class Deduplicator:
    """Times are in seconds of one clock, and are arguments."""

    def __init__(self, options: Options, style: Style) -> None:
        self._window, self.style = options.window_s, style
        self._allow = re.compile(options.allow) if options.allow else None
        self._skip = re.compile(options.skip) if options.skip else None
        self._groups: dict[str, _Group] = {}  # the oldest first
        self._explained = False

    def take(self, line: Line, now: float) -> str:
        """What to print because of this line: "" if it is held back."""
        if not self._window or not line.pid or (self._allow and self._allow.search(line.text)):
            return self.style.show(line)
        if self._skip and self._skip.search(line.text):
            return ""
        key = " ".join(word for word in line.text.split() if "/" not in word and not any(map(str.isdigit, word)))
        group = self._groups.get(key)
        if group is None and len(self._groups) >= MOST_GROUPS:
            return self.style.show(line)
        if group is None:
            self._groups[key] = _Group(now, line)
            return self.style.show(line)
        group.sources.add((line.host, line.pid))
        if len(group.sources) == 1:
            return self.style.show(line)
        group.last, group.count = line, group.count + 1
        return ""

    def due(self) -> float | None:
        """When to ask `overdue` again; None: nothing is held back."""
        return next((group.since + self._window for group in self._groups.values() if group.count), None)

    def overdue(self, now: float) -> Iterator[tuple[str, str]]:
        """(stream, what to print on it) for lines held back longer than the window."""
        for key, group in list(self._groups.items()):
            if now - group.since < self._window:
                return
            del self._groups[key]
            if group.count:
                self._groups[key] = _Group(now, group.last)  # more of the same is counted again
                self._groups[key].sources = group.sources
                yield group.last.stream, self.style.show(group.last, *self._counted(group.count))

    def rest(self) -> Iterator[tuple[str, str]]:
        """All that is held back: it is the end."""
        yield from self.overdue(float("inf"))

    def _counted(self, count: int) -> tuple[int, str]:
        """One line that was held back is no repetition: it is shown as it is."""
        if count == 1:
            return 0, ""
        explained, self._explained = self._explained, True
        note = " (redray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log deduplication.)"
        return count, "" if explained else note
