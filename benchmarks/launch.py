"""Runs one child process for one system in one round, whatever becomes of it, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks import processes
from benchmarks.goals import Row
from benchmarks.measure import Plan
from benchmarks.report import Results

ROOT = Path(__file__).resolve().parent.parent
# An address in the environment would measure somebody's cluster instead of the embedded one.
NOT_INHERITED = ("RAY_ADDRESS", "REDRAY_ADDRESS")
START_TIMEOUT = 60.0
EXIT_TIMEOUT = 30.0
LEFTOVER_TIMEOUT = 15.0


class ChildFailed(Exception):
    """The child hung or ended before it reported what it was to report."""


@dataclass
class Child:
    """A running child: its JSON lines by `line(timeout)`, what it printed by `said()`."""

    process: subprocess.Popen[bytes]
    pipe: int
    output: IO[bytes]
    buffered: bytearray = field(default_factory=bytearray)

    def line(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffered:
            # Its end is looked for as well as read: a process it left behind may hold the pipe open.
            ended = self.process.poll() is not None
            if select.select([self.pipe], [], [], 0 if ended else 0.2)[0]:
                data = os.read(self.pipe, 65536)
                self.buffered += data
                ended = ended or not data
                if data:
                    continue
            if ended:
                raise ChildFailed(self.how_it_ended())
            if time.monotonic() > deadline:
                raise ChildFailed(f"no answer within {timeout:g} s{self.said()}")
        line, _, rest = bytes(self.buffered).partition(b"\n")
        self.buffered = bytearray(rest)
        message: dict[str, Any] = json.loads(line)
        return message

    def how_it_ended(self) -> str:
        try:
            code = self.process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"the process closed its report and went on{self.said()}"
        return f"the process ended with {'signal' if code < 0 else 'exit code'} {abs(code)}{self.said()}"

    def said(self) -> str:
        # The child writes at the offset it shares with us, so reading must not move it.
        file = self.output.fileno()
        tail = os.pread(file, 65536, max(0, os.fstat(file).st_size - 65536))
        lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return f"; it last said: {' | '.join(lines[-3:])[-600:]}" if lines else ""


@contextmanager
def started(command: Sequence[str], report: int, pipe: int) -> Iterator[Child]:
    """A child in a process group of its own. Whatever it started is gone afterwards."""
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment |= {processes.MARK: mark, "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # Ray leaves a folder behind for each start; the name is short because sockets go into it.
        environment["RAY_TMPDIR"] = folder
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            pass_fds=[report], start_new_session=True,
        )  # fmt: skip
        os.close(report)
        patience = 0.0
        running = Child(process, pipe, output)
        try:
            yield running
            if process.wait(EXIT_TIMEOUT):
                print(f"  after its last row, {running.how_it_ended()}", flush=True)
            patience = LEFTOVER_TIMEOUT
        except subprocess.TimeoutExpired:
            print(f"  it reported everything but did not exit within {EXIT_TIMEOUT:g} s: killed", flush=True)
        finally:
            processes.kill_group(process.pid)
            process.wait()
            os.close(pipe)
            # The next system must have the machine for itself, so wait for this one's processes to go.
            left = processes.end(mark, patience)
            if left and patience:
                print(f"  {left} of its processes were still there {patience:g} s after its end: killed", flush=True)


def child(python: str, module: str, *arguments: str) -> AbstractContextManager[Child]:
    pipe, report = os.pipe()
    # -c instead of -m: runpy's own imports would count as the system's start-up.
    code = f"from benchmarks.{module} import main; main()"
    return started([python, "-c", code, *arguments, "--report", str(report)], report, pipe)


def time_rows(python: str, system: str, rows: Sequence[Row], plan: Plan, results: Results) -> dict[str, str]:
    """Time `rows` on `system` in one process, or in more when some end it; returns the versions found."""
    versions: dict[str, str] = {}
    left = list(rows)
    while left:
        left = _time_some(python, system, left, plan, results, versions)
    return versions


def _time_some(
    python: str, system: str, rows: list[Row], plan: Plan, results: Results, versions: dict[str, str]
) -> list[Row]:
    """One process; the rows it did not come to. Each call gets rid of at least one row, so the caller's loop ends."""
    names = ",".join(row.name for row in rows)
    left, at_work = list(rows), False
    try:
        with child(python, "child", system, "--rows", names, "--plan", json.dumps(asdict(plan))) as running:
            while True:
                message = running.line(left[0].timeout if at_work else START_TIMEOUT)
                if "end" in message:
                    return []
                versions |= message.get("versions", {})
                at_work = "start" in message
                if "row" in message:
                    row = left.pop(0)
                    _keep(message, system, row.name, results)
    except ChildFailed as failure:
        # Without a row at work the system does not even come up (or down): no use in trying again for the others.
        hit = left[:1] if at_work else left
        for row in hit:
            results.fail(system, row.name, str(failure))
        return left[len(hit) :]


def _keep(message: dict[str, Any], system: str, row: str, results: Results) -> None:
    if "error" in message:
        results.fail(system, row, message["error"])
    else:
        results.add(system, row, message["value"])


def time_fresh(python: str, system: str, names: Sequence[str], plan: Plan, results: Results) -> None:
    """Start the system anew until the time is used; the first time, measure the memory it then needs too."""
    spent = 0.0
    wanted = list(names)
    while wanted and spent < plan.seconds:
        spent += _start_once(python, system, wanted, plan, results)
        wanted = [name for name in wanted if name != "idle_memory"]


def _start_once(python: str, system: str, names: Sequence[str], plan: Plan, results: Results) -> float:
    """Seconds to the first result; infinite when there was none."""
    missing = list(names)
    start = time.perf_counter()
    try:
        with child(python, "fresh", system, str(plan.cpus), *(["--idle"] if "idle_memory" in names else [])) as running:
            running.line(START_TIMEOUT)
            elapsed = time.perf_counter() - start
            for name in names:
                value = elapsed if name == "first_result" else running.line(START_TIMEOUT)[name]
                results.add(system, name, value)
                missing.remove(name)
            return elapsed
    except ChildFailed as failure:
        for name in missing:
            results.fail(system, name, str(failure))
        return float("inf")
