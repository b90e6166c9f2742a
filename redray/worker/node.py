"""One node: the I/O shell around the local scheduler. Sockets and replies become events, actions become frames and
calls.

One thread, one poll loop. Each turn reads what has come, lets the state decide, and sends what that gave: runs to
workers first, then one pipelined batch to Redis. Nothing long ever runs here, because the node's lease is renewed from
this loop.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from redray import messages
from redray.gcs import actors, nodes, objects, processes, tasks
from redray.gcs.address import Address
from redray.gcs.check import check_server
from redray.gcs.client import Connection, ReplyError
from redray.gcs.inbox import InboxLink
from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS, Message, Outcome, Reply
from redray.gcs.scripts import load_scripts
from redray.gcs.secret import transfer_secret
from redray.gcs.server import remove_directory
from redray.ids import NodeID, WorkerID
from redray.resources import to_units
from redray.store.janitor import SharedDirectory, sweep
from redray.store.local_store import LocalStore
from redray.version import __version__
from redray.worker import actions, events, machine
from redray.worker.exit_reason import describe_exit
from redray.worker.job_book import JobBook
from redray.worker.launch import NodeConfig
from redray.worker.node_objects import NodeObjects
from redray.worker.output import LineReader
from redray.worker.process_link import ProcessLink
from redray.worker.redis_link import RedisLink
from redray.worker.state import NodeState
from redray.worker.template import Exited, Forked, ForkFailed, Template, TemplateDied, start_template

RENEW_S = 1.0
TICK_S = 0.1  # while something runs
SLOW_TICK_S = 0.02  # while tasks wait inside workers behind others
TELL_FREE_S = 0.05
REVOKE_S = 0.002  # after which a worker's mark says for sure whether a revoked run had started
STOP_STARTING_S = 5.0  # after the last renewal was sent
MOST_IN_FLIGHT = 4  # calls to Redis: beyond it, finishes gather into fewer and larger ones
DRAIN_S = 30.0


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


class Node:
    def __init__(self, config: NodeConfig, template: Template) -> None:
        self.id = NodeID.from_random().hex()
        self._config = config
        self._template = template
        self._keys = Keys(config.tag)
        self._address = Address.parse(config.redis_url)
        self._directory = SharedDirectory()
        self.socket_path = str(self._directory.path / "node.sock")
        self._store = LocalStore(
            self._directory.path, machine.store_size(config.object_store_memory, str(self._directory.path))
        )
        self._resources = machine.resources(
            config.num_cpus,
            config.num_gpus,
            config.resources,
            config.node_ip_address,
            config.is_head,
            self._store.capacity,
        )
        most = max(64, int(16 * self._resources["CPU"]))
        self._state = NodeState(self._resources, lambda: WorkerID.from_random().hex(), most)
        self._link: RedisLink
        self._jobs: JobBook
        self._objects: NodeObjects
        self._links: dict[str, ProcessLink] = {}
        self._by_fd: dict[int, Callable[[], object]] = {}
        self._dirty: set[ProcessLink] = set()
        self._outputs: dict[str, tuple[LineReader, LineReader]] = {}
        # Task -> objects it left in shared memory, until Redis has taken the finish.
        self._large: dict[str, list[str]] = {}
        self._poll = select.epoll()
        self._renewed = time.monotonic()
        self._next_renewal = 0.0
        self._next_tick = 0.0
        self._stopping = False
        self._drain_until = 0.0
        self._warned: set[str] = set()
        self._revoking: deque[tuple[float, str, int]] = deque()
        self._told_free: dict[str, int] = {}
        self._next_free = 0.0

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
            self._store, self._link, self.id, (ip, 0), self._secret, self._address_of, self._state.here, self._dirty.add
        )
        self._listen()
        self._register()
        prestart = (
            self._config.prestart if self._config.prestart is not None else min(int(self._resources["CPU"]) or 1, 16)
        )
        for _ in range(prestart):
            self._state.start_worker()
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
            "labels": msgspec.json.encode(self._config.labels).decode(),
            "free": self._state.ledger.free_text(),
            "version": __version__,
            "head": str(int(self._config.is_head)),
        }
        self._link.run(nodes.register(self._keys, self.id, 0, os.getpid(), facts))
        if not self._link.connect():
            raise ConnectionError(f"Redis at {self._address} went away while the node started.")
        self._inbox.connect()
        self._watch(self._link.fileno(), self._link.turn)
        self._watch(self._inbox.fileno(), self._read_inbox)

    def _watch_owner(self) -> None:
        """First of all: a driver that dies while the node starts must not leave it behind."""
        if self._config.owner_pid:
            # It is gone already, or this system has no such thing: see _timers.
            with contextlib.suppress(OSError, AttributeError):
                self._watch(os.pidfd_open(self._config.owner_pid), self._check_owner)

    def _has_owner(self) -> bool:
        """An owner is the node's parent until it dies; its number may be another's by now."""
        return self._config.owner_pid in (0, os.getppid())

    def _check_owner(self) -> None:
        if not self._has_owner():
            self._stop("its driver has gone")

    def _stop(self, why: str) -> None:
        """The loop ends after this turn; the log says why."""
        if not self._stopping:
            sys.stderr.write(f"The node {self.id} ends: {why}.\n")
            self._stopping = True

    def close(self) -> None:
        """Whatever is left of this node goes: its workers with the template, its memory with the directory."""
        for link in self._links.values():
            link.close()
        if hasattr(self, "_objects"):
            self._objects.close()
        if hasattr(self, "_link"):
            self._link.close()
            self._inbox.close()
        self._directory.close()
        directory = self._config.session_directory
        if directory and not self._has_owner() and not os.path.exists(f"{directory}/redis.conf"):
            remove_directory(directory)  # its driver died before the server and its guardian were there

    # ---- the loop ----------------------------------------------------------------------------------------------------
    def _watch(self, fd: int, handler: Callable[[], object]) -> None:
        with contextlib.suppress(FileExistsError):  # a number that was closed has left the poll set, and may come again
            self._poll.register(fd, select.EPOLLIN)
        self._by_fd[fd] = handler

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # a closed descriptor has left the poll set by itself
                self._poll.unregister(fd)

    def loop(self) -> None:
        while not self._stopping:
            ready = self._poll.poll(self._patience())
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

    def _flush_processes(self) -> None:
        for link in list(self._dirty):
            if link.flush():
                self._dirty.discard(link)

    def _report_all(self) -> None:
        """What has ended goes to Redis now, ahead of what follows:
        a finish names what its value contains, a release lets go of it."""
        while self._state.has_more_to_settle():
            self._state.settle()
            self._act()

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
        self._read_revoked(now)
        if now >= self._next_tick:
            self._next_tick = now + RENEW_S
            self._handle(events.Tick())
            self._objects.tick()
            if self._state.draining:
                self._drain_on(now)

    def _handle(self, event: events.Event) -> Any:
        return self._state.handle(event, int(time.monotonic() * 1000))

    # ---- leases and chores -------------------------------------------------------------------------------------------
    def _renew(self, now: float) -> None:
        if not self._link.is_up:
            return
        command = nodes.renew(self._keys, f"node:{self.id}", 0, self._free_text())
        self._link.run(command, lambda reply: self._renewed_at(now, reply))

    def _renewed_at(self, sent: float, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise reply
        if reply[0] == Reply.FENCED.encode():
            self._declared_dead()
            return
        self._renewed = sent
        expired = reply[1].decode()
        if expired.startswith("node:"):
            self._reap(expired[5:], leaving=False)
        elif expired:
            self._link.run(processes.reap_driver(self._keys, expired[7:], 0))
        if reply[2]:
            self._do_chores()
        self._check_queues()

    def _free_text(self) -> str:
        self._is_told()
        return self._state.ledger.free_text()

    def _is_told(self) -> bool:
        """Whether Redis has what is free here as it is. Asked in every turn, so no text is made for it."""
        free = self._state.ledger.free
        free["object_store_memory"] = to_units(self._store.capacity - self._store.used)
        return free == self._told_free

    def _tell_free(self, now: float) -> None:
        """For people and `available_resources`, who see this a moment late.
        Work is placed by what this node knows itself."""
        if not self._is_told() and self._link.is_up and now >= self._next_free:
            self._told_free, self._next_free = dict(self._state.ledger.free), now + TELL_FREE_S
            self._link.plain(None, "HSET", self._keys.node(self.id), "free", self._state.ledger.free_text())

    def _reap(self, node: str, leaving: bool, then: Callable[[], None] | None = None) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, ReplyError) and reply[0] == Reply.MORE.encode():
                self._reap(node, leaving, then)
            elif then is not None:
                then()
            else:
                # The dead node may have lived on this machine. In a thread: memory that is given back takes its time.
                threading.Thread(target=sweep, name="redray-janitor", daemon=True).start()
            self._do_chores()

        self._link.run(nodes.reap(self._keys, node, 0, leaving), on_reply)

    def _do_chores(self) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, ReplyError) and reply[0] == Reply.MORE.encode():
                self._do_chores()

        self._link.run(nodes.do_chore(self._keys, 0), on_reply)

    def _declared_dead(self) -> None:
        """This incarnation is over. What its workers did not report is done elsewhere: they must not go on."""
        self._stop("the cluster has declared it dead, because its lease ran out")

    def _check_queues(self) -> None:
        """Warn the jobs whose tasks no node of the cluster can ever run."""
        if self._state.contended:
            from redray.worker.infeasible import warn_of_infeasible

            warn_of_infeasible(self._link, self._keys, self._warned)

    # ---- drain -------------------------------------------------------------------------------------------------------
    def _drain(self) -> None:
        if self._state.draining:
            return
        self._state.drain()
        self._drain_until = time.monotonic() + DRAIN_S
        self._next_tick = 0.0

    def _drain_on(self, now: float) -> None:
        if (self._state.is_at_rest() or now > self._drain_until) and self._link.in_flight == 0 and not self._leaving():
            self._reap(self.id, leaving=True, then=lambda: self._stop("it was asked to"))

    def _leaving(self) -> bool:
        left, self._has_left = getattr(self, "_has_left", False), True
        return left

    # ---- processes ---------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._attach(ProcessLink(sock))

    def _attach(self, link: ProcessLink) -> None:
        self._watch(link.fileno(), lambda: self._read_process(link))

    def _read_process(self, link: ProcessLink) -> None:
        for body in link.read():
            self._take(link, body)
        if link.at_end:
            self._process_closed(link)

    def _take(self, link: ProcessLink, body: bytes) -> None:
        message = messages.decode_to_node(body)
        _TAKE[type(message)](self, link, message)
        self._dirty.add(link)

    def _process_closed(self, link: ProcessLink) -> None:
        self._unwatch(link.fileno())
        if link.kind == "driver":
            link.close()
            if self._links.get(link.worker) is link:
                del self._links[link.worker]
                self._end_process(link)
                if self._config.session_directory and self._config.owner_pid == link.pid:
                    self._stop("its driver has closed the connection")
        elif link.kind == "worker":
            # Its template tells how it ended; if it only closed the channel it must not live on.
            self._template.signal(link.worker, signal.SIGKILL)
        else:
            link.close()

    def _end_process(self, link: ProcessLink, crashed: bool = False) -> None:
        """Behind what its last tasks came to: a result may contain refs that only this process held."""
        self._report_all()
        self._objects.release_process(link.worker)
        self._link.run(processes.end(self._keys, link.worker, self.id, 0, crashed), lambda _: self._do_chores())

    def _hello(self, link: ProcessLink, message: messages.Hello) -> None:
        link.kind, link.worker, link.pid = message.kind, message.worker, message.pid
        link.job = message.job
        old = self._links.get(message.worker)
        if old is not None and old is not link:
            self._unwatch(old.fileno())
            old.close()
            link.taken, link.acked = old.taken, old.acked
        else:
            link.taken = message.last
        self._links[message.worker] = link
        self._link.run(
            processes.open(
                self._keys,
                message.worker,
                self.id,
                0,
                message.kind,
                message.job,
                message.pid,
                message.namespace,
                message.config,
            )
        )
        if message.config:
            self._jobs.learn(message.job, message.config)
        link.post(
            messages.Welcome(
                self.id,
                link.taken,
                str(self._store.path),
                self._store.capacity,
                {"redis": self._address.url(), "tag": self._config.tag},
            )
        )
        if message.kind == "worker":
            self._handle(events.WorkerReady(message.worker))

    def _call(self, link: ProcessLink, call: messages.Call) -> None:
        if call.number <= link.taken:
            return  # sent again after a reconnect, and taken before it
        link.taken = call.number
        args = call.args
        if call.verb == "task_submit" and not args[0]:  # else it comes again, from a process that lost its node
            claims = (
                self._handle(events.Submitted(link.worker, args[1:])) if self._may_start() else "-" * (len(args) - 1)
            )
            args = [claims.encode(), *args[1:]]
            self._act()
            self._flush_processes()  # the worker first: it starts while this node writes to Redis
        elif call.verb == "object_put":
            self._put(link, args)
        elif call.verb == "object_release" and link.kind == "worker":
            self._report_all()
        elif call.verb == "function_export":
            self._jobs.learn_function(args[0].decode(), args[3])
        self._link.relay(
            link.worker, call.number, call.seen, call.verb, args, lambda reply: self._answered(link, call, reply)
        )

    def _may_start(self) -> bool:
        """Self-fencing: without a fresh lease nothing new is started,
        because somebody may be doing it elsewhere by now."""
        return time.monotonic() - self._renewed < STOP_STARTING_S

    def _put(self, link: ProcessLink, args: list[bytes]) -> None:
        object, inline, node = args[0].decode(), args[1], args[3].decode()
        if node == self.id:
            self._objects.seal(object, link.worker)
        elif inline:
            self._state.recent.add(object, inline)

    def _answered(self, link: ProcessLink, call: messages.Call, reply: Any) -> None:
        link = self._links.get(link.worker, link)
        failure = None
        if isinstance(reply, ReplyError):
            failure = (call.number, "ERROR", str(reply))
            sys.stderr.write(f"Redis refused {call.verb} of {link.kind} {link.worker}: {reply}\n")
        elif reply[0] not in (b"OK", b"REPEAT") and not call.wants_reply:
            failure = (call.number, reply[0].decode(), "")
        if call.wants_reply:
            link.post(
                messages.CallReply(call.number, failure[2] if failure and failure[1] == "ERROR" else _plain(reply))
            )
        link.acknowledge(call.number, failure)
        self._dirty.add(link)

    def _done(self, link: ProcessLink, message: messages.Done) -> None:
        large = [
            f"{message.task}{index:08x}" for index, returned in enumerate(message.returns) if returned.inline is None
        ]
        if large:
            self._large[message.task] = large
            for object in large:
                self._objects.seal(object, link.worker)
        if message.detail and message.outcome == Outcome.VALUE:
            link.name = message.detail  # an actor that says what it prints as
        self._handle(events.TaskDone(link.worker, message))

    def _get_function(self, link: ProcessLink, message: messages.GetFunction) -> None:
        def found(pickled: bytes | None) -> None:
            if pickled is None:
                text = (
                    f"Function {message.function} is not in the cluster any more: the job that exported it has ended."
                )
                link.post(messages.Reply(message.request, None, "RaySystemError", text))
            else:
                link.post(messages.Reply(message.request, pickled))
            self._dirty.add(link)

        self._jobs.function(message.function, found)

    # ---- workers -----------------------------------------------------------------------------------------------------
    def _template_reports(self) -> None:
        for report in self._template.receive():
            if isinstance(report, Forked):
                self._worker_forked(report)
            elif isinstance(report, Exited):
                self._worker_exited(report)
            elif isinstance(report, ForkFailed):
                self._handle(events.WorkerGone(report.worker, 0, report.reason))
            elif isinstance(report, TemplateDied):
                self._stop("its template process has died")

    def _worker_forked(self, report: Forked) -> None:
        link = ProcessLink(report.channel, "worker")
        link.worker, link.pid = report.worker, report.pid
        self._attach(link)
        readers = (LineReader(report.stdout_fd), LineReader(report.stderr_fd))
        self._outputs[report.worker] = readers
        for reader, stream in zip(readers, ("stdout", "stderr"), strict=True):
            self._watch(reader.fileno(), lambda r=reader, s=stream: self._read_output(link, r, s))  # type: ignore[misc]

    def _worker_exited(self, report: Exited) -> None:
        link = self._links.pop(report.worker, None)
        readers = self._outputs.pop(report.worker, None)
        if link is not None:
            for body in link.read_to_end():
                self._take(link, body)
            self._dirty.discard(link)
            self._unwatch(link.fileno())
            link.close()
        tail: list[str] = []
        for reader, stream in zip(readers or (), ("stdout", "stderr"), strict=False):
            if link is not None:
                self._publish(link, stream, reader.drain())
            tail = list(reader.tail) if stream == "stderr" else []
            self._unwatch(reader.fileno())
            reader.close()
        if link is not None:
            self._end_process(link, report.status != 0)
        self._handle(events.WorkerGone(report.worker, report.started, describe_exit(report.status, report.pid, tail)))

    def _read_output(self, link: ProcessLink, reader: LineReader, stream: str) -> None:
        self._publish(link, stream, reader.read())
        if reader.at_end:
            self._unwatch(reader.fileno())

    def _publish(self, link: ProcessLink, stream: str, lines: list[str]) -> None:
        """Printed lines go to the drivers of the job, by way of a capped stream."""
        if lines and link.told_job and not self._jobs.has_ended(link.told_job):
            self._link.plain(
                None, "XADD", self._keys.logs(link.told_job), "MAXLEN", "~", LIMITS["LOG_LINES"], "*",
                "name", link.name, "pid", link.pid, "host", self._config.node_ip_address,
                "stream", stream, "text", "\n".join(lines),
            )  # fmt: skip

    # ---- actions -----------------------------------------------------------------------------------------------------
    def _act(self) -> None:
        for action in self._state.take_actions():
            _ACT[type(action)](self, action)

    def _dispatch(self, action: actions.Dispatch) -> None:
        link = self._links.get(action.worker)
        if link is None:
            return
        link.held.append(action)
        if len(link.held) == 1:
            self._send_held(link)

    def _send_held(self, link: ProcessLink) -> None:
        """Runs go out in order; one whose function or job is not known yet holds back those behind it."""
        while link.held:
            action = link.held[0]
            config = self._jobs.known_config(action.job)
            if config is None:
                self._jobs.config(action.job, lambda _: self._send_held(link))
                return
            if link.told_job != action.job:
                link.told_job = link.job = action.job
                self._link.plain(None, "HSET", self._keys.process(link.worker), "job", action.job)
                link.post(messages.JobInfo(action.job, config))
            run = action.run
            if action.function not in link.functions and not action.is_call:
                pickled = self._jobs.known_function(action.function)
                if pickled is None and not self._jobs.is_missing(action.function):
                    self._jobs.function(action.function, lambda _: self._send_held(link))
                    return
                link.functions.add(action.function)
                run.function = pickled
            if not action.is_call:  # an actor prints under its class, whatever method runs
                link.name = action.name
            link.held.popleft()
            link.post(run)
            self._dirty.add(link)

    def _send(self, action: actions.Send) -> None:
        link = self._links.get(action.worker)
        if link is not None:
            link.post(action.message)
            self._dirty.add(link)

    def _interrupt(self, action: actions.Interrupt) -> None:
        self._template.interrupt(action.worker, action.task, action.attempt)

    def _revoke(self, action: actions.Revoke) -> None:
        self._template.revoke(action.worker, action.serial)
        self._revoking.append((time.monotonic() + REVOKE_S, action.worker, action.serial))

    def _read_revoked(self, now: float) -> None:
        while self._revoking and self._revoking[0][0] <= now:
            _, worker, serial = self._revoking.popleft()
            if worker in self._state.workers:
                self._handle(events.Revoked(worker, serial, self._template.mark(worker).started()))

    def _record_finishes(self, action: actions.RecordFinishes) -> None:
        ended = [finish.task for finish, _ in action.finishes]

        def on_reply(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise reply
            stale = {task.decode() for task in reply[1]} if reply[0] == b"OK" else set()
            for task in ended:
                for object in self._large.pop(task, ()):
                    if task in stale:
                        self._objects.free(object)
            if action.limit or reply[0] == b"FENCED":
                self._work_came(reply)

        self._link.call(tasks.finish(action.free, action.rooms, action.limit, action.finishes), on_reply)

    def _claim(self, action: actions.Claim) -> None:
        self._link.call(tasks.claim(action.free, action.rooms, action.limit), self._work_came)

    def _work_came(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise reply
        if reply[0] == b"FENCED":
            self._declared_dead()
            return
        work, backlog = (reply[-2], reply[-1]) if reply[0] == b"OK" else (reply[1], 1)
        self._handle(events.WorkReceived([_item(item) for item in work], backlog))

    def _record_actor_started(self, action: actions.RecordActorStarted) -> None:
        def on_reply(reply: Any) -> None:
            outcome = reply[0].decode()
            calls = [_item(item) for item in reply[1]] if outcome in ("OK", "MORE") else []
            pairs = reply[2] if outcome == "OK" else []
            callers = {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}
            self._handle(events.ActorStartAnswered(action.actor, outcome, calls, callers))

        self._link.call(actors.started(action.actor, action.attempt, action.worker), on_reply)

    def _record_actor_died(self, action: actions.RecordActorDied) -> None:
        self._link.call(
            actors.died(action.actor, action.attempt, action.final, action.cause), lambda _: self._do_chores()
        )

    # ---- the inbox ---------------------------------------------------------------------------------------------------
    def _read_inbox(self) -> None:
        got = self._inbox.receive()
        for kind, id, data in got:
            handler = _MAIL.get(kind)
            if handler is not None:
                handler(self, kind, id, data)
        self._inbox.commit()
        self._inbox.prepare()

    def _object_mail(self, kind: str, id: str, data: bytes) -> None:
        if kind == Message.FETCH:
            self._link.plain(
                lambda value: self._object_mail(Message.VALUE, id, value) if isinstance(value, bytes) else None,
                "HGET", self._keys.of_object(id), "value",
            )  # fmt: skip
            return
        self._objects.news(kind, id, data)
        self._handle(events.ObjectNews(id, data if kind == Message.VALUE else None))

    def _job_mail(self, _kind: str, id: str, _data: bytes) -> None:
        self._jobs.ended(id)
        self._handle(events.JobEnded(id))

    def _address_of(self, node: str, found: Callable[[tuple[str, int] | None], None]) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, bytes):
                found(None)
                return
            host, _, port = reply.decode().rpartition(":")
            found((host, int(port)))

        self._link.plain(on_reply, "HGET", self._keys.node(node), "address")


_TAKE: dict[type, Callable[[Node, ProcessLink, Any], Any]] = {
    messages.Hello: Node._hello,
    messages.Call: Node._call,
    messages.Done: Node._done,
    messages.Blocked: lambda node, link, message: node._handle(events.WorkerBlocked(link.worker, message.returned)),
    messages.Unblocked: lambda node, link, message: node._handle(events.WorkerUnblocked(link.worker)),
    messages.HandedBack: lambda node, link, message: node._handle(events.HandedBackTasks(link.worker, message.serials)),
    messages.ActorExit: lambda node, link, message: node._handle(events.ActorExiting(link.worker, message.reason)),
    messages.Allocate: lambda node, link, message: node._objects.allocate(link, message),
    messages.Locate: lambda node, link, message: node._objects.locate(link, message),
    messages.Unpin: lambda node, link, message: node._objects.unpin(link, message.objects),
    messages.GetFunction: Node._get_function,
}

_ACT: dict[type, Callable[[Node, Any], None]] = {
    actions.StartWorker: lambda node, action: node._template.request_fork(
        action.worker, {"REDRAY_NODE_IP": node._config.node_ip_address}
    ),
    actions.Send: Node._send,
    actions.Dispatch: Node._dispatch,
    actions.Interrupt: Node._interrupt,
    actions.Revoke: Node._revoke,
    actions.Kill: lambda node, action: node._template.signal(action.worker, signal.SIGKILL),
    actions.Learn: lambda node, action: node._link.call(objects.wait(action.objects)),
    actions.RecordFinishes: Node._record_finishes,
    actions.Claim: Node._claim,
    actions.RecordRunning: lambda node, action: node._link.call(tasks.running(action.tasks)),
    actions.RecordActorStarted: Node._record_actor_started,
    actions.RecordActorDied: Node._record_actor_died,
}

_MAIL: dict[str, Callable[[Node, str, str, bytes], Any]] = {
    Message.VALUE: Node._object_mail,
    Message.FETCH: Node._object_mail,
    Message.LOCATED: Node._object_mail,
    Message.RING: lambda node, kind, id, data: node._handle(events.Rung()),
    Message.KEEP: lambda node, kind, id, data: node._store.promote(id),
    Message.FREE: lambda node, kind, id, data: node._objects.free(id),
    Message.CALL: lambda node, kind, id, data: node._handle(events.CallReceived(int(id), data)),
    Message.CANCEL: lambda node, kind, id, data: node._handle(events.CancelRequested(id, data == b"1")),
    Message.KILL: lambda node, kind, id, data: node._handle(events.KillRequested(id, data.decode())),
    Message.RETIRE: lambda node, kind, id, data: node._handle(events.RetireRequested(id)),
    Message.JOB_ENDED: Node._job_mail,
    Message.LOST: lambda node, kind, id, data: node._declared_dead(),
}


def _item(item: list[Any]) -> tuple[int, bytes, dict[str, bytes], list[str]]:
    attempt, spec, news = item
    values, located = {}, []
    for kind, id, data in news:
        if kind == b"value":
            values[id.decode()] = data
        else:
            located.append(id.decode())
    return int(attempt), spec, values, located


def _plain(reply: Any) -> Any:
    """A Redis reply as text and numbers, for a frame."""
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply
