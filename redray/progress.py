"""Progress bars of tasks, drawn by the driver below everything else that is printed.

A worker prints an update as one line of its output (`MAGIC` and JSON), so it travels as all output does.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, TextIO

MAGIC = "__redray_progress__:"
PLAIN_S = 5.0  # between two lines of a bar where no terminal can redraw it
_WIDTH = 30

_lock = threading.RLock()
_bars: dict[str, _Bar] = {}
_drawn = 0  # lines of bars that are on the terminal now


class _Bar:
    """A bar as its last update says."""

    def __init__(self) -> None:
        self.started = self.printed = time.monotonic()
        self.state: dict[str, Any] = {}

    def text(self) -> str:
        """`desc:  40%|####      | 4/10 [00:02, 2.00it/s]`."""
        state = self.state
        seconds = time.monotonic() - self.started
        rate = f"{state['n'] / seconds:.2f}" if seconds > 0.01 else "?"
        timing = f"[{int(seconds) // 60:02d}:{int(seconds) % 60:02d}, {rate}{state['unit']}/s]"
        start = f"{state['desc']}: " if state["desc"] else ""
        if not state["total"]:
            return f"{start}{state['n']}{state['unit']} {timing}"
        share = min(1.0, state["n"] / state["total"])
        bar = ("#" * int(share * _WIDTH)).ljust(_WIDTH)
        return f"{start}{share:4.0%}|{bar}| {state['n']}/{state['total']} {timing}"


def pack(state: dict[str, Any]) -> str:
    """An update: id, desc, n, total (None: not known), unit, closed."""
    return MAGIC + json.dumps(state)


def is_update(line: str) -> bool:
    return line.startswith(MAGIC)


def show_update(line: str, stream: TextIO | None = None) -> None:
    """Draw what an update says; a line that only looks like one is left out."""
    try:
        state = json.loads(line[len(MAGIC) :])
        id, closed = state["id"], state["closed"]
    except (ValueError, KeyError, TypeError):
        return
    stream = stream or sys.stderr
    with _lock:
        bar = _bars.setdefault(id, _Bar())
        is_first, bar.state = not bar.state, state
        if closed:
            del _bars[id]
        if stream.isatty():
            _clear(stream)
            if closed:
                stream.write(bar.text() + "\n")
            _draw(stream)
        elif closed or is_first or time.monotonic() - bar.printed >= PLAIN_S:
            bar.printed = time.monotonic()
            stream.write(bar.text() + "\n")
        stream.flush()


def write(stream: TextIO, text: str) -> None:
    """Print above the bars."""
    with _lock:
        terminal = sys.stderr if _drawn else None
        if terminal is not None:
            _clear(terminal)
            terminal.flush()
        stream.write(text)
        if terminal is not None:
            stream.flush()
            _draw(terminal)
            terminal.flush()


def _clear(terminal: TextIO) -> None:
    global _drawn
    terminal.write("\x1b[1A\x1b[2K" * _drawn)
    _drawn = 0


def _draw(terminal: TextIO) -> None:
    global _drawn
    for bar in _bars.values():
        terminal.write(bar.text() + "\n")
    _drawn = len(_bars)
