"""The serving end of node to node transfer: objects leave straight from the arena file, uploads arrive straight in it.

One daemon thread serves all connections; `sendfile` and `recv_into`, where it spends its time, let the rest of the
process run. Each connection is a generator that yields what it waits for, so the protocol reads from top to bottom.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import TypeAlias

from redray.exceptions import ObjectStoreFullError
from redray.store import handshake
from redray.store.fetch import pull, upload
from redray.store.handshake import CLIENT, SERVER, Handshake

__all__ = ["OpenObject", "OpenUpload", "TransferServer", "pull", "upload"]

OpenObject: TypeAlias = Callable[[str], "tuple[int, int, int, Callable[[], None]] | None"]
"""object id -> (fd, offset, size, release), pinned until `release()`; None if it is not here."""

OpenUpload: TypeAlias = Callable[[str, int], "tuple[Callable[[], memoryview], Callable[[bool], None]]"]
"""object id, size -> (memory to write to, finish). `finish(True)` once all bytes are there, `finish(False)` if they
never will be. Raises ObjectStoreFullError."""

CHUNK = 4 << 20
HANDSHAKE_SECONDS = 5.0
IDLE_SECONDS = 60.0
MAX_CONNECTIONS = 256

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_Steps: TypeAlias = Generator[int, None, None]


class _Connection:
    """`deadline` moves on with each step once the other end is known; before, it stands: strangers get 5 s in all."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.known = False
        self.deadline = time.monotonic() + HANDSHAKE_SECONDS
        self.steps: _Steps | None = None
        self.waits_for = 0


