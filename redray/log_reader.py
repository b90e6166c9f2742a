"""What the job's workers print, shown by the driver: `(name pid=N) text`, read from the job's capped stream."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from redray import progress
from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost, ReplyError
from redray.log_lines import Deduplicator, Line, Options, Style

BLOCK_MS = 5_000
_LINES = 500


class LogReader:
    """Reads in a thread until `close`.

    Args:
        stream: name of the job's stream.
        own_node: key of the driver's node, "" if it has none: lines from other hosts say where they come from.
    """

    def __init__(self, address: Address, stream: str, own_node: str = "") -> None:
        self._address = address
        self._stream = stream
        self._position = "0-0"
        self._closing = False
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        options = Options.of(os.environ)
        self._own_node = own_node
        self._lines = Deduplicator(options, Style("", _shows_colour(), options.colour_by_process))
        self._thread = threading.Thread(target=self._run, name="redray-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.closing(Connection.open(self._address, 5.0, "redray-logs")) as connection:
                self._connection = connection
                if self._own_node:
                    host = connection.call("HGET", self._own_node, "host")
                    self._lines.style = self._lines.style._replace(own_host=(host or b"").decode())
                while not self._closing:
                    block = ("BLOCK", self._patience_ms(), "STREAMS", self._stream, self._position)
                    self._show(connection.call("XREAD", "COUNT", _LINES, *block))
        except (ConnectionError, ReplyError, OSError, ValueError):
            return  # the cluster is gone, or going: whoever calls next is told so by the session

    def _patience_ms(self) -> int:
        due = self._lines.due()
        return BLOCK_MS if due is None else max(1, min(BLOCK_MS, int((due - time.monotonic()) * 1000) + 1))

    def _show(self, reply: Any) -> None:
        with self._lock:
            for _, entries in reply or ():
                for position, texts in entries:
                    if _is_after(position.decode(), self._position):
                        self._position = position.decode()
                        self._take(
                            {texts[i].decode(): texts[i + 1].decode(errors="replace") for i in range(0, len(texts), 2)}
                        )
            _print(self._lines.overdue(time.monotonic()))

    def _take(self, entry: dict[str, str]) -> None:
        now, shown = time.monotonic(), ""
        for text in entry["text"].split("\n"):
            if progress.is_update(text):
                progress.show_update(text)
            else:
                line = Line(entry["name"], entry["pid"], entry.get("host", ""), entry["stream"], text)
                shown += self._lines.take(line, now)
        _print([(entry["stream"], shown)])

    def close(self) -> None:
        """Show what was printed up to now, and stop."""
        self._closing = True
        with contextlib.suppress(ConnectionError, ConnectionLost, ReplyError, TimeoutError):
            last = Connection.open(self._address, 1.0)
            self._show(last.call("XREAD", "COUNT", 10_000, "STREAMS", self._stream, self._position, timeout=1.0))
            last.close()
        with self._lock:
            _print(self._lines.rest())
        if self._connection is not None:
            self._connection.hang_up()
        self._thread.join(1.0)


def _is_after(one: str, other: str) -> bool:
    return tuple(map(int, one.split("-"))) > tuple(map(int, other.split("-")))


def _shows_colour() -> bool:
    """On a terminal, unless its user asked for none (https://no-color.org)."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return False


def _print(pieces: Iterable[tuple[str, str]]) -> None:
    """Each in one piece: what the driver itself prints meanwhile must not come in the middle of a line."""
    for name, text in pieces:
        stream = sys.stderr if name == "stderr" else sys.stdout
        if text:
            with contextlib.suppress(ValueError, OSError):  # the driver closed its own stream
                progress.write(stream, text)
                stream.flush()
