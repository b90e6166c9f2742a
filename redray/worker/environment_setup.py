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
from functools import partial
from pathlib import Path
from typing import Any

from redray.config import settings
from redray.messages import JobInfo
from redray.worker import environment_install
from redray.worker.environment_cache import EnvironmentCache, SetupFailed
from redray.worker.environment_files import Fetch, import_paths, unpack
from redray.worker.environment_install import Installation

SETUP_S = 600.0
_VARIABLE = re.compile(r"\$\{\w+\}")


def wanted(job: JobInfo) -> Mapping[str, Any]:
    """The environment of a worker, as its driver packed it."""
    if not job.environment:
        found: Mapping[str, Any] = job.config.get("runtime_env") or {}
        return found
    import json

    parsed: Mapping[str, Any] = json.loads(job.environment)
    return parsed


def enter(env: Mapping[str, Any], job: JobInfo, fetch: Fetch) -> str:
    """Make this process one that runs in `env`. Returns why it could not, "" if it could."""
    try:
        variables = _expanded(env.get("env_vars", {}))
        files = _Files(env, variables, job.cache, fetch)
        _set_variables(variables)
        files.take_effect(job.config.get("own_paths", ()))
        _call_hook(env.get("worker_process_setup_hook"))
    except Exception as error:
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    text = str(error) if isinstance(error, SetupFailed) else "".join(traceback.format_exception_only(error)).strip()
    return f"Failed to set up runtime environment.\n{text}"


class _Files:
    """Directories that an environment brings: all of them are there once this is made."""

    def __init__(self, env: Mapping[str, Any], variables: Mapping[str, str], cache: str, fetch: Fetch) -> None:
        """Raises SetupFailed."""
        limit = settings().environment_cache_bytes
        timeout = env.get("config", {}).get("setup_timeout_seconds", SETUP_S)
        timeout = timeout if timeout > 0 else float("inf")
        self._cache = EnvironmentCache(Path(cache), limit, timeout)
        self._fetch = fetch
        self._limit = limit
        self.working_dir = self._unpacked(env["working_dir"]) if "working_dir" in env else None
        self.paths = [path for uri in env.get("py_modules", ()) for path in import_paths(self._unpacked(uri))]
        self.installed: Path | None = None
        if "pip" in env or "uv" in env:
            self.installed = self._install(Installation(env, {**os.environ, **variables}, self.working_dir), timeout)

    def _unpacked(self, uri: str) -> Path:
        from redray.packages import id_of

        try:
            package = id_of(uri)
        except ValueError as error:
            raise SetupFailed(str(error)) from None
        return self._cache.use(package, partial(unpack, package, self._fetch, self._limit))

    def _install(self, installation: Installation, timeout: float) -> Path:
        return self._cache.use(installation.name(), partial(installation.make, timeout=timeout))

    def take_effect(self, own_paths: list[str]) -> None:
        """`own_paths` are where the driver's modules are: with a working_dir, its copy stands for them."""
        if self.installed is not None:
            environment_install.enter(self.installed)
        sys.path[:0] = self.paths
        if self.working_dir is not None:
            sys.path[:] = [str(self.working_dir), *(path for path in sys.path if path not in own_paths)]
            os.chdir(self.working_dir)


def _expanded(variables: Mapping[str, str]) -> dict[str, str]:
    """`$NAME` and `${NAME}` stand for this process' variables; in braces, one that is not set stands for nothing."""
    return {name: _VARIABLE.sub("", os.path.expandvars(value)) for name, value in variables.items()}


def _set_variables(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)
    if "PYTHONPATH" in variables:  # this interpreter has started, and would look at it no more
        paths = filter(None, os.environ["PYTHONPATH"].split(os.pathsep))
        sys.path[:] = [*paths, *sys.path]
    if "TZ" in variables:
        import time

        time.tzset()


def _call_hook(hook: str | Mapping[str, str] | None) -> None:
    """Raises SetupFailed with the hook's traceback."""
    if hook is None:
        return
    name = hook if isinstance(hook, str) else hook["name"]
    try:
        _loaded(hook)()
    except BaseException as error:  # user code, which may raise anything
        trace = "".join(traceback.format_exception(error))
        raise SetupFailed(f"Failed to execute the setup hook method, {name}:\n{trace}") from None


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
