"""rediss:// against a real server behind a TLS proxy, because not every Redis is built with TLS."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redray.gcs.client import Connection
from redray.gcs.server import EmbeddedServer
from tests.helpers import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two self-signed certificates: `right` for localhost, `other` for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, host in (("right", "localhost"), ("other", "elsewhere.invalid")):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-days", "2"]
        command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


class Proxy:
    """Takes TLS connections on loopback and passes their bytes to a server's unix socket."""

    def __init__(self, folder: Path, name: str, target: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            try:
                with self._context.wrap_socket(client, server_side=True) as encrypted:
                    self._pump(encrypted, server)
            except OSError:  # the client refused our certificate, which is what a test wants to see
                return

    @staticmethod
    def _pump(encrypted: ssl.SSLSocket, server: socket.socket) -> None:
        encrypted.settimeout(0.002)
        server.settimeout(0.002)
        while True:
            for source, sink in ((encrypted, server), (server, encrypted)):
                try:
                    data = source.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    return
                sink.settimeout(PATIENCE)
                sink.sendall(data)
                sink.settimeout(0.002)

    def close(self) -> None:
        with socket.socket() as waker:  # for a test that never connected
            waker.connect_ex(("127.0.0.1", self.port))
        self._thread.join()
        self._listener.close()


@pytest.fixture
def proxy(request: pytest.FixtureRequest, certificates: Path, redis_server: EmbeddedServer) -> Iterator[Proxy]:
    proxy = Proxy(certificates, getattr(request, "param", "right"), redis_server.socket_path)
    yield proxy
    proxy.close()


def test_commands_travel_encrypted_in_every_size(proxy: Proxy, certificates: Path) -> None:
    connection = Connection.open(f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificates}/right.pem")
    value = os.urandom(1 << 20)
    assert connection.call("ECHO", value, timeout=PATIENCE) == value
    assert connection.pipeline([("ECHO", b"x")] * 1000, timeout=PATIENCE) == [b"x"] * 1000
    with pytest.raises(TimeoutError):
        connection.receive(block=True, timeout=0.01)
    connection.close()


@pytest.mark.parametrize(
    ("proxy", "authority"),
    [("right", "other.pem"), ("right", ""), ("other", "other.pem")],
    indirect=["proxy"],
    ids=["another authority", "the system's authorities", "another host"],
)
def test_a_certificate_that_does_not_fit_is_refused(proxy: Proxy, certificates: Path, authority: str) -> None:
    options = f"?ssl_ca_certs={certificates}/{authority}" if authority else ""
    with pytest.raises(ConnectionError, match=r"its certificate was refused .*ssl_ca_certs=FILE"):
        Connection.open(f"rediss://localhost:{proxy.port}{options}")


def test_a_missing_authority_file_is_a_sentence(proxy: Proxy, certificates: Path) -> None:
    with pytest.raises(ConnectionError, match="No such file"):
        Connection.open(f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificates}/none.pem")
