"""`redray.runtime_env`: what a job, a task or an actor needs around it, as a checked dictionary.

A `RuntimeEnv` is checked where the user writes it: unknown fields, wrong types and files that do not exist raise there,
and nothing is submitted. How one reaches a worker is in `redray.environments` and `redray.worker.environment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redray import runtime_env_checks as checks

DEFAULT_SETUP_TIMEOUT_S = 600
_INSTALLERS = ("pip", "uv", "conda")  # each brings an interpreter's packages of its own: they exclude each other


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is set up: `setup_timeout_seconds` (-1: no limit), `eager_install`, `log_files`.

    An environment is set up when a worker first needs it, whatever `eager_install` says; `log_files` is kept for
    programs that set it and means nothing.
    """

    def __init__(
        self,
        setup_timeout_seconds: int = DEFAULT_SETUP_TIMEOUT_S,
        eager_install: bool = True,
        log_files: list[str] | None = None,
    ) -> None:
        """Raises TypeError or ValueError for a value that cannot be meant."""
        given = {"setup_timeout_seconds": setup_timeout_seconds, "eager_install": eager_install}
        super().__init__(checks.config({**given, "log_files": log_files or []}))

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment; a plain dictionary with the same fields does as well wherever one is taken.

    Args:
        env_vars: variables of the worker's environment, set before any code of the user's is loaded. `${NAME}` is
            replaced by the value on the node, or by nothing.
        working_dir: a local directory or zip file. Its copy is the workers' current directory, and importable.
        excludes: patterns, as in a .gitignore, of what stays out of `working_dir` and `py_modules`.
        py_modules: local packages (directories), modules (.py files) or wheels to be importable.
        pip, uv: packages to install: a list of requirements, the path of a requirements file, or a dictionary with
            `packages` and `pip_check`, `pip_version`, `pip_install_options` (`uv_...`).
        worker_process_setup_hook: a function, or the name of one ("module.function"), called in each new worker.
        config: see RuntimeEnvConfig.
        conda, py_executable, container, image_uri: not supported.

    Raises:
        ValueError: an unknown or unsupported field, fields that exclude each other, a file that does not exist.
        TypeError: a value of the wrong type.
    """

    def __init__(
        self,
        *,
        py_modules: list[Any] | None = None,
        py_executable: str | None = None,
        working_dir: str | None = None,
        pip: Any = None,
        conda: Any = None,
        container: Any = None,
        env_vars: dict[str, str] | None = None,
        worker_process_setup_hook: Callable[[], Any] | str | None = None,
        config: Mapping[str, Any] | None = None,
        image_uri: str | None = None,
        uv: Any = None,
        excludes: list[str] | None = None,
        _validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.prepared: tuple[object, str, str] | None = None  # (session, job, the text it has there): see environments
        given = {
            "py_modules": py_modules,
            "py_executable": py_executable,
            "working_dir": working_dir,
            "excludes": excludes,
            "pip": pip,
            "uv": uv,
            "conda": conda,
            "env_vars": env_vars,
            "worker_process_setup_hook": worker_process_setup_hook,
            "config": config,
            "container": container,
            "image_uri": image_uri,
            **kwargs,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if not _validate:
            super().update(given)
            return
        installers = [name for name in _INSTALLERS if name in given]
        if len(installers) > 1:
            raise ValueError(
                "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time: "
                f"{' and '.join(installers)} were."
            )
        for name, value in given.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        self.prepared = None
        checked = checks.field(name, value)
        if checked is not None:
            super().__setitem__(name, checked)

    def set(self, name: str, value: Any) -> None:
        self[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        """Checked where it was made: its files need not be where it is unpickled."""
        return _unchecked, (dict(self),)

    def to_dict(self) -> dict[str, Any]:
        from copy import deepcopy

        return deepcopy(dict(self))

    def serialize(self) -> str:
        """As JSON. Raises TypeError for a hook that is a function: it has no name that another process could use."""
        import json

        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, text: str) -> RuntimeEnv:
        import json

        return cls(**json.loads(text), _validate=False)


def _unchecked(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(**fields, _validate=False)


def checked(given: Mapping[str, Any]) -> RuntimeEnv:
    """A copy that later changes of `given` do not reach. Raises as RuntimeEnv does, unless `given` is one."""
    from copy import deepcopy

    hook = given.get("worker_process_setup_hook")
    modules = given.get("py_modules")
    plain = {name: value for name, value in given.items() if name not in ("worker_process_setup_hook", "py_modules")}
    for name in plain:
        if not isinstance(name, str):
            raise TypeError(f"The fields of a runtime_env are named by strings, not by {name!r}.")
    copied = list(modules) if isinstance(modules, list) else modules
    check = not isinstance(given, RuntimeEnv)
    return RuntimeEnv(**deepcopy(plain), worker_process_setup_hook=hook, py_modules=copied, _validate=check)


def merged(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """What a child runs in: each of its fields replaces its parent's; variables are merged, the child's first."""
    found = {**parent, **child}
    if any(name in child for name in _INSTALLERS):
        for name in _INSTALLERS:
            if name not in child:
                found.pop(name, None)
    variables = {**parent.get("env_vars", {}), **child.get("env_vars", {})}
    if variables:
        found["env_vars"] = variables
    return found


def merged_with_job(job: Mapping[str, Any] | None, driver: Mapping[str, Any] | None) -> dict[str, Any]:
    """The environment of a driver whose job was given one too, by whoever submitted it.

    Raises ValueError if both have the same field, or the same variable, unless $RAY_OVERRIDE_JOB_RUNTIME_ENV is 1: then
    the driver's counts.
    """
    import os

    job, driver = job or {}, driver or {}
    if "1" not in (os.environ.get("REDRAY_OVERRIDE_JOB_RUNTIME_ENV"), os.environ.get("RAY_OVERRIDE_JOB_RUNTIME_ENV")):
        both = sorted((job.keys() & driver.keys()) - {"env_vars"})
        both += sorted(job.get("env_vars", {}).keys() & driver.get("env_vars", {}).keys())
        if both:
            raise ValueError(
                f"Failed to merge the Job's runtime env {dict(job)} with a ray.init's runtime env {dict(driver)}"
                f" because of a conflict: both have {', '.join(both)}. Specifying the same runtime_env fields or the"
                " same environment variable keys is not allowed. Set RAY_OVERRIDE_JOB_RUNTIME_ENV=1 for the driver's"
                " to count."
            )
    return merged(job, driver)
