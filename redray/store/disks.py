"""Where objects go that memory has no room for: directories on local disks, or any URL that fsspec knows."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from redray.exceptions import OutOfDiskError
from redray.store.janitor import SharedDirectory, sweep

FULL_SHARE = 0.95  # of a file system: beyond it nothing is written, for the machine needs some room itself
RETRY_S = 10.0  # after which a place that was full is tried again
_STEP = 4 << 20  # bytes read or summed at once
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Disk(Protocol):
    """One place. Its methods block, and belong in a thread."""

    def check_room(self, size: int) -> None:
        """Raises OutOfDiskError if `size` more bytes should not go there."""

    def write(self, name: str, pieces: Iterable[memoryview]) -> str:
        """Store the pieces one after another; returns what `read` and `remove` call the file. Nothing is left of it if
        this fails, with OutOfDiskError or another OSError."""

    def read(self, file: str, offset: int, target: memoryview) -> None:
        """Fill `target`. Raises OSError."""

    def remove(self, file: str) -> None: ...
    def open(self, file: str) -> int | None:
        """A descriptor to send from, if there is such a thing."""

    def close(self) -> None:
        """Remove everything."""


class Directory:
    """A directory of this node's own, below the given one. It goes with the node, or with the next one's start."""

    def __init__(self, base: str) -> None:
        self._base = Path(base)
        self._directory: SharedDirectory | None = None

    @property
    def path(self) -> Path:
        if self._directory is None:
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep(self._base)  # what nodes left that were killed
            self._directory = SharedDirectory(self._base)
        return self._directory.path

    def check_room(self, size: int) -> None:
        try:
            status = os.statvfs(self.path)
        except OSError as error:
            raise OutOfDiskError(f"Objects cannot be written to {self._base}: {error.strerror}.") from error
        reserve = int(status.f_blocks * status.f_frsize * (1 - FULL_SHARE))
        if status.f_bavail * status.f_frsize - size < reserve:
            raise OutOfDiskError(
                f"{self._base} has {status.f_bavail * status.f_frsize} bytes free, of which {reserve} are left to "
                f"others: too few for {size} bytes of objects. Free some space, or name another directory with "
                "object_spilling_directory."
            )

    def write(self, name: str, pieces: Iterable[memoryview]) -> str:
        path = self.path / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            for piece in pieces:
                while piece:
                    piece = piece[os.write(file, piece[:_STEP]) :]
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise OutOfDiskError(f"{self._base} is full: {error.strerror}.") from error
            raise
        finally:
            os.close(file)
        return str(path)

    def read(self, file: str, offset: int, target: memoryview) -> None:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while target:
                done = os.preadv(descriptor, [target[:_STEP]], offset)
                if not done:
                    raise OSError(errno.EIO, f"{file} is {len(target)} bytes too short")
                target, offset = target[done:], offset + done
        finally:
            os.close(descriptor)

    def remove(self, file: str) -> None:
        Path(file).unlink(missing_ok=True)

    def open(self, file: str) -> int | None:
        return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def close(self) -> None:
        if self._directory is not None:
            self._directory.close()


class Remote:
    """A bucket, a share, whatever fsspec speaks: `s3://bucket/prefix`. What a killed node left there stays."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise ValueError(
                f"Objects can be spilled to {url} only if fsspec is installed: pip install fsspec."
            ) from None
        self._files: Any
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._root = f"{self._root.rstrip('/')}/redray-{os.urandom(8).hex()}"

    def check_room(self, size: int) -> None: ...  # nobody can tell

    def write(self, name: str, pieces: Iterable[memoryview]) -> str:
        file = f"{self._root}/{name}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.open(file, "wb") as target:
                for piece in pieces:
                    target.write(piece)
        except BaseException:
            if self._files.exists(file):
                self._files.rm_file(file)
            raise
        return file

    def read(self, file: str, offset: int, target: memoryview) -> None:
        with self._files.open(file, "rb") as source:
            source.seek(offset)
            while target:
                data = source.read(min(_STEP, len(target)))
                if not data:
                    raise OSError(errno.EIO, f"{file} is {len(target)} bytes too short")
                target[: len(data)] = data
                target = target[len(data) :]

    def remove(self, file: str) -> None:
        self._files.rm_file(file)

    def open(self, file: str) -> int | None:
        return None

    def close(self) -> None:
        if self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)


class Disks:
    """All places, used in turn; one that was full rests for a while."""

    def __init__(self, places: Sequence[str]) -> None:
        """Raises ValueError for a URL without fsspec."""
        self._disks: list[Disk] = [Remote(place) if "://" in place else Directory(place) for place in places]
        self._rests_until = [0.0] * len(self._disks)
        self._next = 0
        self._of: dict[str, Disk] = {}  # file -> where it is

    def write(self, name: str, pieces: Sequence[memoryview]) -> str:
        """To the next place that takes them. Raises OutOfDiskError when none does, OSError when the last one tried
        fails otherwise."""
        size = sum(map(len, pieces))
        failure: Exception = OutOfDiskError("Every place for spilled objects was full a moment ago.")
        now = time.monotonic()
        for _ in self._disks:
            at = self._next = (self._next + 1) % len(self._disks)
            if self._rests_until[at] > now:
                continue
            try:
                self._disks[at].check_room(size)
                file = self._disks[at].write(name, pieces)
            except (OutOfDiskError, OSError) as error:
                failure = error
                self._rests_until[at] = now + RETRY_S
                continue
            self._of[file] = self._disks[at]
            return file
        raise failure

    def read(self, file: str, offset: int, target: memoryview) -> None:
        self._of[file].read(file, offset, target)

    def remove(self, file: str) -> None:
        self._of.pop(file).remove(file)

    def open(self, file: str) -> int | None:
        return self._of[file].open(file)

    def close(self) -> None:
        for disk in self._disks:
            disk.close()


def checksum(data: memoryview) -> int:
    """CRC-32, in steps that let other threads run."""
    value = 0
    for at in range(0, len(data), _STEP):
        value = zlib.crc32(data[at : at + _STEP], value)
    return value
