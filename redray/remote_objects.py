"""Large values for a process on a machine without a node: they go to and come from nodes over their transfer ports."""

from __future__ import annotations

import random
from typing import Any

from redray.arrivals import Located
from redray.cluster_view import Query
from redray.exceptions import ObjectLostError, RaySystemError
from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.gcs.secret import transfer_secret

TIMEOUT_S = 30.0


def _addresses(query: Query, keys: Keys, nodes: list[str]) -> list[tuple[str, tuple[str, int]]]:
    rows = query([("HGET", keys.node(node), "address") for node in nodes]) if nodes else []
    found = []
    for node, row in zip(nodes, rows, strict=True):
        if row is not None:
            host, _, port = row.decode().rpartition(":")
            found.append((node, (host, int(port))))
    return found


def _secret(query: Query, keys: Keys, address: Address) -> bytes:
    stored = query([("HGET", keys.cluster, "transfer_secret")])[0]
    return transfer_secret(address.password, stored or b"")


def upload(query: Query, keys: Keys, address: Address, object: str, packed: bytes) -> str:
    """Store a value on some node, and return which."""
    from redray.store.fetch import upload as send

    nodes = [id.decode() for id in query([("SMEMBERS", keys.nodes)])[0]]
    random.shuffle(nodes)
    for node, place in _addresses(query, keys, nodes):
        send(place, _secret(query, keys, address), object, packed, TIMEOUT_S)
        return node
    raise RaySystemError("No node is alive to hold a large value: start one with `redray worker`.")


def download(query: Query, keys: Keys, address: Address, object: str, where: Located) -> memoryview:
    """The packed bytes of a value, in this process' own memory."""
    from redray.store.fetch import pull

    error: Any = ObjectLostError(object)
    for _, place in _addresses(query, keys, where.nodes):
        target = memoryview(bytearray(where.size))
        try:
            pull(place, _secret(query, keys, address), object, where.size, target, TIMEOUT_S)
            return target.toreadonly()
        except ObjectLostError as lost:
            error = lost
    raise error
