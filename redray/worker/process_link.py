"""A node's end of the socket to one of its processes."""

from __future__ import annotations

import socket
from collections import deque

from redray.messages import Ack, _Message, frame, split
from redray.worker.actions import Dispatch

READ = 1 << 18
ACK_EVERY = 64


class ProcessLink:
    """`taken` is the number of the last call taken from the process, `acked` the last that Redis has."""

    def __init__(self, sock: socket.socket, kind: str = "") -> None:
        sock.setblocking(False)
        self.socket = sock
        self.kind = kind
        self.worker = ""
        self.job = ""
        self.pid = 0
        self.taken = 0
        self.acked = 0
        self.name = ""  # of what runs or ran there last, for its output
        self.class_name = ""  # of the actor that lives there
        self.functions: set[str] = set()
        self.told_job = ""
        self.held: deque[Dispatch] = deque()
        self.at_end = False
        self._told = 0
        self._failures: list[tuple[int, str, str]] = []
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def post(self, message: _Message) -> None:
        self._out += frame(message)

    def read(self) -> list[bytes]:
        """The frames that have come; `at_end` is set when the other side is gone."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.at_end = True
            return []
        self._in += data
        return split(self._in)

    def read_to_end(self) -> list[bytes]:
        """What a dead process sent before it died."""
        frames: list[bytes] = []
        while not self.at_end:
            before = len(self._in)
            got = self.read()
            if not got and len(self._in) == before:
                break
            frames += got
        return frames

    def acknowledge(self, number: int, failure: tuple[int, str, str] | None = None) -> None:
        """Redis has answered this call. Acknowledgements are told now and then: they only let the sender forget."""
        self.acked = number
        if failure is not None:
            self._failures.append(failure)
        if self._failures or number - self._told >= ACK_EVERY:
            self.tell_acks()

    def tell_acks(self) -> None:
        if self.acked > self._told or self._failures:
            self.post(Ack(self.acked, self._failures))
            self._told, self._failures = self.acked, []

    def flush(self) -> bool:
        """Send what the socket takes; True when nothing is left."""
        if not self._out:
            return True
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.at_end = True
            self._out.clear()
        return True

    def close(self) -> None:
        self.socket.close()
