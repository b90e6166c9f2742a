"""`redray.job_config.JobConfig`: what `init(job_config=...)` takes, under Ray's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redray.runtime_env import RuntimeEnv, checked


class JobConfig:
    """The environment and the namespace of a driver's job, and notes about it.

    `init` merges `runtime_env` with its own argument of that name; the same field or variable in both is a ValueError.
    """

    def __init__(
        self,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        ray_namespace: str | None = None,
        code_search_path: list[str] | None = None,
    ) -> None:
        """Raises as RuntimeEnv does, and ValueError for a `code_search_path`, which only other languages need."""
        if code_search_path:
            raise ValueError("'code_search_path' is not supported: use the runtime_env's working_dir or py_modules.")
        self.runtime_env: RuntimeEnv | None = None
        self.metadata: dict[str, str] = {}
        self.ray_namespace: str | None = None
        self.set_runtime_env(runtime_env)
        for name, value in (metadata or {}).items():
            self.set_metadata(name, value)
        if ray_namespace is not None:
            self.set_ray_namespace(ray_namespace)

    def set_runtime_env(self, runtime_env: Mapping[str, Any] | None, validate: bool = False) -> None:
        """It is checked here, whatever `validate` says."""
        self.runtime_env = checked(runtime_env) if runtime_env else None

    def set_ray_namespace(self, ray_namespace: str) -> None:
        self.ray_namespace = ray_namespace

    def set_metadata(self, key: str, value: str) -> None:
        self.metadata[key] = value

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> JobConfig:
        """From a dictionary with the arguments' names, as a job's submitter leaves it."""
        return cls(config.get("runtime_env"), config.get("metadata"), config.get("ray_namespace"))
