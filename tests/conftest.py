"""Real Redis servers for the tests: of the binary that REDRAY_TEST_REDIS names, else of the one users would get."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pytest_redis import factories

from redray.gcs.client import Argument, Connection
from redray.gcs.scripts import Scripts, load_scripts
from redray.gcs.server import EmbeddedServer, candidates, find_server, server_version

# A shell starts what runs in the background with Ctrl-C ignored, and so would all processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[[str, Sequence[Argument], Sequence[Argument]], Any]

PASSWORD = "open sesame"  # of a server on loopback that lives as long as the test run


def pytest_addoption(parser: pytest.Parser) -> None:
    kinds = ("embedded", "tcp", "three-nodes")
    parser.addoption("--cluster", choices=kinds, default="embedded", help="what tests/api runs on: see its clusters.py")


def redis_binary() -> str:
    return os.environ.get("REDRAY_TEST_REDIS") or find_server()


def all_redis_binaries() -> list[str]:
    """One binary per version found on this machine: what holds for one server must hold for all."""
    by_version = {server_version(path): path for path in (redis_binary(), *candidates())}
    return [path for version, path in by_version.items() if version and version >= (6, 2)]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedServer]:
    """A private server on a unix socket, shared by all tests."""
    server = EmbeddedServer.start(tempfile.mkdtemp(prefix="redray-test-"), redis_binary())
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: EmbeddedServer) -> Iterator[Connection]:
    """A connection to an empty server."""
    connection = Connection.open(redis_server.address)
    connection.call("FLUSHALL")
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def scripts(redis_server: EmbeddedServer) -> Scripts:
    version = server_version(redis_binary())
    assert version is not None
    return load_scripts(server_version=version)


@pytest.fixture
def run(redis: Connection, scripts: Scripts) -> Run:
    """Calls a script by its name; an error names the Lua file and line."""

    def call(name: str, keys: Sequence[Argument], argv: Sequence[Argument]) -> Any:
        return redis.run(scripts[name], keys, argv)

    return call


# A server on TCP with a password. pytest-redis finds the port and waits for the server.
password_redis = factories.redis_proc(executable=redis_binary(), password=PASSWORD, host="127.0.0.1")


@pytest.fixture(params=all_redis_binaries(), ids=lambda path: f"redis-{'.'.join(map(str, server_version(path) or ()))}")
def each_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A fresh server of each version found."""
    server = EmbeddedServer.start(tempfile.mkdtemp(prefix="redray-test-"), request.param)
    yield server
    server.stop()
