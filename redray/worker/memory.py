"""How much of the machine's memory is in use, and by whom."""

from __future__ import annotations

import os
from collections.abc import Iterable

from redray.config import Settings

CHECK_S = 0.25
_GIB = 1 << 30
_UNBOUNDED = 1 << 60  # a control group without a limit says a number like this


class MemoryWatch:
    """A threshold of 1 or more turns it off. `roots` are where /proc and /sys/fs/cgroup are: a container may be shown
    its host's elsewhere."""

    def __init__(self, settings: Settings) -> None:
        self._threshold = settings.memory_usage_threshold
        self._procfs = settings.procfs
        self._cgroup = settings.cgroupfs
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Four times a second; `now` is in seconds of a monotonic clock."""
        if self._threshold >= 1 or now < self._next:
            return False
        self._next = now + CHECK_S
        return True

    def shortage(self) -> str:
        """What is short, as the end of a sentence; "" while nothing is."""
        for used, total in (self._machine(), self._group("memory.current", "memory.max", ""), self._group(
            "memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes", "total_"
        )):  # fmt: skip
            if total and used > self._threshold * total:
                return (
                    f"{used / _GIB:.1f} of {total / _GIB:.1f} GiB are in use ({used / total:.0%}), more than the"
                    f" {self._threshold:.0%} of REDRAY_MEMORY_USAGE_THRESHOLD"
                )
        return ""

    def _machine(self) -> tuple[int, int]:
        """Bytes in use and in all; (0, 0) where the system does not tell."""
        found = _numbers(f"{self._procfs}/meminfo")
        total = found.get("MemTotal:", 0) * 1024
        return total - found.get("MemAvailable:", 0) * 1024, total

    def _group(self, usage: str, limit: str, prefix: str) -> tuple[int, int]:
        """The page cache does not count: it gives way."""
        try:
            with open(f"{self._cgroup}/{limit}") as file:
                total = int(file.read())
            if total >= _UNBOUNDED:
                return 0, 0
            with open(f"{self._cgroup}/{usage}") as file:
                used = int(file.read())
        except (OSError, ValueError):  # no such control group here, or no limit ("max")
            return 0, 0
        stat = _numbers(f"{self._cgroup}/{os.path.dirname(usage)}/memory.stat")
        return used - stat.get(f"{prefix}inactive_file", 0) - stat.get(f"{prefix}active_file", 0), total


def resident(pids: Iterable[int]) -> dict[int, int]:
    """Bytes that each process has for itself in memory: what it shares, such as the object store, does not count."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                _, pages, shared, *_ = file.read().split()
        except (OSError, ValueError):  # it has just ended, or this system has no /proc
            continue
        found[pid] = (int(pages) - int(shared)) * page
    return found


def _numbers(path: str) -> dict[str, int]:
    """Of a file with a name and a number in each line."""
    try:
        with open(path) as file:
            lines = [line.split() for line in file]
    except OSError:  # not on this system
        return {}
    return {parts[0]: int(parts[1]) for parts in lines if len(parts) > 1 and parts[1].isdigit()}
