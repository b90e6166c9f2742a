"""What every part of a node's I/O shell stands on: its state, its connections, its poll set."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redray.config import settings
from redray.gcs.address import Address
from redray.gcs.inbox import InboxLink
from redray.gcs.keys import Keys
from redray.ids import NodeID, WorkerID
from redray.resources import to_units
from redray.store.janitor import SharedDirectory
from redray.store.local_store import LocalStore
from redray.worker import events, machine
from redray.worker.environment_directory import EnvironmentDirectory
from redray.worker.history import History
from redray.worker.job_book import JobBook
from redray.worker.launch import NodeConfig
from redray.worker.memory import MemoryWatch
from redray.worker.node_objects import NodeObjects
from redray.worker.output import LineReader
from redray.worker.process_link import ProcessLink
from redray.worker.redis_link import RedisLink
from redray.worker.state import NodeState
from redray.worker.template import Template

if TYPE_CHECKING:
    from redray.worker.metrics_server import MetricsServer


class NodeShell:
    """One thread, one poll loop. The parts above add what is due (`node_chores`), what goes out
    (`node_actions`), and what comes in (`node_processes`, `node_workers`, `node_mail`)."""

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
        self.environments = EnvironmentDirectory(config.session_directory, config.temp_dir)
        self._resources = machine.resources(
            config.num_cpus,
            config.num_gpus,
            config.resources,
            config.node_ip_address,
            config.is_head,
            self._store.capacity,
        )
        most = config.max_workers or settings().max_workers or max(64, int(16 * self._resources["CPU"]))
        self.labels = machine.labels(config.labels, self.id)
        self._state = NodeState(self._resources, lambda: WorkerID.from_random().hex(), most, self.labels)
        self._state.gpu_names = dict(enumerate(machine.visible_gpus() or ()))
        self._link: RedisLink
        self._jobs: JobBook
        self._objects: NodeObjects
        self._inbox: InboxLink
        self._listener: socket.socket
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
        self._judged: set[str] = set()  # queues of which it was found out lately whether any node can serve them
        self._judge_again = 0.0
        self._memory = MemoryWatch(settings())
        self._revoking: deque[tuple[float, str, int]] = deque()
        self._metrics: MetricsServer | None = None
        self._history = History(self.id, config.node_ip_address)
        self._told_free: dict[str, int] = {}
        self._next_free = 0.0

    # ---- the poll set ------------------------------------------------------------------------------------------------
    def _watch(self, fd: int, handler: Callable[[], object]) -> None:
        with contextlib.suppress(FileExistsError):  # a number that was closed has left the poll set, and may come again
            self._poll.register(fd, select.EPOLLIN)
        self._by_fd[fd] = handler

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # a closed descriptor has left the poll set by itself
                self._poll.unregister(fd)

    # ---- what all parts need -----------------------------------------------------------------------------------------
    def _handle(self, event: events.Event) -> Any:
        return self._state.handle(event, int(time.monotonic() * 1000))

    def _has_owner(self) -> bool:
        """An owner is the node's parent until it dies; its number may be another's by now."""
        return self._config.owner_pid in (0, os.getppid())

    def _stop(self, why: str) -> None:
        """The loop ends after this turn; the log says why."""
        if not self._stopping:
            sys.stderr.write(f"The node {self.id} ends: {why}.\n")
            self._stopping = True

    def _free_text(self) -> str:
        self._is_told()
        return self._state.ledger.free_text()

    def _is_told(self) -> bool:
        """Whether Redis has what is free here as it is. Asked in every turn, so no text is made for it."""
        free = self._state.ledger.free
        free["object_store_memory"] = to_units(self._store.capacity - self._store.used)
        return free == self._told_free

    def _flush_processes(self) -> None:
        for link in list(self._dirty):
            if link.flush():
                self._dirty.discard(link)
