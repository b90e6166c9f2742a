"""Shared memory outlives the process that made it: whoever starts next removes what the dead left behind.

A node's directory is `/dev/shm/redray-<uid>-<random>` (TMPDIR where there is no /dev/shm), for this user only. A lock
on the file `owner` in it says that the node lives: the kernel drops it with the process, however that died, and neither
a process id that was given out again nor a clock that was set can mislead anyone.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
import weakref
from pathlib import Path

_OWNER = "owner"
_UNNAMED_SECONDS = 60.0  # how long a directory may take to get its lock and its name


class SharedDirectory:
    """A directory for shared memory and sockets that lives as long as this process, or until `close`."""

    def __init__(self, base: str | Path | None = None) -> None:
        """Raises OSError if the directory cannot be made."""
        base = Path(base) if base is not None else shared_memory_base()
        name = f"{_prefix()}{os.urandom(8).hex()}"
        unnamed = base / f".{name}"
        unnamed.mkdir(mode=0o700)
        # It gets its name only with the lock held: a janitor never sees a living node's directory without it.
        self._lock = os.open(unnamed / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._lock, f"{os.getpid()}\n".encode())
        self.path = unnamed.rename(base / name)
        self._pid = os.getpid()
        _alive.add(self)

    def close(self) -> None:
        """Remove the directory with all that is in it. Does nothing in a forked child, whose directory this is not."""
        if self._lock < 0 or self._pid != os.getpid():
            return
        _remove(self.path)
        self._forget()

    def _forget(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


_alive: weakref.WeakSet[SharedDirectory] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A child shares its parent's lock: it would keep a dead node's directory alive."""
    for directory in list(_alive):
        directory._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


def shared_memory_base() -> Path:
    return Path("/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else os.environ.get("TMPDIR", "/tmp"))


def sweep(base: str | Path | None = None) -> list[Path]:
    """Remove the directories of this user's dead nodes, and return which they were."""
    base = Path(base) if base is not None else shared_memory_base()
    removed = []
    for entry in os.scandir(base):
        named = entry.name.startswith(_prefix())
        if (named or entry.name.startswith(f".{_prefix()}")) and _remove_if_dead(Path(entry.path), named):
            removed.append(Path(entry.path))
    return removed


def _remove_if_dead(path: Path, named: bool) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False  # a link or another user's: not ours to follow or to remove
        if not named and abs(time.time() - found.st_mtime) < _UNNAMED_SECONDS:
            return False
        lock = os.open(path / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _remove(path) if path.is_dir() else False
    except OSError:  # a link in place of the lock, or no right to open it: no node of ours made that
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until it is removed: two janitors share the work
        return _remove(path)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _remove(path: Path) -> bool:
    """The lock's file goes last: if this process dies half way, the next janitor finds a directory like any other."""
    import shutil

    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != _OWNER:
            Path(entry.path).unlink(missing_ok=True)
    (path / _OWNER).unlink(missing_ok=True)
    try:
        path.rmdir()
    except OSError:
        return False  # another janitor was faster, or what remains could not be removed: the next one tries again
    return True


def _prefix() -> str:
    return f"redray-{os.getuid()}-"
