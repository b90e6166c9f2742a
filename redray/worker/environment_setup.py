"""Setting up a runtime environment, in the worker that is to run in it: the node's loop has no time for that.

First everything that can fail is made ready, then it takes effect. Workers that need the same files wait for each other
at their locks: see `environment_cache`.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from redray.messages import JobInfo

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def wanted(job: JobInfo) -> Mapping[str, Any]:
    """The environment of a worker, as its driver packed it."""
    if not job.environment:
        found: Mapping[str, Any] = job.config.get("runtime_env") or {}
        return found
    import json

    parsed: Mapping[str, Any] = json.loads(job.environment)
    return parsed


def enter(env: Mapping[str, Any]) -> str:
    """Make this process one that runs in `env`. Returns why it could not, "" if it could."""
    try:
        _set_variables(env.get("env_vars", {}))
        _call_hook(env.get("worker_process_setup_hook"))
    except Exception as error:
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    return "Failed to set up the runtime environment.\n" + "".join(traceback.format_exception_only(error)).strip()


def _set_variables(variables: Mapping[str, str]) -> None:
    before = dict(os.environ)
    for name, value in variables.items():
        os.environ[name] = _VARIABLE.sub(lambda found: before.get(found[1], ""), value)
    if "PYTHONPATH" in variables:  # this interpreter has started, and would look at it no more
        paths = filter(None, os.environ["PYTHONPATH"].split(os.pathsep))
        sys.path[:] = [*paths, *sys.path]
    if "TZ" in variables:
        import time

        time.tzset()


def _call_hook(hook: str | Mapping[str, str] | None) -> None:
    """Raises RuntimeError with the hook's traceback."""
    if hook is None:
        return
    name = hook if isinstance(hook, str) else hook["name"]
    try:
        _loaded(hook)()
    except BaseException as error:  # user code, which may raise anything
        raise RuntimeError(
            f"Failed to execute the setup hook method, {name}:\n{''.join(traceback.format_exception(error))}"
        ) from None


def _loaded(hook: str | Mapping[str, str]) -> Callable[[], Any]:
    if isinstance(hook, str):
        import importlib

        module, _, function = hook.rpartition(".")
        found: Callable[[], Any] = getattr(importlib.import_module(module), function)
        return found
    import base64

    from redray import cloudpickle

    loaded: Callable[[], Any] = cloudpickle.loads(base64.b64decode(hook["pickled"]))
    return loaded
