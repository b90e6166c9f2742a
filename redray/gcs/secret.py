"""The secret by which nodes and drivers know each other when they exchange values."""

from __future__ import annotations


def transfer_secret(password: str, stored: bytes) -> bytes:
    """Derived from the cluster's password. Without a password whoever reaches Redis is trusted,
    so what is `stored` there will do."""
    import hashlib
    import hmac

    return hmac.new(password.encode() or stored, b"redray node to node", hashlib.sha256).digest()
