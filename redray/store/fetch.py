"""The asking end of a transfer: bring an object from another node into memory, or send one to a node.

Both block and belong in a thread of their own, see `Pulls`; `recv_into` and `sendall` let the rest of the process run.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from redray.exceptions import ObjectFetchTimedOutError, ObjectLostError, ObjectStoreFullError, RayError
from redray.store import handshake
from redray.store.handshake import CLIENT, SERVER, Handshake
from redray.store.job_threads import JobThreads

Address = tuple[str, int]


def pull(
    address: Address, secret: bytes, object_hex: str, expected_size: int, target: memoryview, timeout: float
) -> None:
    """Fill `target` with the object that the node at `address` holds.

    Args:
        expected_size: what the cluster knows its size to be; `target` has exactly that many bytes.
        timeout: seconds in which nothing arrives after which the node counts as unreachable.

    Raises:
        ObjectFetchTimedOutError: the node cannot be reached, is not of this cluster, or went away half way.
        ObjectLostError: it answers, but does not have this object in this size.
    """
    if len(target) != expected_size:
        raise ValueError(f"The target has {len(target)} bytes, the object {expected_size}.")
    try:
        with socket.create_connection(address, timeout) as sock:
            peer = _introduce(sock, secret)
            sock.sendall(peer.request(handshake.PULL, object_hex, expected_size))
            status, size = peer.read_answer(_receive(sock, handshake.ANSWER_SIZE))
            if status != handshake.OK or size != expected_size:
                what = "no longer has it" if status != handshake.OK else f"has {size} bytes instead of {expected_size}"
                raise ObjectLostError(object_hex, reason=f"the node at {_shown(address)} {what}.")
            _receive_into(sock, target)
    except OSError as error:
        raise ObjectFetchTimedOutError(object_hex, reason=_unreachable(address, error)) from error


def upload(address: Address, secret: bytes, object_hex: str, data: bytes | memoryview, timeout: float = 30.0) -> None:
    """Store an object on the node at `address`: for drivers on machines without a node.

    Raises ObjectStoreFullError if the node has no room, ObjectFetchTimedOutError if it cannot be reached. Then it may
    have the object or not, but never a part of it.
    """
    try:
        with socket.create_connection(address, timeout) as sock:
            peer = _introduce(sock, secret)
            sock.sendall(peer.request(handshake.UPLOAD, object_hex, len(data)))
            status, _ = peer.read_answer(_receive(sock, handshake.ANSWER_SIZE))
            if status != handshake.OK:
                raise ObjectStoreFullError(f"The node at {_shown(address)} has no room for {len(data)} bytes.")
            sock.sendall(data)
            peer.read_answer(_receive(sock, handshake.ANSWER_SIZE))
    except OSError as error:
        raise ObjectFetchTimedOutError(object_hex, reason=_unreachable(address, error)) from error


class Pulls:
    """Threads that pull.

    `done(object id, error or None)` is called in such a thread: give it `Mailbox.post` in front.
    """

    def __init__(self, secret: bytes, max_threads: int = 4) -> None:
        self._secret = secret
        self._threads = JobThreads("pull", max_threads)

    def start(
        self,
        address: Address,
        object_hex: str,
        size: int,
        target: Callable[[], memoryview],
        timeout: float,
        done: Callable[[str, RayError | None], None],
    ) -> None:
        """Pull into the memory that `target()` gives: it runs in the thread, since reserving pages may take time."""

        def job() -> None:
            done(object_hex, self._try(address, object_hex, size, target, timeout))

        self._threads.start(job)

    def close(self) -> None:
        """No more pulls: waiting ones are still done, then the threads end. Does not wait for them."""
        self._threads.close()

    def _try(
        self, address: Address, object_hex: str, size: int, target: Callable[[], memoryview], timeout: float
    ) -> RayError | None:
        try:
            pull(address, self._secret, object_hex, size, target(), timeout)
        except RayError as error:
            return error
        except Exception as error:  # whatever it is, somebody waits for this object and must hear of it
            return ObjectFetchTimedOutError(object_hex, reason=f"pulling it failed: {error!r}.")
        return None


def _introduce(sock: socket.socket, secret: bytes) -> Handshake:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hello = _receive(sock, len(handshake.GREETING) + handshake.NONCE_SIZE)
    if not hello.startswith(handshake.GREETING):
        raise handshake.AuthenticationFailed("What answers there is no redray node of this version.")
    nonce = handshake.new_nonce()
    peer = Handshake(secret, hello[len(handshake.GREETING) :], nonce)
    sock.sendall(nonce + peer.proof(CLIENT))
    peer.check(SERVER, _receive(sock, handshake.MAC_SIZE))
    return peer


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    _receive_into(sock, memoryview(data))
    return bytes(data)


def _receive_into(sock: socket.socket, target: memoryview) -> None:
    while target:
        received = sock.recv_into(target)
        if not received:
            raise ConnectionError(f"The connection ended {len(target)} bytes too early.")
        target = target[received:]


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _unreachable(address: Address, error: OSError) -> str:
    return f"the node at {_shown(address)} could not be reached ({type(error).__name__}: {error})."
