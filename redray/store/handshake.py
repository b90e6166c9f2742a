"""How two ends of a transfer prove that they know the cluster's secret, and how they sign what they then say. Pure.

    server -> client   GREETING | server nonce
    client -> server   client nonce | HMAC(secret, "client" server nonce, client nonce)
    server -> client   HMAC(secret, "server" server nonce, client nonce)
    then frames        body | HMAC(session key, role | number of the frame | body)

HMAC is HMAC-SHA256. The role in each proof makes a proof that is sent back to its sender worthless, the fresh nonces of
both sides make a recorded one worthless, and the numbers do the same for frames within a connection. The bytes of an
object follow the frame that announces them; they are not signed.
"""

from __future__ import annotations

import hmac
import os
import re
import struct

GREETING = b"redray/t1\n"
NONCE_SIZE = 32
MAC_SIZE = 32

CLIENT, SERVER = b"client", b"server"

PULL, UPLOAD = 1, 2  # operations
OK, ABSENT, FULL = 0, 1, 2  # answers

_REQUEST = struct.Struct("<B32sQ")
_ANSWER = struct.Struct("<BQ")
_OBJECT_HEX = re.compile(rb"[0-9a-f]{32}")
REQUEST_SIZE = _REQUEST.size + MAC_SIZE
ANSWER_SIZE = _ANSWER.size + MAC_SIZE


class AuthenticationFailed(ConnectionError):
    """The other end does not know the cluster's secret or the protocol, or something changed what it said."""


class Handshake:
    """One connection's nonces, and the frames signed with the key that follows from them."""

    def __init__(self, secret: bytes, server_nonce: bytes, client_nonce: bytes) -> None:
        self._secret = secret
        self._nonces = server_nonce + client_nonce
        self._key = self._mac(secret, b"session", self._nonces)
        self._frames = {CLIENT: 0, SERVER: 0}

    def proof(self, role: bytes) -> bytes:
        return self._mac(self._secret, role, self._nonces)

    def check(self, role: bytes, proof: bytes) -> None:
        if not hmac.compare_digest(self.proof(role), proof):
            raise AuthenticationFailed(f"The {role.decode()} does not know the cluster's secret.")

    def request(self, operation: int, object_hex: str, size: int) -> bytes:
        return self._signed(CLIENT, _REQUEST.pack(operation, object_hex.encode("ascii"), size))

    def read_request(self, frame: bytes) -> tuple[int, str, int]:
        """(operation, object id in hexadecimal, size)"""
        operation, name, size = _REQUEST.unpack(self._checked(CLIENT, frame))
        if _OBJECT_HEX.fullmatch(name) is None:
            raise AuthenticationFailed("A request names no object id.")
        return operation, name.decode("ascii"), size

    def answer(self, status: int, size: int = 0) -> bytes:
        return self._signed(SERVER, _ANSWER.pack(status, size))

    def read_answer(self, frame: bytes) -> tuple[int, int]:
        """(status, size)"""
        status, size = _ANSWER.unpack(self._checked(SERVER, frame))
        return status, size

    def _signed(self, role: bytes, body: bytes) -> bytes:
        return body + self._next_mac(role, body)

    def _checked(self, role: bytes, frame: bytes) -> bytes:
        body, mac = frame[:-MAC_SIZE], frame[-MAC_SIZE:]
        if not hmac.compare_digest(self._next_mac(role, body), mac):
            raise AuthenticationFailed("A frame of a transfer is not what the other end sent.")
        return body

    def _next_mac(self, role: bytes, body: bytes) -> bytes:
        self._frames[role] += 1
        return self._mac(self._key, role, self._frames[role].to_bytes(8, "little") + body)

    @staticmethod
    def _mac(key: bytes, purpose: bytes, message: bytes) -> bytes:
        return hmac.digest(key, purpose + b"\0" + message, "sha256")


def new_nonce() -> bytes:
    return os.urandom(NONCE_SIZE)
