"""How a worker ended, in words for whoever waits for its task."""

from __future__ import annotations

import os
import signal


def describe_exit(status: int, pid: int, stderr_tail: list[str]) -> str:
    """`status` is a wait status; the last lines of stderr usually say why."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"Worker process {pid} was killed by {name} (signal {-code})."
    else:
        how = f"Worker process {pid} exited with code {code}."
    if stderr_tail:
        how += " Its last lines on stderr were:\n" + "\n".join(f"    {line}" for line in stderr_tail)
    return how
