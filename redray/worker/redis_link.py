"""A node's way to Redis: one pipelined connection for everything it and its processes say.

Calls are kept until they are answered. When the connection breaks, or the server lost its scripts, a new one is opened
and all of them are sent again, in order: numbered calls that had been done are answered REPEAT, the others are done
now.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost, ReplyError, pack
from redray.gcs.command import DIRECT, Argument, Command, envelope
from redray.gcs.keys import Keys
from redray.gcs.scripts import Script

OnReply = Callable[[Any], None]
RECONNECT_S = 0.1


class RedisLink:
    def __init__(
        self, address: Address, keys: Keys, scripts: Mapping[str, Script], node: str, take_seen: Callable[[], str]
    ) -> None:
        self.in_flight = 0
        self._address = address
        self._keys = keys
        self._scripts = scripts
        self._node = node
        self._take_seen = take_seen
        self._number = 0
        self._unanswered: deque[tuple[bytes, OnReply | None, str]] = deque()
        self._connection: Connection | None = None
        self._next_try = 0.0

    # ---- sending -----------------------------------------------------------------------------------------------------
    def call(self, command: Command, on_reply: OnReply | None = None) -> None:
        """A numbered call on the node's own channel: its order is this object's to keep, so a gap in it is a bug."""
        self._number += 1

        def on_answer(reply: Any) -> None:
            if isinstance(reply, list) and reply[0] == b"GAP":
                raise RuntimeError(f"Redis misses a call of this node before its {command.verb}: it has {reply[1]}.")
            if on_reply is not None:
                on_reply(reply)
            elif isinstance(reply, ReplyError):
                raise reply

        args = envelope(self._node, DIRECT, self._number, self._take_seen())
        self._send_script(command.verb, (self._keys.process(self._node),), [*args, *command.args], on_answer)

    def relay(self, worker: str, number: int, seen: str, verb: str, args: list[Any], on_reply: OnReply | None) -> None:
        """A numbered call of a local process, on its own channel, by way of this node."""
        full = envelope(worker, self._node, number, seen)
        self._send_script(verb, (self._keys.process(worker),), [*full, *args], on_reply)

    def run(self, command: Command, on_reply: OnReply | None = None) -> None:
        """A script without a number: one that may be repeated at will."""
        self._send_script(command.verb, command.keys, command.args, on_reply)

    def plain(self, on_reply: OnReply | None, *command: Argument) -> None:
        """A Redis command that may be repeated at will."""
        self._send(pack(*command), on_reply, str(command[0]))

    def _send_script(self, verb: str, keys: tuple[str, ...], args: list[Argument], on_reply: OnReply | None) -> None:
        script = self._scripts[verb]
        self._send(pack("EVALSHA", script.sha, len(keys), *keys, *args), on_reply, verb)

    def _send(self, packed: bytes, on_reply: OnReply | None, what: str) -> None:
        self._unanswered.append((packed, on_reply, what))
        self.in_flight += 1
        if self._connection is not None:
            try:
                self._connection.post(packed)
            except ConnectionLost:
                self._lose()

    # ---- receiving ---------------------------------------------------------------------------------------------------
    def fileno(self) -> int:
        return self._connection.fileno() if self._connection is not None else -1

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def wants_to_write(self) -> bool:
        return self._connection is not None and self._connection.pending_output > 0

    def flush(self) -> None:
        """Send what this turn of the loop has gathered, in one system call."""
        if self._connection is not None and self._connection.pending_output:
            try:
                self._connection.flush()
            except ConnectionLost:
                self._lose()

    def turn(self) -> None:
        """Read what has come and call back; send what waits."""
        if self._connection is None:
            return
        try:
            replies = self._connection.receive()
        except ConnectionLost:
            self._lose()
            return
        for reply in replies:
            if isinstance(reply, ReplyError) and reply.code in ("NOSCRIPT", "LOADING", "READONLY", "BUSY"):
                self._lose()
                return
            _, on_reply, what = self._unanswered.popleft()
            self.in_flight -= 1
            if isinstance(reply, ReplyError) and what in self._scripts:
                reply = ReplyError(self._scripts[what].explain(str(reply)))
            if on_reply is not None:
                on_reply(reply)
            elif isinstance(reply, ReplyError):
                raise reply

    def _lose(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._next_try = time.monotonic()

    def connect(self) -> bool:
        """Try to be connected; sends again everything that was not answered. True when this call connected."""
        if self._connection is not None or time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + RECONNECT_S
        try:
            connection = Connection.open(self._address, 1.0, f"redray-node-{self._node[:8]}")
            connection.load_all([self._scripts[name] for name in self._scripts])
            for packed, _, _ in self._unanswered:
                connection.send(packed)
        except (ConnectionError, TimeoutError, ReplyError):
            return False
        self._connection = connection
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
