"""Settings, read from the environment when they are asked for, and the private directories of a session."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_PREFIX = "REDRAY_"
_WAY_OUT = "remove it or set REDRAY_TEMP_DIR to a directory of your own"


class Settings(msgspec.Struct, frozen=True):
    """What an operator can turn. The environment variable of `lease_seconds` is REDRAY_LEASE_SECONDS, and so on."""

    address: str = ""  # the cluster to join; REDRAY_ADDRESS, else RAY_ADDRESS
    redis_server: str = ""  # the server binary for embedded use
    temp_dir: str = ""  # parent of session directories; default /tmp/redray-<uid>
    lease_seconds: float = 7.0  # a node that has not renewed for so long is dead
    renew_seconds: float = 1.0
    stop_after_seconds: float = 5.0  # after its last successful renewal a node starts no work
    object_spilling_directory: str = ""  # directories or URLs, by commas; default: in temp_dir
    max_workers: int = 0  # processes for tasks on a node; default: 16 per CPU, and at least 64
    package_bytes: int = 500 << 20  # of a working_dir or module, packed: larger ones are refused
    environment_cache_bytes: int = 10 << 30  # files of runtime environments on a node; what runs keeps its own
    inline_limit: int = 100 * 1024  # bytes: larger values live in shared memory
    memory_usage_threshold: float = 0.95  # of the machine's memory: beyond it workers are killed; 1 turns that off
    procfs: str = "/proc"  # where the machine's memory is told, for a node in a container
    cgroupfs: str = "/sys/fs/cgroup"
    failpoints: str = ""  # name=action,name=action: where tests make a process fail


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Raises ValueError with a sentence for a value that cannot be meant."""
    environ = os.environ if environment is None else environment
    values: dict[str, str | int | float] = {}
    for field in msgspec.structs.fields(Settings):
        text = environ.get(_PREFIX + field.name.upper(), "")
        if text:
            values[field.name] = _value(_PREFIX + field.name.upper(), text, type(field.default))
    if "address" not in values and environ.get("RAY_ADDRESS"):
        values["address"] = environ["RAY_ADDRESS"]
    for name in ("memory_usage_threshold",):
        if name not in values and environ.get(f"RAY_{name}"):
            values[name] = _value(f"RAY_{name}", environ[f"RAY_{name}"], float)
    if environ.get("RAY_memory_monitor_refresh_ms") == "0":
        values["memory_usage_threshold"] = 1.0
    found = Settings(**values)  # type: ignore[arg-type]
    if not found.renew_seconds < found.stop_after_seconds < found.lease_seconds:
        raise ValueError(
            f"REDRAY_RENEW_SECONDS ({found.renew_seconds}) < REDRAY_STOP_AFTER_SECONDS ({found.stop_after_seconds}) < "
            f"REDRAY_LEASE_SECONDS ({found.lease_seconds}) must hold: a node stops before others think it dead."
        )
    return found


def spilling_places(given: str | Sequence[str] | None = None) -> list[str]:
    """The directories, made absolute, and URLs that were given; else those of the environment; else none.

    Raises TypeError for anything but text, ValueError for a text without content.
    """
    if given is not None and not isinstance(given, str):
        if not isinstance(given, Sequence) or not all(isinstance(place, str) for place in given):
            raise TypeError(f"object_spilling_directory is a directory or a list of them, not {given!r}.")
    places = [given] if isinstance(given, str) else [*(given or ())]
    places = places or [place for place in settings().object_spilling_directory.split(",") if place]
    if not all(place.strip() for place in places):
        raise ValueError(f"object_spilling_directory names no directory: {places!r}.")
    return [place if "://" in place else os.path.abspath(place) for place in places]


def _value(name: str, text: str, kind: type) -> str | int | float:
    if kind is str:
        return text
    try:
        number: int | float = kind(text)
    except ValueError:
        raise ValueError(f"{name} is '{text}', which is not {'a whole' if kind is int else 'a'} number.") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} is {text}: it must be more than 0 and finite.")
    return number


def failpoints(text: str) -> dict[str, str]:
    """`"before_finish=exit,after_claim=pause"` as a mapping."""
    points: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, equals, action = entry.partition("=")
        if not (equals and name and action):
            raise ValueError(f"REDRAY_FAILPOINTS holds '{entry}': an entry reads name=action.")
        points[name] = action
    return points


def private_root(temp_dir: str = "") -> str:
    """Where this user's processes may make directories; made if it is not there.

    Raises PermissionError if it could be tampered with by another user.
    """
    root = temp_dir or settings().temp_dir or f"/tmp/redray-{os.geteuid()}"
    descriptor = _open_root(root)
    try:
        _check_root(root, os.fstat(descriptor))
    finally:
        os.close(descriptor)
    return root


def new_session_directory(temp_dir: str = "") -> Path:
    """Makes a directory that only this user can enter, with a name nobody can guess.

    Raises PermissionError if the directory above it could be tampered with by another user.
    """
    root = temp_dir or settings().temp_dir or f"/tmp/redray-{os.geteuid()}"
    descriptor = _open_root(root)
    try:
        _check_root(root, os.fstat(descriptor))
        name = f"session-{os.urandom(8).hex()}"
        os.mkdir(name, 0o700, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return Path(root, name).absolute()


def _open_root(root: str) -> int:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        # A planted symbolic link would lead our files to a place somebody else chose.
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PermissionError(f"{root} cannot hold session directories ({error.strerror}): {_WAY_OUT}.") from error


def _check_root(root: str, status: os.stat_result) -> None:
    shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if status.st_uid not in (os.geteuid(), 0) or shared:
        raise PermissionError(f"{root} belongs to another user or can be changed by one: {_WAY_OUT}.")
