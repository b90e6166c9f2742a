"""The processes a benchmark started, by whatever way: found by a mark in their environment, counted, and ended.

A cluster's processes leave their parent and their process group on purpose, so neither finds them all; what they
inherit is the environment. Needs Linux's /proc.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "BENCHMARK_RUN"
DEATH_TIMEOUT = 10.0


def marked(mark: str) -> set[int]:
    """Pids of the living processes that were started with `mark` in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue  # it ended meanwhile, or it is not ours to read
    return found


def children_of(root: int) -> set[int]:
    """Pids of all descendants: a daemon that cleared its environment is still somebody's child."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command in parentheses may contain anything, so fields are counted from its end.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def proportional_mb(pids: set[int]) -> float:
    """Memory of these processes in MB, shared pages counted once between them (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


def settled_mb(mark: str, patience: float = 15.0) -> float:
    """Memory of everything this benchmark started except the calling process, once it has stopped changing."""
    deadline = time.monotonic() + patience
    before = -1.0
    while True:
        now = proportional_mb((marked(mark) | children_of(os.getpid())) - {os.getpid()})
        if abs(now - before) <= 0.01 * now or time.monotonic() > deadline:
            return now
        before = now
        time.sleep(1)


def end(mark: str, patience: float) -> int:
    """Wait for the marked processes to go, then kill those that did not, and see them gone; how many that were."""
    left = _wait_for_none(mark, patience)
    for pid in left:
        _kill(pid)
    stubborn = _wait_for_none(mark, DEATH_TIMEOUT) if left else set()
    if stubborn:
        raise RuntimeError(f"processes {sorted(stubborn)} are still there {DEATH_TIMEOUT:g} s after SIGKILL")
    return len(left)


def _wait_for_none(mark: str, patience: float) -> set[int]:
    deadline = time.monotonic() + patience
    while (left := marked(mark) - {os.getpid()}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it ended by itself


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended between the look and the kill
