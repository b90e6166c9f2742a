"""What the job's workers print, shown by the driver: `(name pid=N) text`, read from the job's capped stream."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost, ReplyError

BLOCK_MS = 5_000
_LINES = 500


class LogReader:
    def __init__(self, address: Address, stream: str) -> None:
        self._address = address
        self._stream = stream
        self._position = "0-0"
        self._closing = False
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="redray-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.closing(Connection.open(self._address, 5.0, "redray-logs")) as connection:
                self._connection = connection
                while not self._closing:
                    self._show(
                        connection.call(
                            "XREAD", "COUNT", _LINES, "BLOCK", BLOCK_MS, "STREAMS", self._stream, self._position
                        )
                    )
        except (ConnectionError, ReplyError, OSError, ValueError):
            return  # the cluster is gone, or going: whoever calls next is told so by the session

    def _show(self, reply: Any) -> None:
        with self._lock:
            for _, entries in reply or ():
                for position, texts in entries:
                    if _is_after(position.decode(), self._position):
                        self._position = position.decode()
                        _print_entry(
                            {texts[i].decode(): texts[i + 1].decode(errors="replace") for i in range(0, len(texts), 2)}
                        )

    def close(self) -> None:
        """Show what was printed up to now, and stop."""
        self._closing = True
        with contextlib.suppress(ConnectionError, ConnectionLost, ReplyError, TimeoutError):
            last = Connection.open(self._address, 1.0)
            self._show(last.call("XREAD", "COUNT", 10_000, "STREAMS", self._stream, self._position, timeout=1.0))
            last.close()
        if self._connection is not None:
            self._connection.hang_up()
        self._thread.join(1.0)


def _is_after(one: str, other: str) -> bool:
    return tuple(map(int, one.split("-"))) > tuple(map(int, other.split("-")))


def _print_entry(entry: dict[str, str]) -> None:
    stream = sys.stderr if entry["stream"] == "stderr" else sys.stdout
    prefix = f"({entry['name']} pid={entry['pid']}) " if entry["pid"] else ""
    with contextlib.suppress(ValueError, OSError):  # the driver closed its own stream
        # In one piece: what the driver itself prints meanwhile must not come in the middle of a line.
        stream.write("".join(f"{prefix}{line}\n" for line in entry["text"].split("\n")))
        stream.flush()
