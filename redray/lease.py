"""The lease of a driver without a node, renewed by a process of its own.

A thread would not do: a debugger stops it with the driver, and a long call that keeps the interpreter's lock starves
it. The process also watches the driver, and ends its job at once when it dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

import msgspec

from redray.gcs import nodes, processes
from redray.gcs.address import Address
from redray.gcs.check import scripts_for
from redray.gcs.client import Connection, ReplyError
from redray.gcs.command import DIRECT, Command
from redray.gcs.keys import Keys
from redray.gcs.scripts import Scripts

RENEW_S = 1.0


class LeaseConfig(msgspec.Struct):
    """Told on standard input, because it holds a password and command lines can be read by all."""

    redis_url: str
    tag: str
    driver: str
    pid: int


class LeaseKeeper:
    """The driver's side: starts the process, and takes it back at a clean end."""

    def __init__(self, address: Address, keys: Keys, driver: str) -> None:
        from redray.worker.launch import python_environment

        reading, self._pipe = os.pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ]
        argv = [sys.executable, "-m", "redray.lease"]
        # A session of its own: Ctrl-C in the terminal is for the driver, which may survive it.
        self._pid = os.posix_spawn(sys.executable, argv, python_environment(), file_actions=actions, setsid=True)
        self._owner = os.getpid()
        os.close(reading)
        os.write(self._pipe, msgspec.json.encode(LeaseConfig(address.url(), keys.tag, driver, self._owner)) + b"\n")

    def close(self) -> None:
        if self._pipe < 0 or os.getpid() != self._owner:
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody else reaped it
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._pipe)
        self._pipe = -1


class Renewer:
    """The process' side."""

    def __init__(self, config: LeaseConfig) -> None:
        self._scripts: Scripts | None = None
        self._address = Address.parse(config.redis_url)
        self._keys = Keys(config.tag)
        self._driver = config.driver
        self._connection: Connection | None = None

    def run(self, driver_end: select.poll) -> None:
        renewal = nodes.renew(self._keys, f"driver:{self._driver}", 0, "")
        while not driver_end.poll(RENEW_S * 1000):
            if self._ask(renewal) == b"FENCED":
                return  # declared dead: the driver is told so with its next call
        self._ask(processes.end(self._keys, self._driver, DIRECT, 0, False))

    def _ask(self, command: Command) -> bytes:
        """The outcome, b"" while Redis is away: it names nobody as dead for a while after it came back."""
        try:
            if self._connection is None:
                self._connection = Connection.open(self._address, 1.0, f"redray-lease-{self._driver[:8]}")
                self._scripts = scripts_for(self._connection, self._keys.tag)
            assert self._scripts is not None
            script = self._scripts[command.verb]
            outcome: bytes = self._connection.run(script, command.keys, command.args, 5.0)[0]
            return outcome
        except (ConnectionError, TimeoutError, ReplyError):
            self._connection = None
            return b""


def _watch(pid: int) -> select.poll:
    """Readable when the driver has ended: its end of the pipe is closed,
    or (a forked child may keep that open) it is gone."""
    ends = select.poll()
    ends.register(0, select.POLLIN)
    with contextlib.suppress(OSError, AttributeError):
        ends.register(os.pidfd_open(pid), select.POLLIN)
    return ends


def main() -> None:
    said = bytearray()
    while not said.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            return  # the driver died before it had said anything; the lease it got with its first call runs out
        said += data
    config = msgspec.json.decode(said, type=LeaseConfig)
    Renewer(config).run(_watch(config.pid))


if __name__ == "__main__":
    main()
