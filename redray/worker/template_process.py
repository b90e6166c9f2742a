"""The template process itself: waits for requests, forks, reaps. One thread, no asyncio, no numpy.
 What is loaded here is shared, page by page, with every worker forked later; what runs here is copied into them. So it
stays small, and a child first of all becomes a process of its own: own signals, own streams, own random state, no
descriptor of the template's.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import random
import select
import signal
import socket
import sys
from importlib import import_module
from types import FrameType

from redray.worker import output
from redray.worker.marks import Marks
from redray.worker.template import (
    ExitReport,
    ForkReply,
    ForkRequest,
    SignalRequest,
    WorkerMain,
    WorkerStart,
    decode_request,
    encode,
)

_PR_SET_PDEATHSIG = 1
_MESSAGE = 1 << 20
_PRELOADED = (
    "cloudpickle",
    "concurrent.futures.thread",
    "redray.worker.actor_runner",
    "redray.worker.executor",
    "traceback",
)
_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def _load_prctl() -> ctypes._NamedFuncPointer | None:
    """Looked up before forking: loading a library in a forked child could meet a lock that nobody holds any more."""
    if not sys.platform.startswith("linux"):
        return None  # elsewhere a worker notices the end of its channel instead
    return ctypes.CDLL(None, use_errno=True).prctl


_prctl = _load_prctl()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even by SIGKILL."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request above took effect
        os._exit(1)


def _load_what_workers_need() -> None:
    """Once here instead of once in each worker: the first function it is sent needs the first, the first failure the
    second."""
    for name in _PRELOADED:
        import_module(name)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD must have a Python handler, or its wake-up byte is not written."""


class TemplateProcess:
    def __init__(self, control: socket.socket, parent: int, marks: Marks, worker_main: WorkerMain) -> None:
        die_with_parent(parent)
        os.setsid()  # Ctrl-C in the terminal that started the node must reach drivers only
        self._control = control
        self._marks = marks
        self._worker_main = worker_main
        self._workers: dict[int, str] = {}  # pid -> worker
        self._pids: dict[str, int] = {}
        self._close_all_but(control.fileno())
        self._wake_read, self._wake_write = os.pipe()
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._set_signals()

    def serve(self) -> None:
        """Until the node closes the control socket. The workers end with this process."""
        _load_what_workers_need()
        gc.collect()
        gc.freeze()  # the collector of a worker must not touch, and so copy, the pages shared with it
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._control.fileno() in ready:
                data = self._control.recv(_MESSAGE)
                if not data:
                    return
                self._answer(decode_request(data))

    def _answer(self, request: ForkRequest | SignalRequest) -> None:
        if isinstance(request, ForkRequest):
            self._fork(request)
            return
        pid = self._pids.get(request.worker)
        if pid is not None:  # not reaped yet, so the number is still its own
            os.kill(pid, request.signal)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                del self._pids[worker]
                self._send(ExitReport(worker, pid, status))

    def _fork(self, request: ForkRequest) -> None:
        if request.slot is None:
            self._send(ForkReply(request.worker, 0, f"{len(self._workers)} workers run on this node already"))
            return
        fds: list[int] = []
        try:
            ours, theirs = socket.socketpair()
            fds += [ours.detach(), theirs.detach()]
            fds += os.pipe()
            fds += os.pipe()
            parent = os.getpid()
            pid = os.fork()
        except OSError as error:  # no process, memory or descriptor left: the node has to do without the worker
            for fd in fds:
                os.close(fd)
            self._send(ForkReply(request.worker, 0, f"{error.strerror} ({error.__class__.__name__})"))
            return
        node_end, channel, out_read, out_write, err_read, err_write = fds
        if pid == 0:
            for fd in (node_end, out_read, err_read):
                os.close(fd)
            self._be_worker(request, request.slot, parent, channel, out_write, err_write)
        self._workers[pid] = request.worker
        self._pids[request.worker] = pid
        self._send(ForkReply(request.worker, pid), [node_end, out_read, err_read])
        for fd in fds:
            os.close(fd)

    def _be_worker(self, request: ForkRequest, slot: int, parent: int, channel: int, out: int, err: int) -> None:
        code = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in _RESET:
                signal.signal(number, signal.SIG_DFL)
            os.dup2(self._null, 0)
            output.redirect(out, err)
            for fd in (self._null, self._wake_read, self._wake_write, out, err):
                os.close(fd)
            self._control.close()
            random.seed()  # the standard library does so too, at every fork, but nobody promised it
            atexit._clear()  # what the node registered is the node's to run
            os.environ.update(request.env)
            mark = self._marks.mark(slot)
            code = self._worker_main(WorkerStart(request.worker, socket.socket(fileno=channel), mark))
        except BaseException:  # nothing may climb out of the fork into the template's loop
            sys.excepthook(*sys.exc_info())
        finally:
            output.flush()
            os._exit(code)

    def _send(self, report: ForkReply | ExitReport, fds: list[int] | None = None) -> None:
        """Blocks while the node is behind: it never waits for us, so this ends."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # no node: the next read ends the loop
            socket.send_fds(self._control, [encode(report)], fds or [])

    def _set_signals(self) -> None:
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)

    @staticmethod
    def _close_all_but(keep: int) -> None:
        """Drop what the node had open. A copy kept here would keep the node's sockets and files open after it closed
        them."""
        for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else map(str, range(3, 256)):
            if int(name) > 2 and int(name) != keep:
                with contextlib.suppress(OSError):
                    os.close(int(name))
