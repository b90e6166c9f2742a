"""Two nodes in one process: objects go from arena to arena, and who cannot prove that it belongs here gets nothing."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redray.exceptions import ObjectFetchTimedOutError, ObjectLostError, ObjectStoreFullError, RayError
from redray.store import handshake, transfer
from redray.store.fetch import Pulls, pull, upload
from redray.store.handshake import CLIENT, SERVER, Handshake
from redray.store.local_store import LocalStore
from redray.store.mailbox import Mailbox
from redray.store.transfer import TransferServer
from tests.helpers import wait_until

SECRET = b"s" * 32
MIB = 1 << 20
A, B = "a" * 32, "b" * 32


class Node:
    """A store, its loop in a thread, and the server that asks the loop: what a node process is made of."""

    def __init__(self, directory: Path, capacity: int = 32 * MIB, idle_seconds: float = 60.0) -> None:
        self.store = LocalStore(directory, capacity)
        self.mailbox = Mailbox()
        self.released: list[str] = []
        self.ended = False
        self.loop = threading.Thread(target=self.run)
        self.loop.start()
        self.server = TransferServer(("127.0.0.1", 0), SECRET, self.open_object, self.open_upload, idle_seconds)
        self.address = self.server.address

    def run(self) -> None:
        while not self.ended:
            select.select([self.mailbox], [], [])
            self.mailbox.run()

    def open_object(self, name: str) -> tuple[int, int, int, Callable[[], None]] | None:
        place = self.mailbox.ask(lambda: self.store.locate(name) if self.store.pin(name, "transfer") else None)
        if place is None:
            return None
        return self.store.arena.fd, *place, lambda: self.mailbox.post(self.release, name)

    def release(self, name: str) -> None:
        self.store.unpin(name, "transfer")
        self.released.append(name)

    def open_upload(self, name: str, size: int) -> tuple[Callable[[], memoryview], Callable[[bool], None]]:
        offset = self.mailbox.ask(self.store.create, name, size, "upload")
        end = {True: self.store.seal, False: self.store.abort}
        return lambda: self.store.arena.writable(offset, size), lambda ok: self.mailbox.ask(end[ok], name, "upload")

    def put(self, name: str, data: bytes) -> None:
        offset = self.mailbox.ask(self.store.create, name, len(data), "w")
        self.store.arena.writable(offset, len(data))[:] = data
        assert self.mailbox.ask(self.store.seal, name, "w")

    def close(self) -> None:
        self.server.close()
        self.mailbox.post(setattr, self, "ended", True)
        self.loop.join()
        self.mailbox.close()
        assert self.store.statistics()["pinned"] == 0
        assert self.store.statistics()["unsealed"] == 0
        self.store.validate()
        self.store.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    node = Node(tmp_path)
    yield node
    node.close()
    assert set(threading.enumerate()) <= threads  # a thread of an earlier test may have ended meanwhile
    assert len(os.listdir("/dev/fd")) <= descriptors


def pulled(node: Node, name: str, size: int, secret: bytes = SECRET) -> bytes:
    target = bytearray(size)
    pull(node.address, secret, name, size, memoryview(target), 10.0)
    return bytes(target)


def introduced(node: Node) -> tuple[socket.socket, Handshake]:
    sock, hello = greeted(node)
    nonce = handshake.new_nonce()
    peer = Handshake(SECRET, hello, nonce)
    sock.sendall(nonce + peer.proof(CLIENT))
    peer.check(SERVER, received(sock, handshake.MAC_SIZE))
    return sock, peer


def greeted(node: Node) -> tuple[socket.socket, bytes]:
    sock = socket.create_connection(node.address, 10.0)
    hello = received(sock, len(handshake.GREETING) + handshake.NONCE_SIZE)
    assert hello.startswith(handshake.GREETING)
    return sock, hello[len(handshake.GREETING) :]


def received(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes: fewer if the other end closes before."""
    data = b""
    try:
        while len(data) < size and (more := sock.recv(size - len(data))):
            data += more
    except ConnectionResetError:
        return data
    return data


