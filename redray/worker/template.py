"""The node's side of its template: the warm process that workers are forked from.
 The node forks the template right after its own start and from then on only asks it, over a SOCK_SEQPACKET socket that
never blocks the node: fork a worker, send a worker a signal. The template answers `Forked` (with the worker's file
descriptors), `ForkFailed` and, because it is the parent that reaps, `Exited`. Only the parent knows for sure that a
process id has not been given to somebody else, so signals go through it too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from redray.worker.marks import Mark, Marks

MAX_WORKERS = 4096  # alive at once on one node: the number of slots in shared memory
_MAX_ASKED = 64  # fork requests on the way; more would fill the socket while the template forks
_MESSAGE = 1 << 16
_FDS = 3  # of a Forked: the channel, and the read ends of stdout and stderr


class ForkRequest(msgspec.Struct, array_like=True, tag=1, gc=False):
    worker: str
    slot: int | None  # None: all are taken, so the answer can only be no
    env: dict[str, str]


class SignalRequest(msgspec.Struct, array_like=True, tag=2, gc=False):
    worker: str
    signal: int


class ForkReply(msgspec.Struct, array_like=True, tag=3, gc=False):
    worker: str
    pid: int
    error: str = ""


class ExitReport(msgspec.Struct, array_like=True, tag=4, gc=False):
    worker: str
    pid: int
    status: int


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(ForkRequest | SignalRequest).decode
_decode_report = msgspec.msgpack.Decoder(ForkReply | ExitReport).decode


@dataclass(frozen=True)
class Forked:
    """A worker runs. The three descriptors belong to the node from here on, and are non-blocking."""

    worker: str
    pid: int
    channel: socket.socket
    stdout_fd: int
    stderr_fd: int


@dataclass(frozen=True)
class ForkFailed:
    worker: str
    reason: str


@dataclass(frozen=True)
class Exited:
    """A worker is gone and reaped. Read its channel and pipes to their ends first: what it sent before it died still
    counts.

    `status` is a wait status (`os.waitstatus_to_exitcode`), `started` the serial of the run it began last (0: none),
    `cancelled` the attempt it was told to interrupt last.
    """

    worker: str
    pid: int
    status: int
    started: int
    cancelled: tuple[str, int] | None


@dataclass(frozen=True)
class TemplateDied:
    """The template is gone and, by the kernel's parent-death signal, every worker with it: the node cannot go on.
    Reported once; `fileno()` stays readable."""


Report = Forked | ForkFailed | Exited | TemplateDied


@dataclass(frozen=True)
class WorkerStart:
    """What a new worker process is given."""

    worker: str
    channel: socket.socket
    mark: Mark


WorkerMain = Callable[[WorkerStart], int]


class Template:
    """Made by `start_template`. Every method returns at once; `receive` when `fileno()` is readable."""

    def __init__(self, control: socket.socket, pid: int, marks: Marks) -> None:
        control.setblocking(False)
        self.pid = pid
        self._control = control
        self._marks = marks
        self._slots: dict[str, int] = {}
        self._forks: deque[ForkRequest] = deque()
        self._signals: deque[SignalRequest] = deque()
        self._asked = 0
        self._is_dead = False

    def fileno(self) -> int:
        return self._control.fileno()

    def request_fork(self, worker: str, env: dict[str, str] | None = None) -> None:
        """Answered, in time, by a `Forked` or a `ForkFailed` for `worker`. `env` is set in the worker's environment."""
        slot = self._marks.take()
        if slot is not None:
            self._slots[worker] = slot
        self._forks.append(ForkRequest(worker, slot, env or {}))
        self._flush()

    def mark(self, worker: str) -> Mark:
        """The slot of a worker that was asked for and has not been reported as exited."""
        return self._marks.mark(self._slots[worker])

    def signal(self, worker: str, number: int) -> None:
        """Send a signal to `worker` if it still runs."""
        self._signals.append(SignalRequest(worker, number))
        self._flush()

    def interrupt(self, worker: str, task: str, attempt: int) -> None:
        """Cancel this attempt in `worker`: KeyboardInterrupt if it runs, not started if it is the next to start. A
        worker that does something else, or is gone, is not disturbed."""
        if worker in self._slots:
            self.mark(worker).cancel(task, attempt)
            self.signal(worker, signal.SIGINT)

    def revoke(self, worker: str, serial: int) -> None:
        """`worker`, if it still runs, starts nothing any more that it was sent up to this serial."""
        if worker in self._slots:
            self.mark(worker).revoke(serial)

    def receive(self) -> list[Report]:
        """What happened since the last call."""
        reports: list[Report] = []
        while not self._is_dead:
            try:
                data, fds, _, _ = socket.recv_fds(self._control, _MESSAGE, _FDS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            except OSError:
                data, fds = b"", []
            if not data:
                self._is_dead = True
                reports.append(TemplateDied())
                break
            report = self._report(_decode_report(data), fds)
            if report is not None:
                reports.append(report)
        self._flush()
        return reports

    def close(self) -> None:
        """End the template and, by the kernel's parent-death signal, its workers. Returns when it is reaped."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody else in the node reaped it
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _flush(self) -> None:
        try:
            while self._signals:
                self._control.send(encode(self._signals[0]))
                self._signals.popleft()
            while self._forks and self._asked < _MAX_ASKED:
                self._control.send(encode(self._forks[0]))
                self._forks.popleft()
                self._asked += 1
        except BlockingIOError:
            return  # the template is behind; its next report calls this again
        except OSError:
            return  # it is gone: `receive` says so

    def _report(self, message: ForkReply | ExitReport, fds: list[int]) -> Report | None:
        if isinstance(message, ExitReport):
            return self._exited(message)
        self._asked -= 1
        if message.error:
            slot = self._slots.pop(message.worker, None)
            if slot is not None:
                self._marks.give(slot)
            return ForkFailed(message.worker, message.error)
        if len(fds) != _FDS:  # the kernel drops what this process has no numbers for; the worker reads EOF and leaves
            for fd in fds:
                os.close(fd)
            return ForkFailed(message.worker, "the node has too many open files (see ulimit -n)")
        for fd in fds:
            os.set_blocking(fd, False)
        return Forked(message.worker, message.pid, socket.socket(fileno=fds[0]), fds[1], fds[2])

    def _exited(self, message: ExitReport) -> Exited | None:
        slot = self._slots.pop(message.worker, None)
        if slot is None:
            return None
        mark = self._marks.mark(slot)
        report = Exited(message.worker, message.pid, message.status, mark.started(), mark.cancelled())
        self._marks.give(slot)
        return report


def start_template(worker_main: WorkerMain) -> Template:
    """Fork the template. Call it from a process with one thread, before it opens connections.

    Args:
        worker_main: runs in each worker and returns its exit code. Whatever it imports must be imported by now: what
        the template
            has loaded, no worker has to load again.
    """
    marks = Marks(MAX_WORKERS)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # else each worker would print this buffer again
    pid = os.fork()
    if pid == 0:
        _be_template(theirs, parent, marks, worker_main)
    theirs.close()
    return Template(ours, pid, marks)


def _be_template(control: socket.socket, parent: int, marks: Marks, worker_main: WorkerMain) -> NoReturn:
    code = 1
    try:
        from redray.worker.template_process import TemplateProcess

        TemplateProcess(control, parent, marks, worker_main).serve()
        code = 0
    except BaseException:  # nothing may climb out of the fork into the node's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
