"""The template: forks on request, reaps, survives what forking can run into, and never outlives its node."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from redray.worker import template as template_module
from redray.worker.template import Exited, Forked, ForkFailed, Report, Template, TemplateDied, WorkerStart
from tests.helpers import REPOSITORY, wait_until
from tests.unit.worker_process import is_running

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def echo(start: WorkerStart) -> int:
    """A worker that says its name, marks what it is told to start, and leaves with the code it is sent."""
    start.channel.send(start.worker.encode())
    while order := start.channel.recv(100).decode():
        if order.startswith("exit"):
            return int(order.split()[1])
        start.mark.start(int(order))
        start.channel.send(b"marked")
    return 0


class Reports:
    def __init__(self, template: Template) -> None:
        self.template = template
        self.all: list[Report] = []

    def wait(self, kind: type[Report], count: int = 1) -> list[Report]:
        deadline = time.monotonic() + 30
        while len(found := [report for report in self.all if isinstance(report, kind)]) < count:
            assert time.monotonic() < deadline, f"{count} {kind.__name__} expected, got {self.all}"
            assert kind is TemplateDied or TemplateDied() not in self.all, self.all
            select.select([self.template], [], [], 1)
            self.all += self.template.receive()
        return found


@contextmanager
def running(worker_main: template_module.WorkerMain = echo) -> Iterator[tuple[Template, Reports]]:
    template = template_module.start_template(worker_main)
    reports = Reports(template)
    try:
        yield template, reports
    finally:
        template.close()
        for report in reports.all:
            if isinstance(report, Forked):
                report.channel.close()
                os.close(report.stdout_fd)
                os.close(report.stderr_fd)


def ask(forked: Forked, order: str) -> None:
    forked.channel.setblocking(True)
    forked.channel.send(order.encode())


def answer(forked: Forked) -> str:
    forked.channel.setblocking(True)
    return forked.channel.recv(100).decode()


def forked_worker(template: Template, reports: Reports, name: str) -> Forked:
    before = len([report for report in reports.all if isinstance(report, Forked)])
    template.request_fork(name)
    forked = reports.wait(Forked, before + 1)[-1]
    assert isinstance(forked, Forked) and forked.worker == name
    return forked


def test_a_worker_is_forked_speaks_and_is_reaped() -> None:
    with running() as (template, reports):
        forked = forked_worker(template, reports, "worker-1")
        assert answer(forked) == "worker-1"
        assert not os.get_blocking(forked.stdout_fd)
        ask(forked, "exit 9")
        (exited,) = reports.wait(Exited)
        assert exited == Exited("worker-1", forked.pid, 9 << 8, 0, None)
        assert not os.path.exists(f"/proc/{forked.pid}")  # reaped: not even a zombie is left


def test_the_mark_outlives_a_worker_killed_at_any_time() -> None:
    with running() as (template, reports):
        forked = forked_worker(template, reports, "worker-1")
        assert answer(forked) == "worker-1"
        for serial in (1, 70_000):
            ask(forked, str(serial))
            assert answer(forked) == "marked"
            assert template.mark("worker-1").started() == serial
        template.signal("worker-1", signal.SIGKILL)
        (exited,) = reports.wait(Exited)
        assert isinstance(exited, Exited)
        assert (exited.started, exited.status) == (70_000, signal.SIGKILL)
        second = forked_worker(template, reports, "worker-2")
        assert answer(second) == "worker-2"
        assert template.mark("worker-2").started() == 0  # the slot is used again, and clean


def test_many_requests_at_once_are_all_answered() -> None:
    with running() as (template, reports):
        for number in range(150):
            template.request_fork(f"worker-{number}")
        forked = reports.wait(Forked, 150)
        assert {report.worker for report in forked} == {f"worker-{number}" for number in range(150)}  # type: ignore[union-attr]
        for report in forked:
            assert isinstance(report, Forked)
            ask(report, "exit 0")
        assert len(reports.wait(Exited, 150)) == 150


def test_the_end_of_a_worker_is_reported_after_its_birth() -> None:
    with running(lambda start: 0) as (template, reports):
        for number in range(20):
            template.request_fork(f"worker-{number}")
        reports.wait(Exited, 20)
        seen: set[str] = set()
        for report in reports.all:
            assert isinstance(report, (Forked, Exited))
            assert isinstance(report, Forked) or report.worker in seen
            seen.add(report.worker)


def test_signals_for_a_worker_that_is_gone_go_nowhere() -> None:
    with running() as (template, reports):
        forked = forked_worker(template, reports, "worker-1")
        ask(forked, "exit 0")
        reports.wait(Exited)
        template.signal("worker-1", signal.SIGKILL)
        template.signal("never-there", signal.SIGKILL)
        assert answer(forked_worker(template, reports, "worker-2")) == "worker-2"


def test_a_template_without_descriptors_says_so_and_recovers() -> None:
    with running() as (template, reports):
        forked_worker(template, reports, "worker-0")  # by now it has loaded what it needs
        limits = resource.prlimit(template.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(template.pid, resource.RLIMIT_NOFILE, (10, limits[1]))  # enough for two of the three pairs
        template.request_fork("worker-1")
        (failed,) = reports.wait(ForkFailed)
        assert isinstance(failed, ForkFailed)
        assert (failed.worker, "Too many open files" in failed.reason) == ("worker-1", True)
        resource.prlimit(template.pid, resource.RLIMIT_NOFILE, limits)
        assert answer(forked_worker(template, reports, "worker-2")) == "worker-2"


def test_a_node_without_descriptors_lets_the_worker_go() -> None:
    with running() as (template, reports):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]  # no gaps below the limit
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 2, before[1]))
            template.request_fork("worker-1")
            (failed,) = reports.wait(ForkFailed)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in fillers:
                os.close(fd)
        assert isinstance(failed, ForkFailed) and "too many open files" in failed.reason
        (exited,) = reports.wait(Exited)  # it read the end of a channel that nobody holds
        assert isinstance(exited, Exited) and exited.worker == "worker-1"


def test_workers_beyond_the_slots_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "MAX_WORKERS", 2)
    with running() as (template, reports):
        for name in ("worker-1", "worker-2", "worker-3"):
            template.request_fork(name)
        (refused,) = reports.wait(ForkFailed)
        assert refused == ForkFailed("worker-3", "2 workers run on this node already")
        first = reports.wait(Forked, 2)[0]
        assert isinstance(first, Forked)
        ask(first, "exit 0")
        reports.wait(Exited)
        assert answer(forked_worker(template, reports, "worker-4")) == "worker-4"


def test_a_killed_template_is_reported_and_takes_its_workers_along() -> None:
    with running() as (template, reports):
        forked = forked_worker(template, reports, "worker-1")
        os.kill(template.pid, signal.SIGKILL)
        reports.wait(TemplateDied)
        wait_until(lambda: not is_running(forked.pid), what="the end of the worker")
        template.request_fork("worker-2")  # no error: the report above is the answer


def test_a_worker_main_that_raises_prints_why() -> None:
    def fail(start: WorkerStart) -> int:
        raise RuntimeError("cannot begin")

    with running(fail) as (template, reports):
        forked = forked_worker(template, reports, "worker-1")
        (exited,) = reports.wait(Exited)
        assert isinstance(exited, Exited) and os.waitstatus_to_exitcode(exited.status) == 1
        assert b"RuntimeError: cannot begin" in os.read(forked.stderr_fd, 10_000)


NODE = """
import os, select, signal, sys
from redray.worker.template import start_template

def worker(start):
    import sys
    loaded = [name for name in ("numpy", "asyncio", "redis", "click", "rich") if name in sys.modules]
    start.channel.send(repr(loaded).encode())
    start.channel.recv(1)
    return 0

template = start_template(worker)
template.request_fork("worker-1")
select.select([template], [], [])
(forked,) = template.receive()
forked.channel.setblocking(True)
print(template.pid, forked.pid, forked.channel.recv(1000).decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_template_dies_with_its_node_and_loads_nothing_heavy() -> None:
    code = textwrap.dedent(NODE)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    template, worker, loaded = done.stdout.split(maxsplit=2)
    assert loaded.strip() == "[]"
    wait_until(lambda: not is_running(int(template)), what="the end of the template")
    wait_until(lambda: not is_running(int(worker)), what="the end of the worker")
