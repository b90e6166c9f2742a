"""Raw connections against real servers, and against sockets whose other end the test holds."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_redis.executor import RedisExecutor

from redray.exceptions import AuthenticationError, RaySystemError
from redray.gcs.address import Address
from redray.gcs.check import check_server
from redray.gcs.client import Connection, ConnectionLost, ReplyError, admin_client, pack, pack_many, script_call
from redray.gcs.scripts import Script, Vocabulary, load_scripts
from redray.gcs.server import EmbeddedServer
from tests.conftest import PASSWORD
from tests.helpers import PATIENCE, REPOSITORY


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and the server's end of its socket."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours, Address.unix("/pair"))
    theirs.settimeout(PATIENCE)
    yield connection, theirs
    connection.close()
    theirs.close()


@pytest.fixture
def echo(tmp_path: Path) -> Script:
    (tmp_path / "echo.lua").write_text("-- echo: x.\n-- ARGV\n--   value text x\n-- RETURN\n--   OK x\nreturn value\n")
    return load_scripts(directory=tmp_path, vocabulary=Vocabulary({}, {}, {}, {}, {}))["echo"]


# ---- commands ----------------------------------------------------------------------------------
def test_a_call_returns_its_reply_and_raises_an_error_reply(redis: Connection) -> None:
    assert redis.call("SET", "a", b"\x00\xff") == b"OK"
    assert redis.call("GET", "a") == b"\x00\xff"
    assert redis.call("GET", "nothing") is None
    with pytest.raises(ReplyError, match="unknown command") as caught:
        redis.call("NONSENSE")
    assert caught.value.code == "ERR"
    assert redis.call("PING") == b"PONG"


def test_a_pipeline_carries_errors_as_values(redis: Connection) -> None:
    replies = redis.pipeline([("INCR", "n"), ("NONSENSE",), ("INCR", "n")])
    assert (replies[0], replies[2]) == (1, 2)
    assert isinstance(replies[1], ReplyError)
    assert redis.pipeline([]) == []


def test_far_more_than_the_socket_holds_goes_both_ways(redis: Connection) -> None:
    value = os.urandom(1 << 20)
    replies = redis.pipeline([("ECHO", value)] * 20, timeout=PATIENCE)
    assert replies == [value] * 20


def test_send_never_blocks_and_receive_takes_what_is_here(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    message = b"x" * (8 << 20)
    connection.send(message)  # nobody reads: a blocking send would hang here
    assert 0 < connection.pending_output < len(message)
    connection.send(b"end")
    server.sendall(b"+early\r\n+la")
    assert connection.receive() == [b"early"]
    received = bytearray()
    while len(received) < len(message) + 3:
        received += server.recv(1 << 20)
        connection.flush()
    assert received == message + b"end"
    assert connection.pending_output == 0
    assert connection.receive() == []
    server.sendall(b"te\r\n")
    assert connection.receive(block=True, timeout=PATIENCE) == [b"late"]


def test_a_connection_can_be_watched(redis: Connection) -> None:
    redis.send(pack_many([("PING",), ("ECHO", "a")]))
    replies: list[object] = []
    with select.epoll() as poll:
        poll.register(redis.fileno(), select.EPOLLIN)
        while len(replies) < 2:
            assert poll.poll(PATIENCE), "the reply never came"
            replies += redis.receive()
    assert replies == [b"PONG", b"a"]


def test_pack_takes_what_redis_takes() -> None:
    assert pack("A", b"b", 3, 1.5) == b"*4\r\n$1\r\nA\r\n$1\r\nb\r\n$1\r\n3\r\n$3\r\n1.5\r\n"
    with pytest.raises(TypeError):
        pack("A", None)  # type: ignore[arg-type]


# ---- scripts -----------------------------------------------------------------------------------
def test_a_script_runs_also_after_the_server_forgot_it(redis: Connection, echo: Script) -> None:
    redis.call("SCRIPT", "FLUSH")
    for _ in range(2):
        assert redis.run(echo, [], ["a"]) == b"a"
        redis.call("SCRIPT", "FLUSH")
    redis.load_all([echo])
    redis.send(script_call(echo, [], ["b"]))
    assert redis.receive(block=True, timeout=PATIENCE) == [b"b"]


def test_an_error_of_a_script_is_explained(redis: Connection, echo: Script) -> None:
    with pytest.raises(ReplyError, match="echo takes 0 keys and 1 arguments, not 0 and 2"):
        redis.run(echo, [], ["a", "b"])


# ---- giving up and losing ----------------------------------------------------------------------
def test_the_late_reply_to_a_call_given_up_is_not_taken_for_another(redis: Connection) -> None:
    with pytest.raises(TimeoutError):
        redis.call("BLPOP", "nothing", 0.2, timeout=0.01)
    assert redis.call("ECHO", "mine", timeout=PATIENCE) == b"mine"


class InterruptedPoll:
    """Ctrl-C arrives when the connection has begun to wait."""

    def poll(self, _timeout: float) -> list[tuple[int, int]]:
        signal.raise_signal(signal.SIGINT)  # to this thread: os.kill may pick another one, which is slower to tell
        raise AssertionError("the signal did not arrive")


def test_ctrl_c_while_waiting_leaves_the_connection_usable(redis: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(redis, "_poll", InterruptedPoll())
        with pytest.raises(KeyboardInterrupt):
            redis.call("BLPOP", "list", 0, timeout=PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            redis.receive(block=True, timeout=PATIENCE)
    other = Connection.open(redis.address)
    other.call("RPUSH", "list", "late")
    other.close()
    assert redis.call("ECHO", "mine", timeout=PATIENCE) == b"mine"


@pytest.mark.parametrize("step", ["_feed", "_take"])
def test_ctrl_c_in_the_middle_of_a_step_breaks_the_connection(
    redis: Connection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(redis, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            redis.call("ECHO", "half read")
    with pytest.raises(ConnectionLost, match="interrupted"):
        redis.call("PING")


def test_a_killed_connection_says_so_and_stays_lost(redis: Connection) -> None:
    other = Connection.open(redis.address)
    other.call("CLIENT", "KILL", "ID", redis.call("CLIENT", "ID"))
    other.close()
    with pytest.raises(ConnectionLost, match="connection to Redis at unix://"):
        redis.call("PING", timeout=PATIENCE)
    for use in (lambda: redis.call("PING"), lambda: redis.send(b""), redis.receive, redis.flush):
        with pytest.raises(ConnectionLost):
            use()


def test_the_peer_closing_in_the_middle_of_a_reply_is_a_loss(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    server.sendall(b"$100\r\nhalf")
    server.close()
    with pytest.raises(ConnectionLost, match=r"closed by the server|broke"):
        connection.receive(block=True, timeout=PATIENCE)


def test_a_peer_that_is_no_redis_is_a_loss(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    server.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ConnectionLost, match="protocol"):
        connection.receive(block=True, timeout=PATIENCE)


def test_a_closed_connection_is_lost(redis_server: EmbeddedServer) -> None:
    connection = Connection.open(redis_server.address)
    connection.close()
    connection.close()
    with pytest.raises(ConnectionLost, match="was closed"):
        connection.call("PING")


# ---- opening -----------------------------------------------------------------------------------
def test_name_and_database_are_set_at_open(redis: Connection) -> None:
    url = f"{redis.address.url()}?db=3"
    connection = Connection.open(url, name="driver-1")
    assert connection.call("CLIENT", "GETNAME") == b"driver-1"
    connection.call("SET", "only here", 1)
    connection.close()
    assert redis.call("EXISTS", "only here") == 0


def test_nobody_there_is_a_connection_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"Cannot reach Redis at unix://.*/none.sock: No such file"):
        Connection.open(f"unix://{tmp_path}/none.sock")


def test_a_server_that_does_not_answer_is_a_connection_error() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ConnectionError, match="did not answer"):
            Connection.open(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)


@pytest.mark.parametrize(
    "answer", ["LOADING Redis is loading the dataset in memory", "BUSY Redis is busy running a script"]
)
def test_a_server_that_is_only_busy_can_be_connected_to(tmp_path: Path, answer: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/busy.sock")
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(f"-{answer}\r\n".encode())
                client.recv(1000)
                client.sendall(b"+PONG\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection.open(Address.unix(f"{tmp_path}/busy.sock"), timeout=PATIENCE)
        assert connection.call("PING", timeout=PATIENCE) == b"PONG"
        connection.close()
        thread.join()


def test_a_password_lets_in(password_redis: RedisExecutor) -> None:
    host = f"127.0.0.1:{password_redis.port}"
    secret = PASSWORD.replace(" ", "%20")
    for login in (f":{secret}", f"default:{secret}"):
        connection = Connection.open(f"redis://{login}@{host}/1")
        assert connection.call("PING") == b"PONG"
        connection.close()


@pytest.mark.parametrize("login", [":wrong", "default:wrong", "nobody:wrong"])
def test_a_wrong_password_is_one_sentence_that_does_not_repeat_it(password_redis: RedisExecutor, login: str) -> None:
    with pytest.raises(AuthenticationError, match="refused the user name or password") as caught:
        Connection.open(f"redis://{login}@127.0.0.1:{password_redis.port}")
    assert "wrong" not in str(caught.value)


def test_a_missing_password_is_one_sentence(password_redis: RedisExecutor) -> None:
    for name in ("", "driver"):
        with pytest.raises(AuthenticationError, match="wants a password"):
            Connection.open(f"redis://127.0.0.1:{password_redis.port}", name=name)


def test_a_password_for_a_server_without_one_is_a_sentence(redis: Connection) -> None:
    with pytest.raises(AuthenticationError, match="did not accept the login"):
        Connection.open(redis.address.url().replace("unix://", "unix://:some@"))


def test_importing_the_client_costs_only_what_it_uses() -> None:
    code = "import sys, redray.gcs.client, redray.gcs.server, redray.config; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not {"redis", "ssl", "subprocess", "asyncio", "numpy", "shutil"} & set(modules.stdout.split())


def test_the_admin_client_reaches_the_same_server(redis: Connection) -> None:
    redis.call("SET", "a", "1")
    with admin_client(redis.address) as client:
        assert client.get("a") == b"1"


# ---- is this server fit? -----------------------------------------------------------------------
def test_a_fit_server_is_described(each_server: EmbeddedServer) -> None:
    connection = Connection.open(each_server.address)
    info = check_server(connection)
    connection.close()
    assert info.version >= (6, 2)
    assert (info.max_memory, info.persistent, info.tls) == (0, False, False)
    assert info.used_memory > 0 and info.run_id and info.flavor in ("redis", "valkey")


def test_a_server_that_evicts_is_refused(redis: Connection) -> None:
    redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(RaySystemError, match="maxmemory-policy is allkeys-lru"):
            check_server(redis)
    finally:
        redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ("redis_version:6.0.16\r\n", "needs 6.2 or newer"),
        ("redis_version:7.0.0\r\nrole:slave\r\n", "is a replica"),
        ("redis_version:7.0.0\r\nloading:1\r\nloading_eta_seconds:9\r\n", "still loads its data from disk (9 s"),
        ("hello\r\n", "is this a Redis server"),
    ],
)
def test_an_unfit_server_is_refused_in_a_sentence(
    pair: tuple[Connection, socket.socket], info: str, complaint: str
) -> None:
    connection, server = pair
    server.sendall(f"${len(info)}\r\n{info}\r\n".encode())
    with pytest.raises(RaySystemError) as caught:
        check_server(connection, loading_timeout=-1)
    assert complaint in str(caught.value)


def test_a_loading_server_is_waited_for(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair

    def answer() -> None:
        for loading in (1, 0):
            server.recv(1000)
            info = f"redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nloading:{loading}\r\n"
            server.sendall(f"${len(info)}\r\n{info}\r\n".encode())

    thread = threading.Thread(target=answer)
    thread.start()
    assert check_server(connection, loading_timeout=PATIENCE).flavor == "valkey"
    thread.join()


def test_a_user_that_may_not_ask_is_a_sentence(redis: Connection) -> None:
    redis.call("ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-info")
    connection = Connection.open(redis.address.url().replace("unix://", "unix://blind:pw@"))
    try:
        with pytest.raises(RaySystemError, match=r"grant it '\+info'"):
            check_server(connection)
    finally:
        connection.close()
        redis.call("ACL", "DELUSER", "blind")
