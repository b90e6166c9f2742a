"""The check of each field of a runtime environment: its type, and that what it names exists.

Each function takes what the user wrote and returns what is kept, None for "as if it were not there".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

PACKAGE_SCHEME = "gcs://"  # an uploaded package: Ray's name for one, so that code that looks for it goes on working
_REMOTE = ("http://", "https://", "s3://", "gs://", "file://", "azure://", "abfss://", "hdfs://")


def field(name: str, value: Any) -> Any:
    """Raises ValueError for an unknown or unsupported field, and what the field's own check raises."""
    if name in _UNSUPPORTED:
        raise ValueError(f"runtime_env['{name}'] is not supported: {_UNSUPPORTED[name]}")
    check = _CHECKS.get(name)
    if check is None:
        known = sorted(name for name in _CHECKS if not name.startswith("_"))
        raise ValueError(f"runtime_env has no field '{name}'. Its fields are {', '.join(known)}.")
    return check(value)


def _env_vars(value: Any) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}.")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but it maps {name!r} of type {type(name)} to"
                f" {text!r} of type {type(text)}."
            )
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"runtime_env['env_vars'] cannot set {name!r}: no variable can have that name or value.")
    return dict(value) or None


def _package(what: str, value: str) -> str:
    if value.startswith(PACKAGE_SCHEME):
        return value
    if value.startswith(_REMOTE):
        raise ValueError(
            f"runtime_env['{what}'] is {value}: only local files and directories are supported, no remote ones."
        )
    path = os.path.expanduser(value)
    if not os.path.exists(path):
        raise ValueError(f"runtime_env['{what}']: {value} is not a valid path.")
    return os.path.abspath(path)


def _working_dir(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    path = _package("working_dir", value)
    if not path.startswith(PACKAGE_SCHEME) and not os.path.isdir(path) and not _is_zip(path):
        raise ValueError(f"directory {value} must be an existing directory or a zip package.")
    return path


def _is_zip(path: str) -> bool:
    import zipfile

    return zipfile.is_zipfile(path)


def _py_modules(value: Any) -> list[str] | None:
    if not isinstance(value, list):
        raise TypeError(f"`py_modules` must be a list of strings, got {type(value)}.")
    found = []
    for module in value:
        if isinstance(module, ModuleType):
            found.append(_home(module))
        elif isinstance(module, (str, os.PathLike)):
            found.append(_module(os.fspath(module)))
        else:
            raise TypeError(f"`py_module` must be a string, got {type(module)}.")
    return found or None


def _home(module: ModuleType) -> str:
    """Where a module that was imported lies."""
    paths = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None)]
    if len(paths) != 1 or paths[0] is None:
        raise ValueError(f"runtime_env['py_modules']: the module {module.__name__} is not one directory or file.")
    return str(paths[0])


def _module(value: str) -> str:
    path = _package("py_modules", value)
    if not path.startswith(PACKAGE_SCHEME) and not os.path.isdir(path) and not path.endswith((".py", ".whl", ".zip")):
        raise ValueError(f"runtime_env['py_modules']: {value} is no directory, .py file, .whl file or .zip file.")
    return path


def _excludes(value: Any) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise TypeError(f"runtime_env['excludes'] must be of type List[str], got {type(value)}.")
    return list(value) or None


def _requirements(what: str, path: str) -> list[str]:
    if not os.path.isfile(path):
        raise ValueError(f"runtime_env['{what}']: {path} is not a valid file.")
    with open(path) as file:
        lines = (line.strip() for line in file)
        return [line for line in lines if line and not line.startswith("#")]


