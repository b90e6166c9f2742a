"""Reading a process' inbox: a stream, read from the reader's own position,
so that what was not read survives a lost connection."""

from __future__ import annotations

import time
from typing import Any

from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost, ReplyError, pack

RECONNECT_S = 0.1
BLOCK_MS = 5_000

Message = tuple[str, str, bytes]


class InboxLink:
    """`receive` gives messages (kind, id, data);
    `commit`, once they were dealt with, makes sure they are not read again."""

    def __init__(self, address: Address, inbox: str, name: str) -> None:
        self._address = address
        self._inbox = inbox
        self._name = name
        self._connection: Connection | None = None
        self._next_try = 0.0
        self._position = "0-0"  # up to here everything was dealt with
        self._reading = "0-0"  # up to here everything was received
        self._told = "0-0"
        self._asked = False  # an XREAD is on its way
        self._entries = 0
        self.unacknowledged = 0  # entries that were dealt with, and that no call has told of

    def fileno(self) -> int:
        return self._connection.fileno() if self._connection is not None else -1

    def connect(self) -> bool:
        """Connect if there is no connection; True when this call did."""
        if self._connection is not None or time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + RECONNECT_S
        try:
            connection = Connection.open(self._address, 1.0, self._name)
            self._reading = self._position
            self._entries = 0
            self._ask(connection)
        except (ConnectionError, TimeoutError):
            return False
        self._connection = connection
        return True

    def _ask(self, connection: Connection) -> None:
        self._asked = True
        connection.send(pack("XREAD", "COUNT", 500, "BLOCK", BLOCK_MS, "STREAMS", self._inbox, self._reading))

    def prepare(self) -> None:
        """Ask for what comes next, before waiting for it: after a reply the reader has better to do than to send."""
        if self._connection is not None and not self._asked:
            try:
                self._ask(self._connection)
            except ConnectionLost:
                self._drop()

    def receive(self) -> list[Message]:
        """Messages that have come. Messages of an earlier `receive` that were not committed come again."""
        if self._connection is None:
            return []
        if self._reading != self._position:
            self._drop()  # whoever read these was interrupted before the commit
            return []
        messages: list[Message] = []
        try:
            for reply in self._connection.receive():
                if isinstance(reply, ReplyError):
                    raise ConnectionLost(str(reply))
                messages += self._messages(reply)
                self._asked = False
        except ConnectionLost:
            self._drop()
        return messages

    def _messages(self, reply: Any) -> list[Message]:
        messages = []
        for _, entries in reply or ():
            for position, texts in entries:
                self._reading = position.decode()
                self._entries += 1
                for at in range(0, len(texts) - 2, 3):
                    messages.append((texts[at].decode(), texts[at + 1].decode(), texts[at + 2]))
        return messages

    def commit(self) -> None:
        self._position = self._reading
        self.unacknowledged += self._entries
        self._entries = 0

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._reading = self._position

    def take_seen(self) -> str:
        """The position from which entries must be kept, for the next call to tell; "" if that was told before."""
        if self._told == self._position:
            return ""
        self._told = self._position
        self.unacknowledged = 0
        ms, _, sequence = self._position.partition("-")
        return f"{ms}-{int(sequence) + 1}"

    def close(self) -> None:
        self._drop()
