"""Asks a Redis server whether redray can live on it: version, eviction, role. Each refusal says what to do."""

from __future__ import annotations

import time

import msgspec

from redray.exceptions import RaySystemError
from redray.gcs.client import Connection, ReplyError
from redray.gcs.scripts import Scripts, load_scripts

OLDEST = (6, 2)
_LOADING_PAUSE = 0.05  # seconds between two looks at a server that reads its data from disk


class ServerInfo(msgspec.Struct, frozen=True):
    flavor: str  # "redis" or "valkey"
    version: tuple[int, ...]  # of Valkey: the Redis version it is compatible with
    run_id: str  # drawn anew at each start of the server
    used_memory: int  # bytes
    max_memory: int  # bytes, 0 = no bound
    persistent: bool  # append-only file on: a restart keeps the cluster
    tls: bool


def check_server(connection: Connection, loading_timeout: float = 60.0) -> ServerInfo:
    """Raises RaySystemError with one sentence where redray cannot use the server."""
    deadline = time.monotonic() + loading_timeout
    info = _info(connection)
    while info.get("loading", "0") != "0":
        if time.monotonic() > deadline:
            left = info.get("loading_eta_seconds", "?")
            raise _refuse(
                connection, f"still loads its data from disk ({left} s left by its own estimate): try again later"
            )
        time.sleep(_LOADING_PAUSE)
        info = _info(connection)
    return _judge(connection, info)


def scripts_for(connection: Connection, tag: str) -> Scripts:
    """The scripts as this server understands them. Raises RaySystemError where redray cannot use the server."""
    return load_scripts(tag, check_server(connection).version)


def _judge(connection: Connection, info: dict[str, str]) -> ServerInfo:
    version = tuple(int(part) for part in info["redis_version"].split(".") if part.isdigit())
    if version < OLDEST:
        raise _refuse(connection, f"is version {info['redis_version']}: redray needs 6.2 or newer")
    if info.get("role", "master") != "master":
        raise _refuse(connection, "is a replica and cannot be written to: give the address of its master")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise _refuse(
            connection,
            f"may throw keys away (maxmemory-policy is {policy}): run 'CONFIG SET maxmemory-policy noeviction' there",
        )
    return ServerInfo(
        flavor="valkey" if "valkey_version" in info else "redis",
        version=version,
        run_id=info.get("run_id", ""),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        persistent=info.get("aof_enabled", "0") == "1",
        tls=connection.address.scheme == "rediss",
    )


def _info(connection: Connection) -> dict[str, str]:
    try:
        text = connection.call("INFO", timeout=10.0).decode("utf-8", "replace")
    except ReplyError as error:
        raise _refuse(connection, f"does not let this user call INFO ({error}): grant it '+info'") from None
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    info = {name: value for name, _, value in pairs}
    if "redis_version" not in info:
        raise _refuse(connection, "does not say its version: is this a Redis server?")
    return info


def _refuse(connection: Connection, reason: str) -> RaySystemError:
    return RaySystemError(f"Redis at {connection.address} {reason}.")
