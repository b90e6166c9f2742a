"""Ctrl-C waits while the books of a session are open.

Python raises KeyboardInterrupt between any two steps of the main thread. In the middle of numbering a call, or between
taking a message and noting it, that would leave a gap that nothing closes: every later call would wait for ever. So
the session's handler of SIGINT only takes a note while the main thread is inside `shield`, and raises at its end.
"""

from __future__ import annotations

# Its getsignal makes no enum of the answer: it is asked at every call of the API.
import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGINT = int(signal.SIGINT)
_main = threading.main_thread().ident
_depth = 0  # of shields around what the main thread does now
_waiting: FrameType | None = None
_is_waiting = False
_before: Callable[[int, FrameType | None], Any] | None = None  # whose place ours has taken


class Shield:
    """`with shield:` nothing in here waits for anything but a lock that is held for a short time."""

    def __enter__(self) -> None:
        global _depth
        if threading.get_ident() == _main:
            _depth += 1

    def __exit__(self, *_: object) -> None:
        global _depth
        if threading.get_ident() == _main:
            _depth -= 1
            if _is_waiting and not _depth:
                _deliver()


class CriticalLock:
    """A threading.RLock, shielded: one that an interrupt left locked would stop all threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        global _depth
        if threading.get_ident() == _main:
            _depth += 1  # before the lock is taken: there is no moment in which it is held and not shielded
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        global _depth
        self._lock.release()
        if threading.get_ident() == _main:
            _depth -= 1
            if _is_waiting and not _depth:
                _deliver()


shield = Shield()


def guard() -> None:
    """Put the handler in its place, again if somebody has set another one since (notebooks do so for each cell).
    Does nothing in other threads, and where SIGINT is ignored or handled by no Python code."""
    global _before
    if threading.get_ident() != _main:
        return
    found = _signal.getsignal(_SIGINT)
    if found is not _handle and callable(found):
        _before = found
        signal.signal(signal.SIGINT, _handle)


def unguard() -> None:
    """Give the place back to whom it belonged, unless somebody has taken it."""
    if threading.get_ident() == _main and _before is not None and signal.getsignal(signal.SIGINT) is _handle:
        signal.signal(signal.SIGINT, _before)


def _handle(number: int, frame: FrameType | None) -> None:
    global _is_waiting, _waiting
    # Who presses it twice means it, whatever becomes of the session; but the depth must stay right even then.
    if _depth and (not _is_waiting or (frame is not None and frame.f_code.co_filename == __file__)):
        _is_waiting, _waiting = True, frame
    elif _before is not None:
        _is_waiting, _waiting = False, None
        _before(number, frame)


def _deliver() -> None:
    global _is_waiting, _waiting
    frame, _is_waiting, _waiting = _waiting, False, None
    if _before is not None:
        _before(signal.SIGINT, frame)