# ---- what works ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [2, 100_000, 9 * MIB + 7])
def test_an_object_goes_from_arena_to_arena(node: Node, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    node.put(A, data)
    (tmp_path / "other").mkdir()
    other = LocalStore(tmp_path / "other", 32 * MIB)
    target = other.arena.writable(other.create(A, size, "node", secondary=True), size)
    pull(node.address, SECRET, A, size, target, 10.0)
    assert other.seal(A, "node")
    assert other.view(A) == data
    wait_until(lambda: node.released == [A], what="the pin of the sender to go")
    target.release()
    other.close()


def test_one_connection_serves_many_requests(node: Node) -> None:
    node.put(A, b"one")
    sock, peer = introduced(node)
    with sock:
        for name, expected in ((A, (handshake.OK, 3)), (B, (handshake.ABSENT, 0)), (A, (handshake.OK, 3))):
            sock.sendall(peer.request(handshake.PULL, name, 3))
            assert peer.read_answer(received(sock, handshake.ANSWER_SIZE)) == expected
            assert received(sock, expected[1]) == b"one"[: expected[1]]


def test_an_upload_arrives_whole(node: Node) -> None:
    data = os.urandom(5 * MIB)
    upload(node.address, SECRET, A, data)
    assert node.mailbox.ask(lambda: bytes(node.store.view(A))) == data


def test_an_upload_that_does_not_fit_is_refused_before_it_is_sent(node: Node) -> None:
    with pytest.raises(ObjectStoreFullError):
        upload(node.address, SECRET, A, bytes(33 * MIB))
    assert node.store.used == 0


def test_many_pulls_at_once_all_end(node: Node) -> None:
    names = [f"{number:032x}" for number in range(20)]
    for name in names:
        node.put(name, name.encode() * 4000)
    pulls = Pulls(SECRET, max_threads=3)
    targets = {name: bytearray(128_000) for name in names}
    ended: list[tuple[str, RayError | None]] = []
    for name in [*names, B]:
        target = memoryview(targets.get(name, bytearray(128_000)))
        pulls.start(node.address, name, 128_000, lambda target=target: target, 10.0, lambda *end: ended.append(end))  # type: ignore[misc]
    wait_until(lambda: len(ended) == 21, what="all pulls to end")
    assert sum(thread.name.startswith("redray-pull") for thread in threading.enumerate()) == 3
    pulls.close()
    assert all(targets[name] == name.encode() * 4000 for name in names)
    errors = {name: error for name, error in ended if error is not None}
    assert list(errors) == [B]
    assert isinstance(errors[B], ObjectLostError)
    wait_until(lambda: len(node.released) == 20, what="every pin to go")
    wait_until(lambda: not any(t.name.startswith("redray-pull") for t in threading.enumerate()), what="threads to end")


def test_a_pull_whose_target_fails_is_heard_of() -> None:
    pulls, ended = Pulls(SECRET), []

    def no_room() -> memoryview:
        raise ObjectStoreFullError("no room")

    pulls.start(("127.0.0.1", 1), A, 10, no_room, 10.0, lambda *end: ended.append(end))
    wait_until(lambda: ended, what="the pull to end")
    pulls.close()
    assert isinstance(ended[0][1], ObjectStoreFullError)
    wait_until(lambda: not any(t.name.startswith("redray-pull") for t in threading.enumerate()), what="threads to end")


# ---- what fails in a named way ---------------------------------------------------------------------------------------
def test_absent_and_of_another_size_are_lost(node: Node) -> None:
    node.put(A, b"12345")
    with pytest.raises(ObjectLostError, match="no longer has it"):
        pulled(node, B, 5)
    with pytest.raises(ObjectLostError, match="5 bytes instead of 4"):
        pulled(node, A, 4)


def test_nobody_there_is_a_fetch_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ObjectFetchTimedOutError, match="could not be reached"):
        pull(address, SECRET, A, 1, memoryview(bytearray(1)), 10.0)


def test_a_silent_node_is_a_fetch_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(ObjectFetchTimedOutError, match="timed out"):
            pull(listener.getsockname(), SECRET, A, 1, memoryview(bytearray(1)), 0.05)


