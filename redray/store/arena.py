"""The shared memory of a node: one file, mapped whole by every process of the node.

Its size is the store's capacity, but a page costs memory only once it is reserved, from the front upwards, as writers
need it. The first page says up to where: whoever writes beyond reserves first, so a full file system is an exception
and not a SIGBUS. Reserved pages are never given back, for touching fresh ones is what makes writing slow.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redray.exceptions import ObjectStoreFullError, RaySystemError
from redray.store.parts import in_parts

HEADER = mmap.PAGESIZE
"""Bytes at the front that no object may use."""

_MAGIC = b"redray 1"
_RESERVE_UNIT = 1 << 20
_RESERVE_STEP = 64 << 20  # in one system call: a signal makes it start again, and it must end between two of them
_COPY_STEP = 16 << 20
_SMALL = 64 << 10  # below this size any special way of copying costs more than it saves
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14: maps pages 5 times faster than faulting them in one by one
_POPULATE_SHIFT = 22
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


class Arena:
    def __init__(self, path: Path, fd: int, capacity: int) -> None:
        self.path = path
        self.fd = fd
        self.capacity = capacity
        self.end = HEADER + capacity
        self.memory = mmap.mmap(fd, self.end)
        self._words = memoryview(self.memory)[:HEADER].cast("Q")
        self._populated = bytearray((self.end >> _POPULATE_SHIFT) + 1)  # which 4 MiB pieces this process has mapped
        self._can_populate = sys.platform == "linux"

    # ---- opening and closing -----------------------------------------------------------------------------------------
    @classmethod
    def create(cls, directory: Path, capacity: int) -> Arena:
        """A new file with room for `capacity` bytes of objects, of a name nobody can guess, for this user only."""
        path = Path(directory) / f"arena-{os.urandom(8).hex()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.ftruncate(fd, HEADER + capacity)
                arena = cls(path, fd, capacity)
            except OSError as error:
                raise RaySystemError(
                    f"An object store of {capacity} bytes cannot be mapped here ({error.strerror}): give a smaller"
                    " object_store_memory."
                ) from None
            _reserve(fd, 0, HEADER)
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        arena._words[1] = HEADER
        arena.memory[:8] = _MAGIC
        return arena

    @classmethod
    def attach(cls, path: str | Path, capacity: int) -> Arena:
        """Map the file that this user's node made. Raises RaySystemError if it is another file, or another user's."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_size != HEADER + capacity:
                raise RaySystemError(f"{path} is not a store of {capacity} bytes that belongs to this user.")
            if os.pread(fd, 8, 0) != _MAGIC:
                raise RaySystemError(f"{path} is not an object store, or one of another version of redray.")
            return cls(Path(path), fd, capacity)
        except BaseException:
            os.close(fd)
            raise

    def unlink(self) -> None:
        """Take the name away; who has mapped the file keeps it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmap, unless values still point here: then the memory stays mapped until the process ends."""
        self._words.release()
        try:
            self.memory.close()
        except BufferError:
            return
        finally:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    # ---- reading and writing -----------------------------------------------------------------------------------------
    def view(self, offset: int, size: int) -> memoryview:
        """A writable view of memory that somebody has reserved. Raises ValueError if it is not in the store."""
        self.check(offset, size)
        return memoryview(self.memory)[offset : offset + size]

    def check(self, offset: int, size: int) -> None:
        """Raises ValueError unless these bytes are in the store; then every page of them is real."""
        if offset < HEADER or size < 0 or offset + size > self.end:
            raise ValueError(f"{size} bytes at {offset} are outside the store, which ends at {self.end}.")
        if offset + size > self.reserved:
            self.reserve(offset + size)  # the mark is too low: see there

    def writable(self, offset: int, size: int) -> memoryview:
        """A view to write to, its pages reserved first. Raises ObjectStoreFullError as `reserve` does."""
        self.reserve(offset + size)
        return self.view(offset, size)

    @property
    def reserved(self) -> int:
        """Every page below this offset is real."""
        return self._words[1]

    def reserve(self, end: int) -> None:
        """Make every page below `end` real. Raises ObjectStoreFullError if the file system has no room for them.

        Any process may do this at any time: each one writes down only what it has seen reserved from the last mark on,
        so a mark that a slower one overwrites is too low at worst, and costs one system call. Who reads must not
        trust it either.
        """
        if end > self.end:
            raise ValueError(f"{end} is beyond the store's end at {self.end}.")
        start = self.reserved
        end = min(-(-end // _RESERVE_UNIT) * _RESERVE_UNIT, self.end)
        while start < end:
            stop = min(start + _RESERVE_STEP, end)
            try:
                _reserve(self.fd, start, stop - start)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                raise ObjectStoreFullError(
                    f"{self.path.parent} has no room for {stop} bytes of objects ({error.strerror}): give it more "
                    f"space, or start the node with a smaller object_store_memory."
                ) from error
            self._words[1] = max(stop, self.reserved)
            start = stop

    def write(self, offset: int, pieces: Iterable[tuple[int, Any]], size: int) -> None:
        """Copy `pieces` (position in the object, bytes) to the object of `size` bytes at `offset`, reserving first.

        Fresh pages are written by system call, which fills them without clearing them first (3.3 GB/s instead of 1.7).
        Others are mapped many at a time and copied to. Copies of large pieces let other threads run, and are made by
        several at once.
        """
        fresh = self.reserved
        self.reserve(offset + size)
        for position, piece in pieces:
            start = offset + position
            if len(piece) < _SMALL:
                self.memory[start : start + len(piece)] = piece
                continue
            source = memoryview(piece)
            in_parts(source, lambda at, part, start=start: self._fill(start + at, part, fresh))  # type: ignore[misc]

    def _fill(self, start: int, source: memoryview, fresh: int) -> None:
        """Copy to pages that were used before, below `fresh`, in one way, and to those that were not in another."""
        known = min(max(fresh - start, 0), len(source))
        self._copy(start, source[:known])
        self._write_fresh(start + known, source[known:])

    def _write_fresh(self, start: int, source: memoryview) -> None:
        while source:
            written = os.pwrite(self.fd, source, start)
            start += written
            source = source[written:]

    def _copy(self, start: int, source: memoryview) -> None:
        numpy = sys.modules.get("numpy")
        target = memoryview(self.memory)[start : start + len(source)]
        for at in range(0, len(source), _COPY_STEP):
            stop = min(at + _COPY_STEP, len(source))
            self._populate(start + at, start + stop)
            if numpy is None:
                target[at:stop] = source[at:stop]
            else:  # the same speed, without holding the interpreter
                numpy.copyto(numpy.frombuffer(target[at:stop], "u1"), numpy.frombuffer(source[at:stop], "u1"))

    def _populate(self, start: int, end: int) -> None:
        for index in range(start >> _POPULATE_SHIFT, ((end - 1) >> _POPULATE_SHIFT) + 1):
            if self._populated[index] or not self._can_populate:
                continue
            first, last = index << _POPULATE_SHIFT, (index + 1) << _POPULATE_SHIFT
            whole = last <= self.reserved
            try:
                self.memory.madvise(_POPULATE_WRITE, first, min(last, self.reserved) - first)
            except OSError:  # an older kernel: pages are then mapped as they are written
                self._can_populate = False
            self._populated[index] = whole


def _reserve(fd: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, size)
        return
    space = os.fstatvfs(fd)  # macOS: the next best is to look whether there is room now
    if space.f_bavail * space.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
