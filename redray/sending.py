"""What a process says to its cluster: numbered calls in order, submissions in batches, refs held and let go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from redray import messages, refs
from redray.arrivals import Arrival
from redray.channel import ChannelLost, DirectChannel, NodeChannel, Unacknowledged
from redray.critical import CriticalLock, guard
from redray.exceptions import ClusterLostError, RaySystemError
from redray.gcs import objects, tasks
from redray.gcs.address import Address
from redray.gcs.client import Connection, ConnectionLost
from redray.gcs.command import Command
from redray.gcs.inbox import InboxLink
from redray.gcs.keys import Keys
from redray.ids import STREAM_INDEX, JobID, NodeID, WorkerID
from redray.ref_table import RefTable
from redray.task_context import TaskContext
from redray.unhandled import UnhandledErrors

FIRST = b"\0\0\0\0"  # index of a first return value
STREAM = STREAM_INDEX.to_bytes(4, "big")
SLICE = 500
FLUSH_S = 0.001  # what is submitted while something is outstanding waits so long for company
DROPPED_S = 0.1  # how often a thread looks whether refs were dropped
LISTEN_S = 10.0  # how long it listens for the error of a task whose refs were dropped before its end


class Sending(refs.RefKeeper):
    """The lowest part of a session: who this process is, its channel, its batch. `kind` is "driver" or "worker"."""

    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        self.kind = kind
        self.token = object()
        self.worker_id = worker
        self.job_id = job
        self.namespace = namespace
        self.address_info: dict[str, Any] = {}
        self.log_reader: Any = None
        self.on_close: list[Callable[[], None]] = []
        self._worker = worker.hex()
        self._address = address
        self._keys = keys
        self._pid = os.getpid()
        self._lock = CriticalLock()
        self._calls = Unacknowledged()
        self._channel: NodeChannel | DirectChannel
        self._inbox = InboxLink(address, keys.inbox(self._worker), f"redray-inbox-{self._worker[:8]}")
        self._query: Connection | None = None
        self._query_lock = threading.Lock()
        self._table = RefTable()
        self._arrived: dict[bytes, Arrival] = {}
        self._asked: set[bytes] = set()
        self._number = 0
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._outstanding: set[bytes] = set()
        self._unhandled = UnhandledErrors()
        self._listens_until = 0.0
        self._streams: dict[bytes, Any] = {}  # task -> its stream, while this process has the generator
        self._reader: Any = None
        self._flusher: threading.Thread | None = None
        self._unsent = threading.Event()
        self._closed = False
        self._lost: BaseException | None = None

    def _move_to(self, address: Address, keys: Keys) -> None:
        """Where the cluster is, for a process that learns it from its node."""
        self._address, self._keys = address, keys
        self._inbox = InboxLink(address, keys.inbox(self._worker), f"redray-inbox-{self._worker[:8]}")

    def task_context(self) -> TaskContext | None:
        return None

    @property
    def node_id(self) -> NodeID | None:
        welcome = self._channel.welcome
        return NodeID(bytes.fromhex(welcome.node)) if welcome is not None else None

    def _has_node(self) -> bool:
        return self._channel.welcome is not None

    @property
    def is_closed(self) -> bool:
        return self._closed

    # ---- refs (RefKeeper) --------------------------------------------------------------------------------------------
    def count(self, object_id: bytes) -> None:
        self._table.count(object_id)
        if self.kind == "driver" and not self._unsent.is_set():
            self._wake_flusher()

    def pin(self, object_id: bytes) -> None:
        self.count(object_id)

    def _check_known(self, ids: Iterable[bytes]) -> None:
        """Every ref that was made or received under this session is counted: one that is not is of another cluster."""
        if not self._table.is_settled:
            with self._lock:
                self._table.settle()
        for id in ids:
            if id not in self._table:
                raise ValueError(
                    f"ObjectRef {id.hex()} does not belong to this cluster: "
                    "its session has ended, and its value with it."
                )

    # ---- sending -----------------------------------------------------------------------------------------------------
    def _call(self, command: Command, wants_reply: bool = False) -> int:
        return self._channel.call(self._inbox.take_seen(), command, wants_reply)

    def _post(self, message: messages.AnyMessage) -> None:
        """A frame that is no call, behind what was submitted before and ahead of releases:
        a result may contain what is let go."""
        self._flush_submissions()
        self._channel.post(message)

    def _flush_batch(self) -> None:
        """Holds first, then what was submitted, then releases: nothing is let go before its successor is known."""
        self._flush_submissions()
        self._flush_releases()

    def _flush_submissions(self) -> None:
        holds = self._table.take_holds()
        for first in range(0, len(holds), SLICE):
            self._call(objects.hold([id.hex() for id in holds[first : first + SLICE]]))
        if self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._call(tasks.submit("", batch))

    def _flush_releases(self) -> None:
        if refs.dropped:
            releases = self._table.take_releases()
            if self._streams:
                releases = self._end_streams(releases)
            for id in releases:
                is_pending = id in self._outstanding
                self._unhandled.dropped(id, self._arrived.pop(id, None), is_pending)
                self._asked.discard(id)
                if is_pending:
                    self._outstanding.discard(id)
                    if self.kind == "driver":  # a worker's executor reads for itself
                        self._listens_until = time.monotonic() + LISTEN_S
            if self._flusher is None and (self._unhandled.is_due() or self._listens_until):
                self._start_flusher()
            for first in range(0, len(releases), SLICE):
                self._call(objects.release([id.hex() for id in releases[first : first + SLICE]]))
        if self._reader is not None and self._reader.unpinned:
            unpinned = self._reader.unpinned
            self._channel.post(messages.Unpin([unpinned.popleft() for _ in range(len(unpinned))]))

    def _end_streams(self, releases: list[bytes]) -> list[bytes]:
        """Generators among what was dropped; their unread items go with them."""
        handles = [id for id in releases if id[12:] == STREAM]
        if not handles:
            return releases
        for handle in handles:
            self._end_stream(handle)
        return [id for id in releases if id[12:] != STREAM] + self._table.take_releases()

    def _end_stream(self, handle: bytes) -> None:
        """See `Streaming`."""

    def _has_dropped(self) -> bool:
        return bool(refs.dropped or (self._reader is not None and self._reader.unpinned))

    def _flush(self) -> None:
        with self._lock:
            self._flush_batch()
            self._send_out()

    def _send_out(self) -> None:
        """What the channel takes of what was said. The lock is held."""
        try:
            self._channel.flush()
        except ChannelLost as error:
            self._reroute(error, self._channel)
        if self._channel.wants_to_write:  # this thread may go on to other things: another one sends the rest
            self._wake_flusher()

    def _wake_flusher(self) -> None:
        self._unsent.set()
        if self._flusher is None:
            self._start_flusher()

    def _start_flusher(self) -> None:
        self._flusher = threading.Thread(target=self._flush_now_and_then, name="redray-flusher", daemon=True)
        self._flusher.start()

    def _flush_now_and_then(self) -> None:
        """What the main thread left in the batch, or dropped (`__del__` tells nobody),
        before it went on with other things; and errors that nobody asks for."""
        while not self._closed:
            if self._unsent.wait(DROPPED_S):
                time.sleep(FLUSH_S)
                self._unsent.clear()
            elif not (self._has_dropped() or self._unhandled.is_due() or time.monotonic() < self._listens_until):
                continue
            if self._closed or self._lost is not None:
                return
            try:
                self._flush()
                if time.monotonic() < self._listens_until:
                    self._listen_a_little()
                self._unhandled.report()
            except (OSError, RaySystemError, ValueError) as error:
                if self.is_closed:  # while it listened: what it listened to is gone
                    return
                self._lost = self._lost or error

    def _listen_a_little(self) -> None:
        """Take in what has come, without waiting. On this floor nobody hears."""

    # ---- plain reads, and faults -------------------------------------------------------------------------------------
    def query(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Plain reads, one round trip, on a connection of their own."""
        with self._query_lock:
            for last in (False, True):
                if self._query is None:
                    self._query = Connection.open(self._address, 5.0, f"redray-query-{self._worker[:8]}")
                try:
                    replies = self._query.pipeline(commands, 30.0)
                    break
                except ConnectionLost:
                    self._query.close()
                    self._query = None
                    if last:
                        raise
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _check_usable(self) -> None:
        if self.kind == "driver":
            guard()
        if self._closed:
            raise RaySystemError("This session was shut down: call redray.init() again.")
        if self._lost is not None:
            raise self._lost
        if os.getpid() != self._pid:
            raise RaySystemError(
                "This process was forked from one that uses redray, and cannot use its connections: call redray in the "
                "parent, or start a task instead of a fork."
            )

    def _reroute(self, cause: ChannelLost, channel: NodeChannel | DirectChannel) -> None:
        """`channel` is lost: go another way, unless another thread has done so meanwhile."""
        self._lost = ClusterLostError(f"The connection to the cluster is lost: {cause}")
        raise self._lost
