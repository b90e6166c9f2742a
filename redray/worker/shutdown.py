"""The orderly end of a worker: hooks, buffers, frames. A killed worker comes nowhere near here."""

from __future__ import annotations

import atexit
import signal
import sys
from typing import TYPE_CHECKING

from redray.worker import output
from redray.worker.host import Host

if TYPE_CHECKING:
    from redray.worker.actor_runner import Actor

GRACE_S = 30


def graceful(host: Host, actor: Actor | None, code: int = 0) -> int:
    """Send what was posted, let the actor's and the interpreter's exit hooks run, for half a minute at most; return the
    exit code."""
    host.flush()
    if hasattr(signal, "alarm"):
        signal.alarm(GRACE_S)  # its default action, kept by the template, ends a process whose hooks never return
    if actor is not None:
        run_hook(actor.instance)
        actor.instance = None  # its __del__ has its chance: the process ends without tidying up
    atexit._run_exitfuncs()
    output.flush()
    host.flush()
    return code


def run_hook(instance: object) -> None:
    """`__ray_shutdown__` of an actor that ends in an orderly way."""
    hook = getattr(instance, "__ray_shutdown__", None)
    if hook is None:
        return
    try:
        hook()
    except Exception:  # the actor ends anyway; its owner reads why the hook failed in the log
        sys.excepthook(*sys.exc_info())
