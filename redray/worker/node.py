"""One node: the I/O shell around the local scheduler. Sockets and replies become events, actions frames and calls.

One thread, one poll loop. Each turn reads what has come, lets the state decide, and sends what that gave: runs to
workers first, then one pipelined batch to Redis. Nothing long ever runs here, because the node's lease is renewed from
this loop. The parts stand on each other, a file each: `node_shell`, `node_chores`, `node_actions`, `node_processes`,
`node_workers`, `node_mail`; the loop is on top.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from redray.gcs import nodes
from redray.gcs.check import check_server
from redray.gcs.client import Connection, ReplyError
from redray.gcs.inbox import InboxLink
from redray.gcs.scripts import load_scripts
from redray.gcs.secret import transfer_secret
from redray.gcs.server import remove_directory
from redray.local_cluster import default_temp_dir
from redray.metrics_files import FOLDER
from redray.store.janitor import sweep
from redray.version import __version__
from redray.worker import events, machine
from redray.worker.job_book import JobBook
from redray.worker.launch import NodeConfig
from redray.worker.node_mail import NodeMail
from redray.worker.node_objects import NodeObjects
from redray.worker.redis_link import RedisLink
from redray.worker.template import start_template

RENEW_S = 1.0
TICK_S = 0.1  # while something runs
SLOW_TICK_S = 0.02  # while tasks wait inside workers behind others
MOST_IN_FLIGHT = 4  # calls to Redis: beyond it, finishes gather into fewer and larger ones


def run_node(config: NodeConfig, ready: Callable[[str, str], None] = lambda node, path: None) -> None:
    """Run a node in the foreground until SIGTERM, or until the driver that owns it is gone.

    Raises RaySystemError or ConnectionError, before `ready` is called, if it cannot start.
    """
    from redray.worker.worker_main import worker_main

    template = start_template(worker_main)
    try:
        node = Node(config, template)
        try:
            node.start()
            ready(node.id, node.socket_path)
            node.loop()
        except BaseException:
            sys.excepthook(*sys.exc_info())  # before the connections close: those who are told so by that read this log
            raise
        finally:
            node.close()
    finally:
        template.close()


main = run_node


class Node(NodeMail):
    # ---- start and end -----------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._watch_owner()
        sweep()
        version = self._wait_for_redis()
        scripts = load_scripts(self._config.tag, version)
        self._inbox = InboxLink(self._address, self._keys.inbox(self.id), f"redray-inbox-{self.id[:8]}")
        self._link = RedisLink(self._address, self._keys, scripts, self.id, self._inbox.take_seen)
        self._jobs = JobBook(self._link, self._keys)
        ip = self._config.node_ip_address
        self._objects = NodeObjects(
            self._store,
            self._link,
            self.id,
            (ip, 0),
            self._secret,
            self._address_of,
            self._state.here,
            self._dirty.add,
            self._config.object_spilling_directory or [os.path.join(self._home(), "spilled")],
        )
        self._listen()
        if self._config.metrics_port is not None:
            from redray.worker.metrics_server import MetricsServer

            folder, tags = self._directory.path / FOLDER, {"NodeAddress": ip, "NodeId": self.id}
            self._metrics = MetricsServer(folder, ip, self._config.metrics_port, tags)
        self._register()
        prestart = (
            self._config.prestart if self._config.prestart is not None else min(int(self._resources["CPU"]) or 1, 16)
        )
        for _ in range(prestart):
            self._state.pool.start()
        self._act()
        signal.signal(signal.SIGTERM, lambda *_: self._drain())
        signal.signal(signal.SIGINT, lambda *_: self._drain())
        self._wake_in, wake_out = socket.socketpair()
        wake_out.setblocking(False)
        self._wake_out = wake_out
        signal.set_wakeup_fd(wake_out.fileno(), warn_on_full_buffer=False)
        self._watch(self._wake_in.fileno(), lambda: self._wake_in.recv(64))
        self._watch(self._template.fileno(), self._template_reports)
        self._watch(self._objects.mailbox.fileno(), self._objects.mailbox.run)

    def _home(self) -> str:
        """Where this node may put files: its session's directory, else the one for all of this user's."""
        return self._config.session_directory or self._config.temp_dir or default_temp_dir()

    def _wait_for_redis(self) -> tuple[int, int]:
        """An embedded node is started beside its Redis, not after it."""
        deadline = time.monotonic() + (10.0 if self._config.session_directory else 0.0)
        while True:
            try:
                connection = Connection.open(self._address, 5.0)
                break
            except ConnectionError:
                if time.monotonic() >= deadline or not self._has_owner():
                    raise
                time.sleep(0.001)
        try:
            version = check_server(connection).version
            self._secret = self._agree_on_secret(connection)
        finally:
            connection.close()
        return version[0], version[1]

    def _agree_on_secret(self, connection: Connection) -> bytes:
        stored = b""
        if not self._address.password:
            connection.call("HSETNX", self._keys.cluster, "transfer_secret", os.urandom(32).hex())
            stored = connection.call("HGET", self._keys.cluster, "transfer_secret")
        return transfer_secret(self._address.password, stored)

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.socket_path)
        os.chmod(self.socket_path, 0o600)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._watch(self._listener.fileno(), self._accept)

    def _register(self) -> None:
        host, port = self._objects.transfer_address
        facts = {
            "address": f"{host}:{port}",
            "host": self._config.node_ip_address,
            "hostname": machine.facts()["hostname"],
            "socket": self.socket_path,
            "resources": msgspec.json.encode(self._resources).decode(),
            "labels": msgspec.json.encode(self.labels).decode(),
            "free": self._state.ledger.free_text(),
            "version": __version__,
            "head": str(int(self._config.is_head)),
            "metrics_port": str(self._metrics.port) if self._metrics is not None else "",
        }
        self._link.run(nodes.register(self._keys, self.id, 0, os.getpid(), facts), self._registered)
        if not self._link.connect():
            raise ConnectionError(f"Redis at {self._address} went away while the node started.")
        self._inbox.connect()
        self._watch(self._link.fileno(), self._link.turn)
        self._watch(self._inbox.fileno(), self._read_inbox)

    def _registered(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise reply
        self._state.alone = len(reply[1]) <= 1

    def _watch_owner(self) -> None:
        """First of all: a driver that dies while the node starts must not leave it behind."""
        if self._config.owner_pid:
            # It is gone already, or this system has no such thing: see _timers.
            with contextlib.suppress(OSError, AttributeError):
                self._watch(os.pidfd_open(self._config.owner_pid), self._check_owner)

    def _check_owner(self) -> None:
        if not self._has_owner():
            self._stop("its driver has gone")

    def close(self) -> None:
        """Whatever is left of this node goes: its workers with the template, its memory with the directory."""
        for link in self._links.values():
            link.close()
        if self._metrics is not None:
            self._metrics.close()
        if hasattr(self, "_objects"):
            self._objects.close()
        if hasattr(self, "_link"):
            self._link.close()
            self._inbox.close()
        self._directory.close()
        self.environments.close()
        directory = self._config.session_directory
        if directory and not self._has_owner() and not os.path.exists(f"{directory}/redis.conf"):
            remove_directory(directory)  # its driver died before the server and its guardian were there

    # ---- the loop ----------------------------------------------------------------------------------------------------
    def loop(self) -> None:
        while not self._stopping:
            ready = self._poll.poll(self._patience())
            self._state.fence(not self._may_start())
            for fd, _ in ready:
                handler = self._by_fd.get(fd)
                if handler is not None and handler != self._template_reports:
                    handler()
            # Last: what was said to a worker, or by it, before its end counts as before.
            if any(fd == self._template.fileno() for fd, _ in ready):
                self._template_reports()
            self._timers()
            self._turn()

    def _patience(self) -> float:
        if self._dirty or self._state.has_more_to_settle() or self._link.wants_to_write:
            return 0.01
        now = time.monotonic()
        self._next_tick = min(self._next_tick, now + self._tick_interval())
        next_time = min(self._next_renewal, self._next_tick)
        if self._revoking:
            next_time = min(next_time, self._revoking[0][0])
        if not self._is_told():
            next_time = min(next_time, self._next_free)
        if (due := self._history.due()) is not None:
            next_time = min(next_time, due)
        return max(0.0, next_time - now)

    def _tick_interval(self) -> float:
        if self._state.has_sent_ahead():
            return SLOW_TICK_S
        busy = not self._state.is_at_rest() or self._objects.is_waiting or self._state.draining
        return TICK_S if busy else RENEW_S

    def _turn(self) -> None:
        """End of a turn: what was decided goes out, to the processes before it goes to Redis."""
        self._state.settle(report=self._link.in_flight < MOST_IN_FLIGHT and self._link.is_up)
        self._act()
        self._flush_processes()
        if not self._link.is_up or not self._is_inbox_up():
            self._reconnect()
        self._link.flush()

    def _is_inbox_up(self) -> bool:
        return self._inbox.fileno() >= 0

    def _reconnect(self) -> None:
        if self._link.connect():
            self._watch(self._link.fileno(), self._link.turn)
        if self._inbox.connect():
            self._watch(self._inbox.fileno(), self._read_inbox)

    def _timers(self) -> None:
        now = time.monotonic()
        if now >= self._next_renewal:
            self._next_renewal = now + RENEW_S
            self._check_owner()
            self._renew(now)
            for link in self._links.values():
                link.tell_acks()
                self._dirty.add(link)
        if now >= self._next_free:
            self._tell_free(now)
        self._write_history(now)
        self._read_revoked(now)
        if now >= self._next_tick:
            self._next_tick = now + RENEW_S
            self._handle(events.Tick())
            self._check_memory(now)
            self._objects.tick()
            if self._state.draining:
                self._drain_on(now)
