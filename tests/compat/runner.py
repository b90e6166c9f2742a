"""Runs the programs of this folder, which were written for Ray, under redray and under Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PROGRAMS = sorted(path for path in (HERE / "programs").glob("*.py") if not path.stem.endswith("_library"))
LIMIT = 180.0 * float(os.environ.get("REDRAY_TEST_STRETCH", "1"))  # seconds; on an idle machine Ray needs about 10


class Ran(NamedTuple):
    """How a program ended: `code` is its exit code, None when it did not end in time."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float


def expected_of(program: Path) -> Path:
    """Where the program's output is kept, as Ray had it."""
    return HERE / "expected" / f"{program.stem}.txt"


def under_redray(program: Path) -> Ran:
    return _run([sys.executable, "-m", "redray.cli", "run", str(program)])


def under_ray(program: Path, python: str) -> Ran:
    return _run([python, str(program)])


def ray_python() -> str | None:
    """The interpreter that has Ray: $RAY_PYTHON, or this one if Ray is installed beside redray."""
    named = os.environ.get("RAY_PYTHON")
    if named:
        return named
    return sys.executable if find_spec("ray") is not None else None


def _run(command: list[str]) -> Ran:
    left_out = ("REDRAY_ADDRESS", "RAY_ADDRESS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of releases to come, which older ones warn of
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired as error:
            said = [(text or b"").decode(errors="replace") for text in (error.stdout, error.stderr)]
            return Ran(None, *said, time.monotonic() - started)
    return Ran(done.returncode, without_chatter(done.stdout), done.stderr, time.monotonic() - started)


def without_chatter(stdout: str) -> str:
    """What the program itself prints: Ray reports crashes and retries on the same stream, some with a traceback."""
    kept, in_traceback = [], False
    for line in re.sub(r"\x1b\[[0-9;]*m", "", stdout).splitlines(keepends=True):
        if line.startswith("(raylet) "):
            in_traceback = line.endswith("User exception:\n")
        elif in_traceback:
            in_traceback = line.startswith((" ", "ray::"))  # its last line names the exception
        else:
            kept.append(line)
    return "".join(kept)
