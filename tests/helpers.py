"""What every kind of test needs: waiting for a condition, signals between processes, drivers in processes of their own.

Nothing here imports redray: tasks pickle these classes by reference, so a worker imports this file on their behalf.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

# Far beyond anything a healthy run needs; a test that reaches it has hung. Slow runners (or a comparison with Ray,
# whose processes start in seconds) stretch every limit at once.
STRETCH = float(os.environ.get("REDRAY_TEST_STRETCH", "1"))
PATIENCE = 30.0 * STRETCH

REPOSITORY = Path(__file__).resolve().parents[1]

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def wait_until(predicate: Callable[[], Found], timeout: float = PATIENCE, what: str = "the condition") -> Found:
    """Return the first truthy answer of `predicate`; fail, naming `what`, when none comes within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {answer!r}")
        time.sleep(0.01)


def without_colour(text: str) -> str:
    """The text as a person reads it: terminal colour codes removed."""
    return _ANSI_COLOUR.sub("", text)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs; a zombie nobody has reaped yet counts as gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def schedulable(resources: dict[str, float]) -> dict[str, float]:
    """What tasks hold and give back; memory follows the garbage collector, so it is no test's own business."""
    return {
        name: amount
        for name, amount in resources.items()
        if name not in ("memory", "object_store_memory") and not name.startswith("node:")
    }


class Signal:
    """A flag in the file system: set by one process, awaited by others, wherever they run on this machine."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def set(self) -> None:
        Path(self.path).touch()

    def is_set(self) -> bool:
        return os.path.exists(self.path)

    def wait(self, timeout: float = 2 * PATIENCE) -> None:
        wait_until(self.is_set, timeout, f"the signal {os.path.basename(self.path)}")


class Journal:
    """Lines that several processes append to one file; each line is written whole, so nothing interleaves."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def add(self, line: object) -> int:
        """Append a line; return how many lines there are now."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)
        return len(self.lines())

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []


class Driver:
    """A Python program in a process of its own: a second driver, or one that a test kills."""

    def __init__(self, folder: Path, source: str, arguments: Sequence[str] = (), name: str = "driver.py") -> None:
        self.script = folder / name
        self.script.write_text(textwrap.dedent(source))
        self.log = folder / f"{name}.log"
        environment = dict(os.environ)
        # The program lives in a temporary folder, so the checkout has to be named for `import redray`; behind
        # whatever is on the path already, because a comparison with Ray puts its stand-in there.
        paths = [*filter(None, [environment.get("PYTHONPATH")]), str(REPOSITORY)]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["PYTHONUNBUFFERED"] = "1"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=REPOSITORY,  # its workers look there, too
            )

    @property
    def output(self) -> str:
        """Everything it has printed so far on stdout and stderr, without colours."""
        return without_colour(self.log.read_text(errors="replace"))

    def wait_for_output(self, fragment: str, timeout: float = PATIENCE) -> str:
        """Wait until `fragment` is printed; fail at once with the output when the program ends without it."""

        def seen() -> bool:
            ended = self.process.poll() is not None
            if fragment in self.output:
                return True
            assert not ended, f"ended with {self.process.returncode} and never printed {fragment!r}:\n{self.output}"
            return False

        wait_until(seen, timeout, f"the driver to print {fragment!r}")
        return self.output

    def finish(self, timeout: float = PATIENCE) -> str:
        """Wait for a successful end; return everything it printed."""
        code = self.process.wait(timeout)
        assert code == 0, f"the driver ended with {code}:\n{self.output}"
        return self.output

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)


def run_driver(folder: Path, source: str, arguments: Sequence[str] = (), name: str = "driver.py") -> str:
    """Run a program to its successful end; return everything it printed."""
    driver = Driver(folder, source, arguments, name)
    try:
        return driver.finish()
    finally:
        driver.kill()
