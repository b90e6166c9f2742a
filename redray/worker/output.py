"""What workers print: redirected into pipes on the worker's side, cut into lines on the node's."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import deque
from typing import TextIO

MAX_LINE = 64 * 1024
TAIL_LINES = 20
_READ = 64 * 1024
_END_OF_TASK = b"\0redray: end of task\0"  # a line on stderr: what stands before it says nothing about a later crash


# ---- worker ----------------------------------------------------------------------------------------------------------
_spare: tuple[int, int] | None = None  # copies of the pipes: what user code closes can be opened again


def redirect(out: int, err: int) -> None:
    """Make `out` and `err` this process's standard output and error, line buffered. What cannot be encoded is escaped,
    not raised."""
    global _spare
    _spare = (os.dup(out), os.dup(err))
    _open_streams()


class _ErrorStream(io.TextIOWrapper):
    """Knows whether anything was written to it since the last task."""

    was_written = False

    def write(self, text: str) -> int:
        self.was_written = True
        return super().write(text)


def flush(ends_task: bool = False) -> None:
    """After each task: a partial line must not wait in a buffer for the next one. Streams that user code closed are
    opened again. `ends_task`: what was written belongs to no later task."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        if ends_task and isinstance(sys.stderr, _ErrorStream) and sys.stderr.was_written:
            sys.stderr.was_written = False
            os.write(2, _END_OF_TASK + b"\n")
    except (ValueError, OSError, AttributeError):  # closed, or replaced by something that is no stream
        restore()


def check() -> None:
    """Put the streams back if descriptor 1 or 2 is no longer the pipe. Too slow for after each task; for after a
    failure, and before waiting for work."""
    if _spare is not None and not (_same_file(_spare[0], 1) and _same_file(_spare[1], 2)):
        _open_streams()


def restore() -> None:
    """Put back the streams of `redirect`, whatever user code did to `sys.stdout` or to descriptors 1 and 2."""
    if _spare is not None:
        _open_streams()


def _same_file(ours: int, used: int) -> bool:
    try:
        return os.path.samestat(os.fstat(ours), os.fstat(used))
    except OSError:
        return False


def _open_streams() -> None:
    assert _spare is not None
    os.dup2(_spare[0], 1)
    os.dup2(_spare[1], 2)
    sys.stdout = sys.__stdout__ = _open(1, io.TextIOWrapper)  # type: ignore[misc,assignment]
    sys.stderr = sys.__stderr__ = _open(2, _ErrorStream)  # type: ignore[misc,assignment]
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]


def _open(fd: int, kind: type[io.TextIOWrapper]) -> TextIO:
    raw = open(fd, "wb", closefd=False)
    return kind(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


# ---- node ------------------------------------------------------------------------------------------------------------
class LineReader:
    """Lines out of a worker's pipe, without ever blocking and in bounded memory.

    Args:
        fd: the read end, owned by the reader from now on.
        keep: how many of the last lines `tail` holds.
    """

    def __init__(self, fd: int, keep: int = TAIL_LINES) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.tail: deque[str] = deque(maxlen=keep)
        self.at_end = False
        self._partial = bytearray()

    def fileno(self) -> int:
        return self.fd

    def read(self) -> list[str]:
        """The whole lines that one read gives, without their ends; a line longer than `MAX_LINE` bytes comes in pieces.

        At the end of the pipe `at_end` becomes true and a last line without an end is given too.
        """
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.at_end = True
            return self._take([bytes(self._partial)] if self._partial else [], b"")
        *whole, rest = (bytes(self._partial) + data).split(b"\n")
        return self._take(whole, rest)

    def drain(self) -> list[str]:
        """All that is left, for a worker that is dead. A child of it may hold the pipe open: what is not there yet is
        not waited for."""
        lines: list[str] = []
        while not self.at_end:
            before = len(self._partial)
            got = self.read()
            if not got and len(self._partial) == before:
                break
            lines += got
        return lines + (self._take([bytes(self._partial)], b"") if self._partial else [])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def _take(self, whole: list[bytes], rest: bytes) -> list[str]:
        texts: list[str] = []
        for line in whole:
            if line.endswith(_END_OF_TASK):
                if line != _END_OF_TASK:
                    texts += _texts(_cut(line.removesuffix(_END_OF_TASK)))
                self.tail.clear()
            else:
                lines = _texts(_cut(line))
                self.tail.extend(lines)
                texts += lines
        *full, rest = _cut(rest)
        self._partial = bytearray(rest)
        self.tail.extend(_texts(full))
        return texts + _texts(full)


def _texts(lines: list[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


def _cut(line: bytes) -> list[bytes]:
    return [line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [b""]