class TransferServer:
    """Serves objects to whoever knows `secret`. The callbacks run in the server's thread: see `mailbox.Mailbox.ask`.

    Args:
        listen_address: (host, port); port 0 takes a free one, see `address`.
        secret: the cluster's secret.
        open_object: finds and pins an object to be sent.
        open_upload: makes room for an object that a driver without a node sends. None: uploads are refused.
        idle_seconds: a connection on which nothing moves for that long is closed.
    """

    def __init__(
        self,
        listen_address: tuple[str, int],
        secret: bytes,
        open_object: OpenObject,
        open_upload: OpenUpload | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._secret = secret
        self._open_object = open_object
        self._open_upload = open_upload
        self._idle_seconds = idle_seconds
        family = socket.AF_INET6 if ":" in listen_address[0] else socket.AF_INET
        self._listener = socket.create_server(listen_address, family=family, backlog=128)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._closing = False
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._selector.register(self._listener, _READ)
        self._selector.register(self._wake_in, _READ)
        self._thread = threading.Thread(target=self._serve, name="redray-transfer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and drop every connection; what was being sent is released. Waits for the thread.

        Close the mailbox that the callbacks ask before, or the thread may be waiting for the one who waits for it.
        """
        self._closing = True
        self._wake_out.send(b"\0")
        self._thread.join()
        self._wake_out.close()

    # ---- the loop ----------------------------------------------------------------------------------------------------
    def _serve(self) -> None:
        try:
            while not self._closing:
                for key, _ in self._selector.select(1.0 if self._connections else None):
                    if isinstance(key.data, _Connection):
                        self._advance(key.data)
                    elif key.fileobj is self._listener:
                        self._accept()
                now = time.monotonic()
                for connection in [each for each in self._connections if each.deadline < now]:
                    self._drop(connection)
        finally:
            for connection in list(self._connections):
                self._drop(connection)
            self._selector.close()
            self._listener.close()
            self._wake_in.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)  # the listener stays readable: without a pause this thread would spin
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        connection.steps = self._converse(connection)
        self._connections.add(connection)
        self._advance(connection)

    def _advance(self, connection: _Connection) -> None:
        assert connection.steps is not None
        try:
            waits_for = next(connection.steps)
        except (StopIteration, OSError):  # it said goodbye, went away, or is nobody we know
            self._drop(connection)
            return
        except Exception:
            self._drop(connection)
            _log_exception("A transfer was dropped because serving it failed.")
            return
        if connection.known:
            connection.deadline = time.monotonic() + self._idle_seconds
        if not connection.waits_for:
            self._selector.register(connection.sock, waits_for, connection)
        elif waits_for != connection.waits_for:
            self._selector.modify(connection.sock, waits_for, connection)
        connection.waits_for = waits_for

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection.waits_for:
            self._selector.unregister(connection.sock)
        try:
            if connection.steps is not None:
                connection.steps.close()  # runs the `finally` that releases what it held
        except Exception:
            _log_exception("What a transfer held could not be released.")
        connection.sock.close()

    # ---- one connection ----------------------------------------------------------------------------------------------
    def _converse(self, connection: _Connection) -> _Steps:
        sock = connection.sock
        nonce = handshake.new_nonce()
        yield from _send(sock, handshake.GREETING + nonce)
        hello = yield from _receive(sock, handshake.NONCE_SIZE + handshake.MAC_SIZE)
        peer = Handshake(self._secret, nonce, hello[: handshake.NONCE_SIZE])
        peer.check(CLIENT, hello[handshake.NONCE_SIZE :])
        connection.known = True
        yield from _send(sock, peer.proof(SERVER))
        while True:
            frame = yield from _receive(sock, handshake.REQUEST_SIZE)
            operation, object_hex, size = peer.read_request(frame)
            if operation == handshake.PULL:
                yield from self._answer_pull(sock, peer, object_hex)
            elif operation == handshake.UPLOAD:
                yield from self._answer_upload(sock, peer, object_hex, size)
            else:
                return

    def _answer_pull(self, sock: socket.socket, peer: Handshake, object_hex: str) -> _Steps:
        found = self._open_object(object_hex)
        if found is None:
            yield from _send(sock, peer.answer(handshake.ABSENT))
            return
        fd, offset, size, release = found
        try:
            yield from _send(sock, peer.answer(handshake.OK, size))
            end = offset + size
            while offset < end:
                try:
                    sent = os.sendfile(sock.fileno(), fd, offset, min(CHUNK, end - offset))
                except BlockingIOError:
                    sent = None
                if sent == 0:
                    raise ConnectionError("The arena file ends before the object does.")
                offset += sent or 0
                yield _WRITE  # after each chunk, so that one large object does not hold up the others
        finally:
            release()

    def _answer_upload(self, sock: socket.socket, peer: Handshake, object_hex: str, size: int) -> _Steps:
        finish: Callable[[bool], None] | None = None
        complete = False
        try:
            try:
                if self._open_upload is None:
                    raise ObjectStoreFullError("This node takes no uploads.")
                memory, finish = self._open_upload(object_hex, size)
                target = memory()
            except ObjectStoreFullError:
                yield from _send(sock, peer.answer(handshake.FULL))
                return
            yield from _send(sock, peer.answer(handshake.OK, size))
            if len(target) != size:
                raise ValueError(f"Room for {len(target)} bytes was made for an upload of {size}.")
            while target:
                try:
                    received = sock.recv_into(target[:CHUNK])
                except BlockingIOError:
                    yield _READ
                    continue
                if not received:
                    raise ConnectionError("The upload ended too early.")
                target = target[received:]
                if target:  # after the last byte nothing more arrives that could wake us
                    yield _READ
            complete = True
        finally:
            if finish is not None:
                finish(complete)
        yield from _send(sock, peer.answer(handshake.OK, size))


def _send(sock: socket.socket, data: bytes) -> _Steps:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            yield _WRITE


def _receive(sock: socket.socket, size: int) -> Generator[int, None, bytes]:
    """Exactly `size` bytes. What a stranger may make us keep is bounded by the sizes of the protocol's frames."""
    data = b""
    while len(data) < size:
        try:
            more = sock.recv(size - len(data))
        except BlockingIOError:
            yield _READ
            continue
        if not more:
            raise ConnectionError("The other end is gone.")
        data += more
    return data


def _log_exception(text: str) -> None:
    import logging

    logging.getLogger(__name__).exception(text)