def false_node(serve: Callable[[socket.socket], None]) -> tuple[tuple[str, int], threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as sock:
            serve(sock)

    thread = threading.Thread(target=run)
    thread.start()
    address: tuple[str, int] = listener.getsockname()
    return address, thread


def test_a_truncated_object_is_a_fetch_time_out() -> None:
    def serve(sock: socket.socket) -> None:
        nonce = handshake.new_nonce()
        sock.sendall(handshake.GREETING + nonce)
        hello = received(sock, handshake.NONCE_SIZE + handshake.MAC_SIZE)
        peer = Handshake(SECRET, nonce, hello[: handshake.NONCE_SIZE])
        sock.sendall(peer.proof(SERVER))
        peer.read_request(received(sock, handshake.REQUEST_SIZE))
        sock.sendall(peer.answer(handshake.OK, 1000) + b"x" * 10)

    address, thread = false_node(serve)
    with pytest.raises(ObjectFetchTimedOutError, match="990 bytes too early"):
        pull(address, SECRET, A, 1000, memoryview(bytearray(1000)), 10.0)
    thread.join()


def test_a_node_without_the_secret_gets_no_request() -> None:
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(handshake.GREETING + handshake.new_nonce())
        hello = received(sock, handshake.NONCE_SIZE + handshake.MAC_SIZE)
        sock.sendall(hello[handshake.NONCE_SIZE :])  # the client's own proof, reflected
        seen.append(received(sock, 1))

    address, thread = false_node(serve)
    with pytest.raises(ObjectFetchTimedOutError, match="server does not know"):
        pull(address, SECRET, A, 1, memoryview(bytearray(1)), 10.0)
    thread.join()
    assert seen == [b""]


# ---- who gets nothing ------------------------------------------------------------------------------------------------
def test_the_wrong_secret_gets_nothing(node: Node) -> None:
    node.put(A, b"12345")
    with pytest.raises(ObjectFetchTimedOutError):
        pulled(node, A, 5, secret=b"w" * 32)
    assert node.released == []


NO_HANDSHAKE = {
    "a request at once": lambda nonce: Handshake(SECRET, nonce, bytes(32)).request(handshake.PULL, A, 5) + bytes(64),
    "the server's own proof": lambda nonce: bytes(32) + Handshake(SECRET, nonce, bytes(32)).proof(SERVER),
    "a proof for another nonce": lambda nonce: bytes(32) + Handshake(SECRET, bytes(32), bytes(32)).proof(CLIENT),
    "zeros": lambda nonce: bytes(200),
    "HTTP": lambda nonce: b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: something long enough\r\n\r\n",
}


@pytest.mark.parametrize("kind", NO_HANDSHAKE)
def test_without_the_handshake_the_connection_closes_without_a_byte(node: Node, kind: str) -> None:
    node.put(A, b"12345")
    sock, nonce = greeted(node)
    with sock:
        sock.sendall(NO_HANDSHAKE[kind](nonce))
        assert received(sock, 1) == b""
    assert node.released == []


def test_a_recorded_conversation_is_worthless(node: Node) -> None:
    node.put(A, b"12345")
    sock, nonce = greeted(node)
    own = handshake.new_nonce()
    peer = Handshake(SECRET, nonce, own)
    recording = own + peer.proof(CLIENT) + peer.request(handshake.PULL, A, 5)
    with sock:
        sock.sendall(recording)
        assert received(sock, handshake.MAC_SIZE + handshake.ANSWER_SIZE + 5).endswith(b"12345")
    sock, _ = greeted(node)
    with sock:
        sock.sendall(recording)
        assert received(sock, 1) == b""


def test_a_repeated_or_changed_request_ends_the_connection(node: Node) -> None:
    node.put(A, b"12345")
    for change in ("repeated", "changed"):
        sock, peer = introduced(node)
        with sock:
            request = peer.request(handshake.PULL, A, 5)
            if change == "repeated":
                sock.sendall(request)
                assert len(received(sock, handshake.ANSWER_SIZE + 5)) == handshake.ANSWER_SIZE + 5
            else:
                request = request[:5] + b"0" + request[6:]
            sock.sendall(request)
            assert received(sock, 1) == b""


@pytest.mark.parametrize("name", ["../../../../../../../etc/passwd!", "x", "A" * 32])
def test_a_name_that_is_no_object_id_reaches_no_callback(node: Node, name: str) -> None:
    sock, peer = introduced(node)
    with sock:
        sock.sendall(peer.request(handshake.PULL, name, 5))
        assert received(sock, 1) == b""


def test_an_upload_that_stops_half_way_leaves_nothing(node: Node) -> None:
    sock, peer = introduced(node)
    with sock:
        sock.sendall(peer.request(handshake.UPLOAD, A, MIB))
        peer.read_answer(received(sock, handshake.ANSWER_SIZE))
        sock.sendall(bytes(1000))
    wait_until(lambda: node.store.used == 0, what="the room for the upload to be free again")


def test_a_reader_that_goes_away_releases_the_object(node: Node) -> None:
    node.put(A, bytes(30 * MIB))
    sock, peer = introduced(node)
    with sock:
        sock.sendall(peer.request(handshake.PULL, A, 30 * MIB))
        assert len(received(sock, 1000)) == 1000
        assert node.released == []
    wait_until(lambda: node.released == [A], what="the pin of the sender to go")


def test_silence_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "HANDSHAKE_SECONDS", 0.0)
    node = Node(tmp_path, idle_seconds=0.0)
    for open_connection in (greeted, introduced):
        monkeypatch.setattr(transfer, "HANDSHAKE_SECONDS", 0.0 if open_connection is greeted else 60.0)
        with open_connection(node)[0] as sock:
            assert received(sock, 1) == b""
    node.close()


def test_connections_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_CONNECTIONS", 2)
    held = [greeted(node)[0] for _ in range(2)]
    with socket.create_connection(node.address, 10.0) as third:
        assert received(third, 1) == b""
    for sock in held:
        sock.close()
    node.put(A, b"12345")
    wait_until(lambda: not node.server._connections, what="the server to see them go")
    assert pulled(node, A, 5) == b"12345"


# ---- the mailbox -----------------------------------------------------------------------------------------------------
def test_a_question_that_was_given_up_is_not_asked() -> None:
    mailbox, calls = Mailbox(), itertools.count()
    with pytest.raises(RayError, match="did not answer"):
        mailbox.ask(next, calls, timeout=0.01)
    mailbox.run()
    assert next(calls) == 0
    mailbox.close()
    with pytest.raises(RayError, match="shutting down"):
        mailbox.ask(next, calls)


def test_closing_a_mailbox_answers_those_who_wait() -> None:
    mailbox, errors = Mailbox(), []

    def asks() -> None:
        try:
            mailbox.ask(print)
        except RayError as error:
            errors.append(str(error))

    thread = threading.Thread(target=asks)
    thread.start()
    select.select([mailbox], [], [])
    mailbox.close()
    thread.join()
    assert errors == ["The node is shutting down."]
