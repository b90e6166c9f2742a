"""A process' one ordered way to the cluster: through its node, or straight to Redis when it has none.

Calls are numbered and kept until they are acknowledged. When the way breaks, another is opened and what was not
acknowledged is sent again: Redis answers REPEAT to what it had.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from redray import messages
from redray.exceptions import RaySystemError
from redray.gcs import processes
from redray.gcs.address import Address
from redray.gcs.check import scripts_for
from redray.gcs.client import Connection, ConnectionLost, ReplyError
from redray.gcs.command import DIRECT, Command, envelope
from redray.gcs.keys import Keys

READ = 1 << 16  # bytes; for more the C library may map fresh memory at each call


class ChannelLost(ConnectionError):
    """This way to the cluster is gone."""


class Unacknowledged:
    """The calls that Redis may not have: numbered here, in one place, whatever way they go."""

    def __init__(self) -> None:
        self.number = 0
        self.heard = 0  # the number of the last call that a node may have heard
        self._heard_by = ""
        self._calls: deque[messages.Call] = deque()

    def add(self, seen: str, command: Command, wants_reply: bool) -> messages.Call:
        self.number += 1
        args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in command.args]
        call = messages.Call(self.number, seen, command.verb, args, wants_reply)
        self._calls.append(call)
        return call

    def acknowledge(self, number: int) -> None:
        while self._calls and self._calls[0].number <= number:
            self._calls.popleft()

    def hear(self, number: int, node: str) -> None:
        self.heard, self._heard_by = max(self.heard, number), node

    def again(self, number: int, node: str = "") -> list[messages.Call]:
        """The calls after this one, for another way: through `node`, or straight to Redis. A submission that a lost
        node may have begun to run, and Redis has not, says so: an L for each of its tasks."""
        others = self.heard if node != self._heard_by else 0
        return [_as_lost(call) if call.number <= others else call for call in self._calls if call.number > number]

    @property
    def last_acknowledged(self) -> int:
        return self._calls[0].number - 1 if self._calls else self.number


def _as_lost(call: messages.Call) -> messages.Call:
    if call.verb != "task_submit":
        return call
    lost = b"L" * (len(call.args) - 1)
    return messages.Call(call.number, call.seen, call.verb, [lost, *call.args[1:]], call.wants_reply)


class NodeChannel:
    """Through the node of this machine. `node`, `arena` and so on are what its Welcome said."""

    def __init__(
        self,
        calls: Unacknowledged,
        hello: Callable[[int], messages.Hello],
        path: str,
        sock: socket.socket | None,
        lock: AbstractContextManager[Any],  # a thread may take it twice
    ) -> None:
        self._calls = calls
        self._hello = hello
        self._path = path
        self._out = bytearray()
        self._in = bytearray()
        self._sent = 0
        self._ends: deque[tuple[int, int]] = deque()  # (bytes up to the end of a call, its number), until they are sent
        # True while bytes are under way between the socket and a buffer. Found true at the next step, an interrupt
        # (Ctrl-C) came in between, and nobody can say which bytes were handled: then a new connection is made, and the
        # calls are sent again.
        self._sending = self._receiving = False
        self._lock = lock
        sock = sock if sock is not None else self._connect()
        sock.setblocking(True)
        self.welcome: messages.Welcome
        try:
            self._begin(sock)
        except BaseException:
            sock.close()
            raise

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise ChannelLost(f"The node at {self._path} does not answer: {error.strerror}.") from error
        return sock

    def _greet(self, sock: socket.socket) -> tuple[messages.Welcome, deque[bytes], bytearray]:
        """(the Welcome, messages that came with it, the beginning of the next one). Until then the socket blocks."""
        unread = bytearray()
        try:
            sock.sendall(messages.frame(self._hello(self._calls.last_acknowledged)))
            bodies: list[bytes] = []
            while not bodies:
                data = sock.recv(READ)
                if not data:
                    raise ChannelLost("The node closed the connection.")
                unread += data
                bodies = messages.split(unread)
        except OSError as error:
            raise ChannelLost(f"The node went away: {error}.") from error
        welcome = messages.decode_to_process(bodies[0])
        if not isinstance(welcome, messages.Welcome):
            raise ChannelLost(f"The node answered with {type(welcome).__name__} instead of Welcome.")
        sock.setblocking(False)
        return welcome, deque(bodies[1:]), unread

    def _begin(self, sock: socket.socket) -> None:
        """Speak through this socket from now on, and say again what the node has not taken."""
        welcome, early, unread = self._greet(sock)
        self._socket, self._in, self._early, self.welcome = sock, unread, early, welcome
        self._out.clear()
        self._ends.clear()
        for call in self._calls.again(welcome.last, welcome.node):
            self._add(call)

    def _add(self, call: messages.Call) -> None:
        self._out += messages.frame(call)
        self._ends.append((self._sent + len(self._out), call.number))

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out)

    @property
    def has_heard(self) -> bool:
        """Messages came together with the Welcome: `receive` gives them, though the socket is not readable."""
        return bool(self._early)

    def post(self, message: messages.AnyMessage) -> None:
        self._out += messages.frame(message)

    def call(self, seen: str, command: Command, wants_reply: bool = False) -> int:
        call = self._calls.add(seen, command, wants_reply)
        self._add(call)
        return call.number

    def flush(self) -> None:
        """Send what the socket takes. Never blocks: a node that is busy sending to us would never read.
        The lock is held."""
        if not self._out:
            return
        if self._sending:
            self._mend()
        try:
            while self._out:
                self._sending = True
                sent = self._socket.send(self._out)
                del self._out[:sent]
                self._sent += sent
                while self._ends and self._ends[0][0] <= self._sent:
                    self._calls.hear(self._ends.popleft()[1], self.welcome.node)
                self._sending = False
        except BlockingIOError:
            self._sending = False
        except OSError as error:
            self._sending = False
            raise ChannelLost(f"The node went away: {error}.") from error

    def receive(self) -> list[Any]:
        """Messages that have come, never waiting. For one thread at a time."""
        if self._receiving:
            self._mend()
        bodies = list(self._early)
        self._early.clear()
        sock = self._socket
        try:
            self._receiving = True
            data = sock.recv(READ)
            if sock is self._socket:
                self._in += data
                bodies += messages.split(self._in)
            self._receiving = False
        except BlockingIOError:
            self._receiving = False
            return [messages.decode_to_process(body) for body in bodies]
        except OSError as error:
            raise ChannelLost(f"The node went away: {error}.") from error
        if not data:
            with self._lock:  # another thread may be about to replace this socket, whose end the node closed then
                if sock is self._socket:
                    raise ChannelLost("The node has ended.")
        return [messages.decode_to_process(body) for body in bodies]

    def _mend(self) -> None:
        if not self._path:
            raise ChannelLost("The connection to the node was interrupted.")
        with self._lock:
            self._assume_sent()
            self._sending = True  # a second interrupt, in here, is mended once more
            fresh, old = self._connect(), self._socket
            try:
                # The node must hear on the new connection who this is before it sees the end of the old one: else it
                # takes a driver for gone, and ends its job.
                self._begin(fresh)
            except BaseException:
                fresh.close()
                raise
            old.close()
            self._sending = self._receiving = False

    def _assume_sent(self) -> None:
        """A send was interrupted: how much of what was to be sent has gone, nobody can say."""
        if self._sending and self._ends:
            self._calls.hear(self._ends[-1][1], self.welcome.node)

    def close(self) -> None:
        self._assume_sent()
        self._socket.close()


class DirectChannel:
    """Straight to Redis: for a driver on a machine without a node, or whose node has died."""

    welcome = None
    has_heard = False

    def __init__(self, calls: Unacknowledged, hello: messages.Hello, address: Address, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys
        self._worker = hello.worker
        self._waiting: deque[messages.Call] = deque()
        self._connection = Connection.open(address, 5.0, f"redray-{hello.kind}-{hello.worker[:8]}")
        try:
            self._open(hello)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, hello: messages.Hello) -> None:
        keys = self._keys
        self._scripts = scripts_for(self._connection, keys.tag)
        opening = processes.open(
            keys, hello.worker, DIRECT, 0, hello.kind, hello.job, os.getpid(), hello.namespace, hello.config
        )
        reply = self._connection.run(self._scripts[opening.verb], opening.keys, opening.args)
        if reply[0] != b"OK":
            raise RaySystemError("The cluster has ended this process: its lease ran out.")
        self._connection.load_all([self._scripts[name] for name in self._scripts])
        for call in self._calls.again(int(reply[1])):
            self._send(call)

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def wants_to_write(self) -> bool:
        return self._connection.pending_output > 0

    def post(self, message: messages.AnyMessage) -> None:
        """There is no node to hear it: only calls matter here."""

    def call(self, seen: str, command: Command, wants_reply: bool = False) -> int:
        call = self._calls.add(seen, command, wants_reply)
        self._send(call)
        return call.number

    def _send(self, call: messages.Call) -> None:
        from redray.gcs.client import script_call

        args = [*envelope(self._worker, DIRECT, call.number, call.seen), *call.args]
        if call.verb == "task_submit" and not call.args[0]:
            args[5] = "-" * (len(args) - 6)
        self._waiting.append(call)
        with contextlib.suppress(ConnectionLost):  # the call is kept; `flush` and `receive` say so
            self._connection.send(script_call(self._scripts[call.verb], (self._keys.process(self._worker),), args))

    def flush(self) -> None:
        try:
            self._connection.flush()
        except ConnectionLost as error:
            raise ChannelLost(str(error)) from error

    def receive(self) -> list[Any]:
        heard: list[Any] = []
        try:
            replies = self._connection.receive()
        except ConnectionLost as error:
            raise ChannelLost(str(error)) from error
        for reply in replies:
            call = self._waiting.popleft()
            failures = []
            if isinstance(reply, ReplyError):
                if reply.code == "NOSCRIPT":
                    raise ChannelLost("Redis lost its scripts.")
                failures = [(call.number, "ERROR", self._scripts[call.verb].explain(str(reply)))]
            elif reply[0] not in (b"OK", b"REPEAT") and not call.wants_reply:
                failures = [(call.number, reply[0].decode(), "")]
            if call.wants_reply:
                heard.append(
                    messages.CallReply(call.number, str(reply) if isinstance(reply, ReplyError) else _plain(reply))
                )
            heard.append(messages.Ack(call.number, failures))
        return heard

    def close(self) -> None:
        self._connection.close()


def _plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply
