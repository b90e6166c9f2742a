"""Raw connections to Redis: hiredis' packer and reader on a socket. The only file that knows redis-py.

A connection never blocks in `send`: what the socket does not take waits in a buffer, because the peer may itself be
blocked on sending to us. `call` and `pipeline` wait for their replies; `send` and `receive` are for loops that watch
`fileno()`. Use one or the other at a time: replies come in the order of the commands.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import hiredis

from redray.gcs.address import Address
from redray.gcs.scripts import Script

if TYPE_CHECKING:
    import redis

Argument = bytes | str | int | float | memoryview
Packed = bytes

_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)

_CHUNK = 1 << 16  # bytes per read, into a buffer that is kept: a fresh one of this size would cost its page faults
_SEND_BUFFER = 1 << 20  # bytes: a batch of a thousand submissions leaves in one system call
_KEEPALIVE = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 3),
    ("TCP_KEEPCNT", 3),
)  # a vanished host shows in about 20 s

# Answers of a server that is only busy: reading its data after a restart, or in a long script. Refusing it here would
# turn the restart of Redis into an error, where it must be a pause (`check_server` waits for the data).
_PASSING = frozenset({"LOADING", "BUSY"})


class ReplyError(Exception):
    """Redis refused a command. `code` is its first word, such as `NOSCRIPT` or `OOM`."""

    @property
    def code(self) -> str:
        return str(self).split(" ", 1)[0]


class ConnectionLost(ConnectionError):
    """This connection can no longer be used; what was sent may or may not have been done."""


def pack(*command: Argument) -> Packed:
    return _pack(command)


def pack_many(commands: Iterable[Sequence[Argument]]) -> Packed:
    return b"".join([_pack(tuple(command)) for command in commands])


def script_call(script: Script, keys: Sequence[Argument], argv: Sequence[Argument]) -> Packed:
    return _pack(("EVALSHA", script.sha, len(keys), *keys, *argv))


class Connection:
    """One socket to Redis. Not safe for use by two threads at once."""

    def __init__(self, sock: socket.socket, address: Address, timeout: float | None = None) -> None:
        sock.setblocking(False)
        self.address = address
        self.timeout = timeout
        self._socket = sock
        self._reader = hiredis.Reader(protocolError=ConnectionLost, replyError=ReplyError)
        self._feed = cast("Callable[[bytearray, int, int], object]", self._reader.feed)
        self._out = bytearray()
        self._unwanted = 0  # replies still to come to calls that were given up (timeout, Ctrl-C): read and thrown away
        self._lost = ""
        self._idle = False  # waiting in poll, between whole steps: an interrupt here leaves the stream in order
        self._buffer = bytearray(_CHUNK)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def open(cls, address: Address | str, timeout: float = 5.0, name: str = "") -> Connection:
        """Connects and logs in. `name` is shown by `CLIENT LIST`.

        Raises:
            ConnectionError: nobody answers at the address.
            redray.exceptions.AuthenticationError: the server refused the password, or wants one.
        """
        address = Address.parse(address) if isinstance(address, str) else address
        try:
            sock = _connect(address, timeout)
        except OSError as error:
            raise ConnectionError(_unreachable(address, error)) from error
        connection = cls(sock, address)
        try:
            connection._log_in(name, timeout)
        except TimeoutError as error:
            connection.close()
            raise ConnectionError(_unreachable(address, error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _log_in(self, name: str, timeout: float) -> None:
        commands: list[tuple[Argument, ...]] = []
        if self.address.password:
            user = (self.address.username,) if self.address.username else ()
            commands.append(("AUTH", *user, self.address.password))
        if self.address.database:
            commands.append(("SELECT", self.address.database))
        commands.append(("CLIENT", "SETNAME", name) if name else ("PING",))
        for command, reply in zip(commands, self.pipeline(commands, timeout), strict=True):
            if isinstance(reply, ReplyError) and reply.code not in _PASSING:
                _explain_refusal(self.address, str(command[0]), reply)

    # ---- blocking --------------------------------------------------------------------------------
    def call(self, *command: Argument, timeout: float | None = None) -> Any:
        """One round trip. Raises ReplyError for an error reply, TimeoutError after `timeout` seconds.

        A reply that comes after its call was given up (timeout, Ctrl-C) is thrown away: the connection stays usable.
        """
        return self._one(_pack(command), timeout)

    def pipeline(self, commands: Sequence[Sequence[Argument]], timeout: float | None = None) -> list[Any]:
        """All commands in one round trip. An error reply stands as a ReplyError in the list."""
        return self._exchange(pack_many(commands), len(commands), timeout)

    def run(
        self, script: Script, keys: Sequence[Argument], argv: Sequence[Argument], timeout: float | None = None
    ) -> Any:
        """Runs a script, loading it first where the server does not know it. Errors name the Lua file and line."""
        call = script_call(script, keys, argv)
        try:
            try:
                return self._one(call, timeout)
            except ReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
            self.load_all((script,), timeout)
            return self._one(call, timeout)
        except ReplyError as error:
            raise ReplyError(script.explain(str(error))) from None

    def load_all(self, scripts: Iterable[Script], timeout: float | None = None) -> None:
        """Teaches the server these scripts in one round trip."""
        loaded = list(scripts)
        replies = self.pipeline([("SCRIPT", "LOAD", script.source) for script in loaded], timeout)
        for script, reply in zip(loaded, replies, strict=True):
            if isinstance(reply, ReplyError):
                raise ReplyError(script.explain(str(reply)))
            if reply != script.sha.encode():
                raise ReplyError(f"ERR the server calls script {script.name} {reply!r}, not {script.sha}.")

    def _one(self, packed: Packed, timeout: float | None) -> Any:
        reply = self._exchange(packed, 1, timeout)[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def _exchange(self, packed: Packed, count: int, timeout: float | None) -> list[Any]:
        deadline = _deadline(self.timeout if timeout is None else timeout)
        replies: list[Any] = []
        try:
            self.send(packed)
            while len(replies) < count:
                self._wait(deadline)
                self._take(replies)
        except BaseException:
            self._give_up(count - len(replies))
            raise
        return replies

    def _give_up(self, unwanted: int) -> None:
        if self._idle:
            self._idle = False
            self._unwanted += unwanted
        elif not self._lost:  # in the middle of a step: nobody can say any more which bytes were handled
            self._lose("was interrupted while it sent or read")

    # ---- for event loops -------------------------------------------------------------------------
    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending_output(self) -> int:
        """Bytes that the socket has not taken: while there are any, watch for writability and call `flush`."""
        return len(self._out)

    def send(self, packed: Packed) -> None:
        """Sends what the socket takes at once and keeps the rest for `flush`."""
        if self._lost:
            raise ConnectionLost(self._lost)
        self._out += packed
        if len(self._out) == len(packed):
            self.flush()

    def post(self, packed: Packed) -> None:
        """Puts this behind what is pending; `flush` sends all of it at once."""
        if self._lost:
            raise ConnectionLost(self._lost)
        self._out += packed

    def flush(self) -> bool:
        """Sends what the socket takes of the pending output. True when nothing is left."""
        if self._lost:
            raise ConnectionLost(self._lost)
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return self._failed(error)
        except BaseException:
            self._give_up(0)
            raise
        return True

    def receive(self, block: bool = False, timeout: float | None = None) -> list[Any]:
        """The replies that are here, errors as values; with `block`, waits for one. Sends pending output meanwhile.

        Raises TimeoutError if `block` and nothing came for `timeout` seconds.
        """
        if self._lost:
            raise ConnectionLost(self._lost)
        if self._out:
            self.flush()
        replies: list[Any] = []
        deadline = _deadline(timeout)
        try:
            self._read()
            self._take(replies)
            while block and not replies:
                self._wait(deadline)
                self._take(replies)
        except BaseException:
            self._give_up(0)
            raise
        return replies

    def hang_up(self) -> None:
        """For another thread: who waits on this connection gets ConnectionLost. Closing it is still up to them."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._lost = self._lost or "The connection was closed."
        self._socket.close()

    # ---- the socket ------------------------------------------------------------------------------
    def _take(self, replies: list[Any]) -> None:
        """Moves the complete replies to `replies`, except for those nobody waits for any more."""
        gets = self._reader.gets
        try:
            while (reply := gets()) is not False:
                if self._unwanted:
                    self._unwanted -= 1
                else:
                    replies.append(reply)
        except ConnectionLost:
            self._lose("does not speak Redis' protocol")
            raise ConnectionLost(self._lost) from None

    def _wait(self, deadline: float | None) -> None:
        """Waits until something was read, or raises TimeoutError. A Ctrl-C meanwhile leaves the stream in order."""
        arrived = False
        while not arrived:
            if self._lost:
                raise ConnectionLost(self._lost)
            if self._out and not self.flush():
                self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)
            self._idle = True
            events = self._events(deadline)
            self._idle = False
            if events & select.POLLOUT:
                self._poll.modify(self._socket, select.POLLIN)
            arrived = bool(events & ~select.POLLOUT) and self._read()

    def _events(self, deadline: float | None) -> int:
        if _buffered(self._socket):
            return select.POLLIN
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        events = self._poll.poll(left) if left is None or left > 0 else []
        if not events:
            raise TimeoutError(f"Redis at {self.address} did not answer in time.")
        return events[0][1]

    def _read(self) -> bool:
        """Feeds what has arrived to the parser. False when there was nothing."""
        try:
            size = self._socket.recv_into(self._buffer)
            self._feed(self._buffer, 0, size)
            while size and _buffered(self._socket):  # TLS: bytes already decrypted do not wake poll
                size = self._socket.recv_into(self._buffer)
                self._feed(self._buffer, 0, size)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return self._failed(error)
        if not size:
            self._lose("was closed by the server")
            raise ConnectionLost(self._lost)
        return True

    def _failed(self, error: OSError) -> bool:
        if type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
            return False
        self._lose(f"broke: {error.strerror or error}")
        raise ConnectionLost(self._lost) from error

    def _lose(self, how: str) -> None:
        self._lost = f"The connection to Redis at {self.address} {how}."


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _buffered(sock: socket.socket) -> int:
    pending = getattr(sock, "pending", None)
    return pending() if pending is not None else 0


def _connect(address: Address, timeout: float) -> socket.socket:
    if address.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((address.host, address.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in _KEEPALIVE:
        if hasattr(socket, option):  # macOS names them otherwise
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    return _encrypt(sock, address) if address.scheme == "rediss" else sock


def _encrypt(sock: socket.socket, address: Address) -> socket.socket:
    import ssl

    try:
        context = ssl.create_default_context(cafile=address.ca_file or None)
        if address.certificate_file:
            context.load_cert_chain(address.certificate_file, address.key_file or None)
        return context.wrap_socket(sock, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        hint = "name the file of its CA with ?ssl_ca_certs=FILE"
        raise ConnectionError(f"its certificate was refused ({error.verify_message}): {hint}") from error
    except BaseException:
        sock.close()
        raise


def _unreachable(address: Address, error: OSError) -> str:
    reason = str(error.strerror or error)
    return f"Cannot reach Redis at {address}: {reason}. Check the address and that the server runs there."


def _explain_refusal(address: Address, command: str, reply: ReplyError) -> NoReturn:
    from redray.exceptions import AuthenticationError, RaySystemError

    if reply.code == "NOAUTH":
        raise AuthenticationError(f"Redis at {address} wants a password: use redis://:PASSWORD@host:port.")
    if reply.code == "WRONGPASS" or (command == "AUTH" and "invalid" in str(reply)):
        raise AuthenticationError(f"Redis at {address} refused the user name or password: correct them in the address.")
    if command == "AUTH":
        raise AuthenticationError(f"Redis at {address} did not accept the login: {reply}")
    if "max number of clients" in str(reply):
        raise ConnectionError(f"Redis at {address} has no free connection: raise its maxclients.")
    raise RaySystemError(f"Redis at {address} refused {command}: {reply}")


def admin_client(address: Address, timeout: float = 5.0) -> redis.Redis:
    """A redis-py client, for tools where a rich command set matters more than the 160 ms its import takes."""
    import redis

    return redis.Redis.from_url(address.url(), socket_timeout=timeout, socket_connect_timeout=timeout)
