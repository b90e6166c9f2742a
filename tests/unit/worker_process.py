"""Real workers, forked from a real template, with the test in the place of the node."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from redray import messages
from redray.messages import ActorExit, Done, Exit, Run
from redray.worker import executor
from redray.worker.host import Outgoing, Work
from redray.worker.output import LineReader
from redray.worker.template import Exited, Forked, Report, Template, WorkerStart, start_template
from tests.unit.fake_host import FakeHost

PATIENCE = 30
Found = TypeVar("Found")


class ChannelHost(FakeHost):
    """Speaks frames over the worker's channel."""

    def __init__(self, channel: socket.socket, functions: dict[str, Any]) -> None:
        super().__init__(functions)
        self._channel = channel
        self._buffer = bytearray()
        self._works: deque[Work] = deque()

    def next_run(self, wait: bool) -> Work | None:
        if wait:
            self.flush()
        while wait and not self._works:
            data = self._channel.recv(1 << 20)
            if not data:
                return Exit("the node is gone")
            self._buffer += data
            self._works += map(messages.decode_to_process, messages.split(self._buffer))
        return self._works.popleft() if self._works else None

    def flush(self) -> None:
        with self._changed:
            posted: list[Outgoing] = self._posted[:]
            self._posted.clear()
            if posted:
                self._channel.sendall(b"".join(map(messages.frame, posted)))


class Worker:
    """One worker process, seen from its node."""

    def __init__(self, forked: Forked) -> None:
        self.name = forked.worker
        self.pid = forked.pid
        self.channel = forked.channel
        self.out, self.err = LineReader(forked.stdout_fd), LineReader(forked.stderr_fd)
        self.said: list[Any] = []
        self.printed: list[str] = []
        self.complained: list[str] = []  # on stderr
        self.at_end = False
        self._buffer = bytearray()

    def give(self, *works: Work) -> None:
        self.channel.setblocking(True)
        self.channel.sendall(b"".join(map(messages.frame, works)))
        self.channel.setblocking(False)

    def pump(self) -> None:
        self.printed += self.out.read()
        self.complained += self.err.read()
        try:
            data = self.channel.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.at_end = not data
        self._buffer += data
        self.said += map(messages.decode_to_node, messages.split(self._buffer))

    def dones(self) -> list[Done]:
        return [message for message in self.said if isinstance(message, Done)]

    def farewells(self) -> list[str]:
        return [message.reason for message in self.said if isinstance(message, ActorExit)]

    def close(self) -> None:
        self.channel.close()
        self.out.close()
        self.err.close()


class Node:
    """The template's other side: forks workers, waits for what they say and how they end."""

    def __init__(self, functions: dict[str, Any]) -> None:
        def worker_main(start: WorkerStart) -> int:
            return executor.main(ChannelHost(start.channel, functions), start.mark)

        self.template: Template = start_template(worker_main)
        self.reports: list[Report] = []
        self.workers: list[Worker] = []

    def worker(self, env: dict[str, str] | None = None) -> Worker:
        name = f"{len(self.workers):016x}"
        self.template.request_fork(name, env)
        worker = Worker(self.wait_report(Forked, name))
        self.workers.append(worker)
        return worker

    def wait_report(self, kind: type[Found], name: str) -> Found:
        def find() -> Found | None:
            return next((r for r in self.reports if isinstance(r, kind) and getattr(r, "worker", "") == name), None)

        return self.wait(find, f"{kind.__name__} of {name}")

    def exited(self, worker: Worker) -> Exited:
        report = self.wait_report(Exited, worker.name)
        self.wait(lambda: worker.at_end, "the end of its channel")
        worker.printed += worker.out.drain()
        worker.complained += worker.err.drain()
        return report

    def done(self, worker: Worker, number: int = 1) -> Done:
        """The worker's `number`-th `Done`."""
        return self.wait(lambda: worker.dones()[number - 1 : number], f"{number} results")[0]

    def wait(self, answer: Callable[[], Found | None], what: str) -> Found:
        deadline = time.monotonic() + PATIENCE
        while not (found := answer()):
            assert time.monotonic() < deadline, f"no {what}: {[worker.said for worker in self.workers]}"
            readers: list[Any] = [self.template, *(w.channel for w in self.workers if not w.at_end)]
            readers += [w.out for w in self.workers if not w.out.at_end]
            select.select(readers, [], [], 1)
            self.reports += self.template.receive()
            for worker in self.workers:
                if not worker.at_end:
                    worker.pump()
        return found

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        for report in self.reports:
            if isinstance(report, Forked) and report.channel.fileno() >= 0:
                report.channel.close()
        self.template.close()


@contextmanager
def node(functions: dict[str, Any]) -> Iterator[Node]:
    before = set(os.listdir("/proc/self/fd"))
    running = Node(functions)
    try:
        yield running
    finally:
        running.close()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0, "file descriptors were left over"


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


__all__ = ["Node", "Run", "Worker", "is_running", "node"]
