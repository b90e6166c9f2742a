"""A session and its runtime environments: its own, and those of what it submits.

An environment travels as text: JSON, its keys sorted, with local files replaced by the names of uploaded packages. The
text is also its identity: a worker process serves one job and one text. "" stands for the environment of the job, so
that tasks of a job that says nothing of environments carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.ids import JobID, WorkerID
from redray.runtime_env import RuntimeEnv, merged
from redray.task_context import TaskContext
from redray.values import Values

MOST_TEXT = 64 * 1024  # bytes: it travels with each task


class Environments(Values):
    """Any thread may submit."""

    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        super().__init__(kind, worker, address, keys, job, namespace)
        self._own: Mapping[str, Any] = {}  # the environment of this process
        self._own_text = ""
        self._job_env: Mapping[str, Any] = {}

    @property
    def runtime_env(self) -> dict[str, Any]:
        """What this process runs in; in a driver, what its job does."""
        return shown(self._own)

    def _live_in(self, job_env: Mapping[str, Any], text: str = "") -> None:
        """Tell what the job's environment is, and this process' if that is another."""
        self._job_env, self._own_text = job_env, text
        self._own = parsed(text) if text else job_env

    def _environment_for(self, wanted: RuntimeEnv | None, context: TaskContext | None) -> str:
        """The text for a task or actor whose options ask for `wanted`. Uploads what that needs."""
        if not wanted:
            if context is None or context.head.job == self.job_id.hex():
                return self._own_text
            return text_of(self._own)  # it runs for another job, whose environment is not this one
        job = self.job_id.hex() if context is None else context.head.job
        if wanted.prepared is None or wanted.prepared[:2] != (self.token, job):
            wanted.prepared = (self.token, job, self._prepared_text(wanted, job))
        return wanted.prepared[2]

    def _prepared_text(self, wanted: RuntimeEnv, job: str) -> str:
        text = text_of(merged(self._own, travelling(wanted)))
        return "" if job == self.job_id.hex() and text == text_of(self._job_env) else text


def travelling(env: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can carry it: a hook that is a function is pickled."""
    hook = env.get("worker_process_setup_hook")
    if hook is None or isinstance(hook, (str, Mapping)):
        return dict(env)
    import base64

    from redray import cloudpickle

    pickled = base64.b64encode(cloudpickle.dumps(hook)).decode()
    return {**env, "worker_process_setup_hook": {"name": getattr(hook, "__name__", repr(hook)), "pickled": pickled}}


def shown(env: Mapping[str, Any]) -> dict[str, Any]:
    """As people and programs see it: a hook by its name."""
    hook = env.get("worker_process_setup_hook")
    if isinstance(hook, Mapping):
        return {**env, "worker_process_setup_hook": hook["name"]}
    return dict(env)


def text_of(env: Mapping[str, Any]) -> str:
    """Raises ValueError if it is too large to travel with each task."""
    import json

    text = json.dumps(env, sort_keys=True, separators=(",", ":"))
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"This runtime_env takes {len(text)} bytes as JSON, more than {MOST_TEXT}: it travels with each task. Put"
            " what is long into files of its working_dir."
        )
    return text


def parsed(text: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(text)
    return found
