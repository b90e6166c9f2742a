"""Shared memory between a node and its workers: which run each worker started last, which attempt it should interrupt,
and which runs it may not start any more.

A worker writes its slot before user code runs, so that after a SIGKILL the node knows what had started: a started
attempt is used up, one that waited in the worker's queue is not. A run is named by its serial, not by its task: a
worker starts its runs in the order of their serials, so everything up to the marked one has started too (and may have
finished, with its `Done` still unsent), even when the marked one itself was taken back.

The mapping is anonymous and made before the template is forked: every worker inherits it, nothing has to be passed or
cleaned up.
"""

from __future__ import annotations

import mmap
import struct

SLOT = 128
_ENTRY = struct.Struct("=24sI")  # task id (hexadecimal), attempt
_SERIAL = struct.Struct("=I")  # four aligned bytes, written at once: no kill leaves half of them
_STARTED, _REVOKED = 0, 4
_CANCEL_SET, _CANCEL = 64, 68


class Mark:
    """One worker's slot: written by the worker (`start`) and by the node (`cancel`), read by the other side."""

    __slots__ = ("_at", "_cancel_at", "_memory")

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory = memory
        self._at = at
        self._cancel_at = at + _CANCEL_SET

    def start(self, serial: int) -> None:
        """The worker begins this run next. Under a microsecond: every task pays for it."""
        _SERIAL.pack_into(self._memory, self._at + _STARTED, serial)

    def started(self) -> int:
        """The serial of the run that was started last, 0 before the first."""
        return int(_SERIAL.unpack_from(self._memory, self._at + _STARTED)[0])

    def cancel(self, task: str, attempt: int) -> None:
        """The node wants this attempt interrupted, now or when it starts; it sends SIGINT after this."""
        self._memory[self._cancel_at] = 0
        _ENTRY.pack_into(self._memory, self._at + _CANCEL, task.encode(), attempt)
        self._memory[self._cancel_at] = 1

    def cancelled(self) -> tuple[str, int] | None:
        return self._entry(_CANCEL) if self._memory[self._cancel_at] else None

    def has_cancel(self) -> bool:
        return self._memory[self._cancel_at] != 0

    def revoke(self, serial: int) -> None:
        """The node takes back every run up to `serial` that has not started. It may rely on `started` a moment later:
        the worker writes `started` before it looks here, so a run is either seen as started by the node, or as revoked
        by the worker."""
        _SERIAL.pack_into(self._memory, self._at + _REVOKED, serial)

    def revoked(self) -> int:
        return int(_SERIAL.unpack_from(self._memory, self._at + _REVOKED)[0])

    def clear(self) -> None:
        self._memory[self._at : self._at + SLOT] = bytes(SLOT)

    def _entry(self, offset: int) -> tuple[str, int]:
        task, attempt = _ENTRY.unpack_from(self._memory, self._at + offset)
        return task.rstrip(b"\0").decode(), attempt


class Marks:
    """The slots of all workers of a node."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * SLOT)
        self._free = list(range(slots - 1, -1, -1))

    def take(self) -> int | None:
        """The number of a free slot, cleared; None when all are in use."""
        if not self._free:
            return None
        number = self._free.pop()
        self.mark(number).clear()
        return number

    def give(self, number: int) -> None:
        self._free.append(number)

    def mark(self, number: int) -> Mark:
        return Mark(self._memory, number * SLOT)
