"""A process that says what cannot be read is cut off; its node and its neighbours go on."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import pytest

import redray as ray
from redray.session import current_or_none


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x01", b"\x80", b"[1, 2]", b"\x92\xa3Foo\x01"], ids=repr)
def test_a_frame_that_cannot_be_read(body: bytes) -> None:
    ray.init("local", num_cpus=1, log_to_driver=False)
    try:
        session: Any = current_or_none()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(session._channel._path)
            stranger.sendall(struct.pack("<I", len(body)) + body)
            stranger.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b"", "it is cut off"
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    finally:
        ray.shutdown()
