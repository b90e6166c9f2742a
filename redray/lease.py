"""The lease of a driver without a node: renewed every second, so that its death is noticed and its job ended."""

from __future__ import annotations

import threading

from redray.gcs import nodes
from redray.gcs.address import Address
from redray.gcs.client import Connection, ReplyError
from redray.gcs.keys import Keys
from redray.gcs.scripts import load_scripts

RENEW_S = 1.0


class LeaseKeeper:
    def __init__(self, address: Address, keys: Keys, member: str) -> None:
        self._address = address
        self._keys = keys
        self._member = member
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="redray-lease", daemon=True).start()

    def _run(self) -> None:
        command = nodes.renew(self._keys, self._member, 0, "")
        script = load_scripts(self._keys.tag)[command.verb]
        connection: Connection | None = None
        while not self._ended.wait(RENEW_S):
            try:
                connection = connection or Connection.open(self._address, 1.0, "redray-lease")
                if connection.run(script, command.keys, command.args, 5.0)[0] != b"OK":
                    return  # declared dead: the channel says so with its next call
            except (ConnectionError, TimeoutError, ReplyError):
                connection = None  # Redis is away: it names nobody as dead for a while after it came back

    def close(self) -> None:
        self._ended.set()
