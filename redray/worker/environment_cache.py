"""What a node keeps of runtime environments: unpacked packages and installed ones, a directory for each.

Who needs a directory first makes it, under an exclusive lock on the file beside it; who uses one holds a shared lock
as long as it lives. The kernel drops both with their process, however that ends: a directory without its mark was not
finished, and is made again; one that nobody has locked may be dropped for room.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from redray.worker.environment import FAILED_S

_POLL_S = 0.02


class SetupFailed(Exception):
    """A runtime environment could not be set up; the text says why."""


class EnvironmentCache:
    def __init__(self, root: Path, most_bytes: int, wait_s: float) -> None:
        """`wait_s`: how long to wait for another worker that makes the same directory."""
        self._root = root
        self._most_bytes = most_bytes
        self._wait_s = wait_s
        self._locks: list[int] = []  # open until this process ends

    def use(self, name: str, make: Callable[[Path], None]) -> Path:
        """The directory `name`, which `make` fills if it is not there. It stays while this process lives.

        Raises SetupFailed: `make` raised it, now or a moment ago, or another worker took too long.
        """
        lock = self._open_lock(name)
        try:
            while not self._is_ready(lock, name):
                fcntl.flock(lock, fcntl.LOCK_UN)
                self._take(lock, fcntl.LOCK_EX, name)
                if not self._file(name, "ready").exists():
                    self._make(name, make)
        except BaseException:
            os.close(lock)
            raise
        self._locks.append(lock)
        os.utime(self._file(name, "ready"))
        return self._root / name

    def _is_ready(self, lock: int, name: str) -> bool:
        """Looked at under the shared lock, also by who has just made it: between two locks somebody may drop it."""
        self._take(lock, fcntl.LOCK_SH, name)
        return self._file(name, "ready").exists()

    def _make(self, name: str, make: Callable[[Path], None]) -> None:
        self._tell_again(name)
        path = self._root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        try:
            make(path)
            size = sum(entry.lstat().st_size for entry in path.rglob("*"))
        except (SetupFailed, OSError) as error:
            shutil.rmtree(path, ignore_errors=True)
            text = str(error) if isinstance(error, SetupFailed) else f"{type(error).__name__}: {error}"
            self._write(name, "failed", text)
            raise SetupFailed(text) from error
        self._file(name, "failed").unlink(missing_ok=True)
        self._write(name, "ready", str(size))
        self._make_room(name)

    def _tell_again(self, name: str) -> None:
        failed = self._file(name, "failed")
        try:
            if time.time() - failed.stat().st_mtime < FAILED_S:
                raise SetupFailed(failed.read_text())
        except FileNotFoundError:
            return

    def _make_room(self, keep: str) -> None:
        """Drop what nobody uses, the longest unused first, until the rest is no more than the bound."""
        marks = sorted(self._root.glob("*.ready"), key=lambda mark: mark.stat().st_mtime)
        sizes = {mark: int(mark.read_text()) for mark in marks}
        too_much = sum(sizes.values()) - self._most_bytes
        for mark in marks:
            if too_much <= 0:
                return
            if mark.stem != keep and self._drop(mark):
                too_much -= sizes[mark]

    def _drop(self, mark: Path) -> bool:
        lock = self._open_lock(mark.stem)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mark.unlink()  # before its files: what has no mark is not used
            shutil.rmtree(self._root / mark.stem, ignore_errors=True)
            return True
        except (BlockingIOError, FileNotFoundError):
            return False
        finally:
            os.close(lock)

    def _take(self, lock: int, how: int, name: str) -> None:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(lock, how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SetupFailed(f"Another worker has been making {name} for {self._wait_s:g} s.") from None
                time.sleep(_POLL_S)

    def _open_lock(self, name: str) -> int:
        """Lock files stay: one that is removed and made again would be two."""
        return os.open(self._file(name, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _write(self, name: str, what: str, text: str) -> None:
        unfinished = self._file(name, f"{what}-unfinished")
        unfinished.write_text(text)
        unfinished.replace(self._file(name, what))

    def _file(self, name: str, what: str) -> Path:
        return self._root / f"{name}.{what}"
