"""What `redray start` left running on this machine: where that is written down, and how `stop` and `init` find it.

`cluster.json` in the temporary directory names the address and the processes. Directory and file belong to one user
alone; what does not (somebody else made it first) is not ours: believing it would hand our work to a stranger.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import msgspec

from redray.config import settings
from redray.exceptions import RaySystemError, SecurityError
from redray.gcs.address import Address

FILE = "cluster.json"
PASSWORD_FILE = "redis_password"


@dataclass(frozen=True)
class Process:
    """A process by id and start time: an id alone may belong to somebody else by the time it is signalled."""

    role: str  # "redis" or "node"
    pid: int
    started: float  # seconds since the epoch

    @classmethod
    def of(cls, role: str, pid: int) -> Process:
        import psutil

        return cls(role, pid, psutil.Process(pid).create_time())

    def is_alive(self) -> bool:
        import psutil

        try:
            process = psutil.Process(self.pid)
            # Counted in ticks since boot, and the time of boot wanders with the clock, by less than this.
            same = abs(process.create_time() - self.started) < 2
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class LocalCluster:
    address: str  # a URL without its password
    temp_dir: str
    processes: tuple[Process, ...] = ()

    @property
    def password_file(self) -> str:
        return os.path.join(self.temp_dir, PASSWORD_FILE)

    def alive(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if process.is_alive())

    def write(self) -> None:
        """Whole or not at all: a reader never sees half a file."""
        path = os.path.join(self.temp_dir, FILE)
        write_private(path, json.dumps({"address": self.address, "processes": [asdict(p) for p in self.processes]}))


def default_temp_dir() -> str:
    return settings().temp_dir or f"/tmp/redray-{os.geteuid()}"


def make_private_directory(path: str) -> str:
    """Make it for this user alone, or check that it is so; SecurityError if somebody else could read or change it."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, mode=0o700)
    if not is_private(path):
        raise SecurityError(
            f"{path} must be a directory that only you can open (chmod 700); name another with --temp-dir."
        )
    return path


def is_private(path: str) -> bool:
    """Ours, not a link, and closed to everybody else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def write_private(path: str, text: str) -> None:
    """A file of mode 0600 that replaces an older one at once. The directory is private: nobody plants a name there."""
    new = f"{path}.{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(new, path)


def read_private(path: str) -> str | None:
    """The text of a file that is ours alone, None when there is none."""
    if not is_private(path):
        return None
    with open(path) as file:
        return file.read()


def find_local_cluster(temp_dir: str | None = None) -> LocalCluster | None:
    """The cluster that `redray start` made (or joined) here, if any process of it still runs."""
    directory = temp_dir or default_temp_dir()
    text = read_private(os.path.join(directory, FILE)) if is_private(directory) else None
    if text is None:
        return None
    found = json.loads(text)
    cluster = LocalCluster(found["address"], directory, tuple(Process(**process) for process in found["processes"]))
    return cluster if cluster.alive() else None


def record(address: Address, temp_dir: str, process: Process) -> None:
    """Write down that `process` runs here for the cluster at `address`. A directory's record names one cluster."""
    public = without_password(address)
    cluster = find_local_cluster(temp_dir)
    if cluster is not None and cluster.address != public:
        raise RaySystemError(
            f"This machine takes part in the cluster at {cluster.address}: stop that first with 'redray stop', "
            "or name another directory with --temp-dir."
        )
    alive = cluster.alive() if cluster else ()
    LocalCluster(public, temp_dir, (*alive, process)).write()


def forget(temp_dir: str) -> None:
    """The cluster has ended, or never began."""
    for name in (FILE, PASSWORD_FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(temp_dir, name))


def without_password(address: Address) -> str:
    return msgspec.structs.replace(address, password="").url()


def with_password(address: Address, temp_dir: str | None = None, password_file: str | None = None) -> Address:
    """The address with the password that belongs to it.

    If it carries none: from `password_file`, from the environment ($REDRAY_REDIS_PASSWORD, or the file that
    $REDRAY_REDIS_PASSWORD_FILE names), or where `redray start` keeps it on this machine. Raises OSError when a named
    file cannot be read.
    """
    if address.password:
        return address
    password = "" if password_file else os.environ.get("REDRAY_REDIS_PASSWORD", "")
    password_file = password_file or os.environ.get("REDRAY_REDIS_PASSWORD_FILE")
    if password_file and not password:
        with open(password_file) as file:
            password = file.read().strip()
    if not password:
        cluster = find_local_cluster(temp_dir)
        if cluster and _place(Address.parse(cluster.address)) == _place(address):
            password = read_private(cluster.password_file) or ""
    return msgspec.structs.replace(address, password=password)


def _place(address: Address) -> tuple[str, int, str]:
    """Where a server is, whatever the name of the loopback interface."""
    host = "127.0.0.1" if address.host == "localhost" else address.host
    return host, address.port, address.path


@contextlib.contextmanager
def locked(temp_dir: str) -> Iterator[None]:
    """One `redray start` at a time: two that read before either wrote would forget each other's processes."""
    import fcntl

    path = os.path.join(temp_dir, "cluster.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