def _installer(what: str) -> Callable[[Any], dict[str, Any] | None]:
    """The check of `pip` or `uv`: both take a list, a file's path, or a dictionary."""
    options = "pip_install_options" if what == "pip" else "uv_pip_install_options"
    known = {"packages", f"{what}_check", f"{what}_version", options}

    def check(value: Any) -> dict[str, Any] | None:
        if isinstance(value, (str, list)):
            value = {"packages": value}
        if not isinstance(value, Mapping):
            raise TypeError(f"runtime_env['{what}'] must be of type str, List[str] or dict, got {type(value)}.")
        if value.keys() - known:
            raise ValueError(
                f"runtime_env['{what}'] can only have these fields: {', '.join(sorted(known))}, but got: {list(value)}."
            )
        if "packages" not in value:
            raise ValueError(f"runtime_env['{what}'] must include field 'packages', but got {value}.")
        packages = value["packages"]
        if isinstance(packages, str):
            packages = _requirements(what, packages)
        elif not isinstance(packages, list):
            raise ValueError(f"runtime_env['{what}']['packages'] must be of type str or list, got: {type(packages)}.")
        found = {f"{what}_check": False, **value, "packages": list(dict.fromkeys(_strings(what, "packages", packages)))}
        _check_installer(what, found)
        return found if found["packages"] else None

    return check


def _check_installer(what: str, found: Mapping[str, Any]) -> None:
    for name, kind in ((f"{what}_check", bool), (f"{what}_version", str)):
        if name in found and not isinstance(found[name], kind):
            raise TypeError(
                f"runtime_env['{what}']['{name}'] must be of type {kind.__name__}, got {type(found[name])}."
            )
    for name in ("pip_install_options", "uv_pip_install_options"):
        if name in found:
            _strings(what, name, found[name])


def _strings(what: str, name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"runtime_env['{what}']['{name}'] must be of type list[str], got {value!r}.")
    return value


def _hook(value: Any) -> Any:
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"worker_process_setup_hook must be a function, got {type(value)}.")
    if isinstance(value, str) and not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(f"worker_process_setup_hook is a function or 'module.function', not {value!r}.")
    return value


def config(value: Any) -> dict[str, Any]:
    """`setup_timeout_seconds`, `eager_install`, `log_files`."""
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: {type(value)}.")
    unknown = value.keys() - {"setup_timeout_seconds", "eager_install", "log_files"}
    if unknown:
        raise ValueError(f"runtime_env['config'] has no field {', '.join(sorted(map(str, unknown)))}.")
    timeout = value.get("setup_timeout_seconds", 1)
    if not isinstance(timeout, int) or isinstance(timeout, bool):
        raise TypeError(f"setup_timeout_seconds must be of type int, got: {type(timeout)}.")
    if timeout <= 0 and timeout != -1:
        raise ValueError(f"setup_timeout_seconds must be greater than zero or equal to -1, got: {timeout}.")
    if not isinstance(value.get("eager_install", True), bool):
        raise TypeError(f"eager_install must be a boolean, got: {type(value['eager_install'])}.")
    _strings("config", "log_files", value.get("log_files", []))
    return dict(value)


_OTHER_INTERPRETER = (
    "workers are forked from their node, on its interpreter. Start a node with the other one instead, or install what"
    " is missing with 'pip' or 'uv'."
)
_UNSUPPORTED = {
    "conda": _OTHER_INTERPRETER,
    "py_executable": _OTHER_INTERPRETER,
    "image_uri": "workers are processes of their node. Start the nodes inside the image instead.",
    "container": "workers are processes of their node. Start the nodes inside the container instead.",
    "java_jars": "redray runs Python only.",
    "nsight": "start the node under the profiler instead.",
    "_nsight": "start the node under the profiler instead.",
    "rocprof_sys": "start the node under the profiler instead.",
    "_rocprof_sys": "start the node under the profiler instead.",
}
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "excludes": _excludes,
    "py_modules": _py_modules,
    "pip": _installer("pip"),
    "uv": _installer("uv"),
    "worker_process_setup_hook": _hook,
    "config": config,
    # Which Ray is to be inside: redray is in every environment, so these change nothing.
    "_ray_release": lambda value: None,
    "_ray_commit": lambda value: None,
    "_inject_current_ray": lambda value: None,
}
