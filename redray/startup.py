"""`init` and `shutdown`: how this process gets a session and loses it again."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redray import current, option_checks, strategies
from redray.resources import with_memory
from redray.version import __version__

if TYPE_CHECKING:
    from redray.current import Session

# What Ray's own launchers and tests pass. Some have no counterpart here, none changes what a program computes.
_UNUSED = {  # with their defaults
    "include_dashboard": None,
    "dashboard_host": "127.0.0.1",
    "dashboard_port": None,
    "enable_resource_isolation": False,
    "cgroup_path": None,
    "system_reserved_cpu": None,
    "system_reserved_memory": None,
    "proxy_server_url": None,
}
_IGNORED = frozenset(
    [
        "_cluster_id",
        "_driver_object_store_memory",
        "_enable_object_reconstruction",
        "_node_ip_address",
        "_node_name",
        "_object_spilling_directory",
        "_plasma_directory",
        "_raylet_ip_address",
        "_redis_max_memory",
        "_redis_password",
        "_redis_username",
        "_skip_env_hook",
        "_system_config",
        "_tracing_startup_hook",
    ]
)
_MOST_MEMORY = 2**46  # half of what a process can map on today's processors
_lock = threading.RLock()  # two threads that submit first both begin a session: one must wait for the other


class RayContext(Mapping[str, Any]):
    """What `init` returns: facts about the cluster by key, and a context manager that shuts down at its end.

    `context["address"]`, `context.address_info` (all of them), `context.dashboard_url` ("" without a dashboard).
    """

    def __init__(self, address_info: Mapping[str, Any]) -> None:
        self.address_info = dict(address_info)
        self.dashboard_url = str(self.address_info.get("dashboard_url") or "")
        self.python_version = ".".join(map(str, sys.version_info[:3]))
        self.ray_version = __version__
        self.ray_commit = ""

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        """End the session, as `redray.shutdown()` does."""
        shutdown()

    def __repr__(self) -> str:
        return f"RayContext(address={self.address_info.get('address')!r}, dashboard_url={self.dashboard_url!r})"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: str | Sequence[str] | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: int | str | None = None,
    logging_format: str | None = None,
    logging_config: Any = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    proxy_server_url: str | None = None,
    **kwargs: Any,
) -> RayContext:
    """Connect this process to a cluster, or start one that lives as long as this process.

    Args:
        address: `redis://[user:password@]host:port`, `rediss://...`, `unix://path` or `host:port` of the cluster's
            Redis. None: $REDRAY_ADDRESS, else $RAY_ADDRESS, else the cluster that `redray start` made on this machine,
            else a new one. "auto": the same, but never a new one. "local": always a new one.
        num_cpus, num_gpus: of the new node; default: what the machine has.
        resources: further resources of the new node, name to quantity.
        labels: of the new node.
        object_store_memory: bytes of shared memory for large objects on the new node.
        object_spilling_directory: where the new node writes objects that memory has no room for: one directory or
            several, on different disks for speed, or a URL such as s3://bucket/prefix if fsspec is installed.
            Default: a directory of the session's in the temporary directory.
        local_mode: run tasks and actors in this process, one after the other: for debuggers and breakpoints.
        ignore_reinit_error: when connected already, keep that session and return its context.
        logging_level, logging_format: of the logger "redray".
        log_to_driver: show here what this job's workers print (default True).
        namespace: where names of this job's actors live; default: one of its own.
        runtime_env: environment of this job's workers.

    Raises:
        RuntimeError: connected already, or an unknown argument.
        ConnectionError: no cluster at the address, or with "auto" none found.
        ValueError: an argument that only a new cluster can have, for one that exists.
    """
    _check_kwargs(kwargs, unused={name for name, value in locals().items() if value != _UNUSED.get(name, value)})
    namespace, runtime_env = _from_job_config(job_config, namespace, runtime_env)
    new_node = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "resources": resources,
        "labels": labels,
        "object_store_memory": object_store_memory,
        "object_spilling_directory": _spilling_places(object_spilling_directory),
    }
    _check_arguments(new_node, namespace, runtime_env)
    memory = kwargs.get("_memory")
    if memory is not None:
        option_checks.check_task({"memory": memory})
        new_node["resources"] = with_memory(resources, memory)
    flags = {"local_mode": local_mode, "ignore_reinit_error": ignore_reinit_error, "log_to_driver": log_to_driver}
    option_checks.check_flags({**flags, "include_dashboard": include_dashboard, "configure_logging": configure_logging})
    if configure_logging:
        if logging_level is None:
            logging_level = getattr(logging_config, "log_level", None)
        _configure_logging(logging_level, logging_format)
    job = {"namespace": namespace, "runtime_env": runtime_env, "log_to_driver": log_to_driver is not False}
    with _lock:
        existing = current.current_or_none()
        if existing is not None:
            return _again(existing, ignore_reinit_error)
        if local_mode:
            session = _start_local_mode(new_node, namespace)
        else:
            session = _start(_resolve(address), new_node, job, kwargs)
        _install(session)
        return RayContext(session.address_info)


def _again(existing: Session, ignore: bool) -> RayContext:
    if not ignore:
        raise RuntimeError(
            "Maybe you called ray.init twice by accident? This process has a session already. Pass"
            " 'ignore_reinit_error=True' to keep it, or call redray.shutdown() first."
        )
    _log("init() was called again: the session that is there is kept.")
    return RayContext(existing.address_info)


def _check_kwargs(kwargs: Mapping[str, Any], unused: set[str]) -> None:
    unknown = kwargs.keys() - _IGNORED - {"_memory", "_metrics_export_port", "_temp_dir"}
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(sorted(unknown))}")
    ignored = kwargs.keys() & _IGNORED | unused
    if ignored:
        _log(f"init() ignores {', '.join(sorted(ignored))}: redray has no counterpart.")


def _log(text: str) -> None:
    import logging

    logging.getLogger("redray").debug(text)


def _from_job_config(config: Any, namespace: str | None, runtime_env: Any) -> tuple[str | None, Any]:
    """Ray's JobConfig, or anything with its attributes `ray_namespace` and `runtime_env`; and the environment that
    whoever submitted this driver as a job left in $RAY_JOB_CONFIG_JSON_ENV_VAR."""
    theirs = getattr(config, "ray_namespace", None)
    if theirs and namespace:
        raise ValueError("'namespace' is given both to init() and in its job_config.")
    submitted = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if config is None and not submitted and not runtime_env:
        return namespace, runtime_env
    option_checks.check_task({"runtime_env": runtime_env})
    from redray import runtime_env as environments

    found = environments.merged_with_job(getattr(config, "runtime_env", None), runtime_env)
    if submitted:
        import json

        found = environments.merged_with_job(json.loads(submitted).get("runtime_env"), found)
    return namespace or theirs or None, environments.checked(found) if found else None


def _spilling_places(given: str | Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    from redray.config import spilling_places

    return spilling_places(given)


def _check_arguments(new_node: Mapping[str, Any], namespace: object, runtime_env: object) -> None:
    quantities = {name: new_node[name] for name in ("num_cpus", "num_gpus", "resources")}
    option_checks.check_task({**quantities, "runtime_env": runtime_env})
    option_checks.check_actor({"namespace": namespace})
    memory, labels = new_node["object_store_memory"], new_node["labels"]
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
        raise TypeError(f"'object_store_memory' is a whole number of bytes, and no {type(memory).__name__}.")
    if memory is not None and not 0 < memory <= _MOST_MEMORY:
        raise ValueError(f"'object_store_memory' is a number of bytes between 1 and {_MOST_MEMORY}, not {memory}.")
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"'labels' maps strings to strings, and is no {type(labels).__name__}.")
    strategies.check_labels(labels or {})


def _configure_logging(level: int | str | None, form: str | None) -> None:
    """Only on request: until then warnings reach stderr by Python's own default."""
    if level is None and form is None:
        return
    import logging

    if isinstance(level, bool) or not isinstance(level, (int, str, type(None))):
        raise TypeError(f"'logging_level' is a number or a name such as 'INFO', and no {type(level).__name__}.")
    logger = logging.getLogger("redray")
    logger.setLevel(level.upper() if isinstance(level, str) else level or logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(form or "%(asctime)s\t%(levelname)s %(name)s -- %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def _resolve(address: str | None) -> str | None:
    """The cluster to join, None to start one. Raises ConnectionError for "auto" if there is none."""
    if address is not None and not isinstance(address, str):
        raise TypeError(f"The address is a string, not {type(address).__name__}.")
    if address == "":
        raise ValueError('The address is "": leave it out to start a cluster, or name one.')
    if address == "local":
        return None
    if address not in (None, "auto"):
        return address
    named = os.environ.get("REDRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if named == "local" and address != "auto":
        return None
    if named and named not in ("local", "auto"):
        return named
    from redray import bootstrap

    found: str | None = bootstrap.find_local_cluster()
    if found is None and "auto" in (address, named):
        raise ConnectionError(
            "Could not find any running redray cluster on this machine. Start one with `redray start --head`, or name"
            " one in `address` or $REDRAY_ADDRESS."
        )
    return found


def _start(
    address: str | None, new_node: Mapping[str, Any], job: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> Session:
    from redray import bootstrap

    if address is None:
        temp_dir, port = kwargs.get("_temp_dir"), kwargs.get("_metrics_export_port")
        session: Session = bootstrap.start_embedded(**new_node, **job, temp_dir=temp_dir, metrics_port=port)
        return session
    refused = sorted(name for name, value in {**new_node, **kwargs}.items() if value is not None and name in _OF_A_NODE)
    if refused:
        raise ValueError(
            f"When connecting to an existing cluster ({_without_password(address)}), {' and '.join(refused)} must not"
            " be given: its nodes have their own. For a cluster of your own, pass address='local'."
        )
    scheme, separator, rest = address.partition("://")
    session = bootstrap.connect(address=f"redis://{rest}" if separator and scheme == "ray" else address, **job)
    return session


_OF_A_NODE = frozenset(["num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "_system_config"])


def _without_password(address: str) -> str:
    head, at, host = address.rpartition("@")
    return f"{head.partition('://')[0]}://***@{host}" if at else address


def _start_local_mode(new_node: Mapping[str, Any], namespace: str | None) -> Session:
    from redray.local_mode import LocalSession

    return LocalSession(new_node["num_cpus"], new_node["num_gpus"], new_node["resources"], namespace)


_registered = False


def _install(session: Any) -> None:
    global _registered
    from redray import session as slot

    slot.install(session)
    if not _registered:
        atexit.register(shutdown)
        _registered = True


def shutdown(_exiting_interpreter: bool = False) -> None:
    """End this process' session. A cluster that `init` started ends with it; one that it joined goes on.

    Does nothing without a session, and nothing in a worker, whose session is its node's.
    """
    with _lock:
        session = current.current_or_none()
        if session is None or session.kind == "worker":
            return
        from redray import session as slot

        try:
            session.close()
        finally:
            slot.uninstall()


def is_initialized() -> bool:
    """Whether this process is connected to a cluster."""
    return current.current_or_none() is not None


def _begin() -> Session:
    """Auto-init: something was submitted and there is no session. Two threads may come here at once."""
    with _lock:
        if current.current_or_none() is None:
            init()
        return current.started()


current.set_begin(_begin)
