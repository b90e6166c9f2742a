"""What a worker process takes over from its job and its runtime environment, and from the demand of what it runs:
paths, directory, variables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from redray import ray_alias
from redray.messages import JobInfo
from redray.resources import UNIT, plain
from redray.spec import TaskHead
from redray.worker.host import Host

FAILED_S = 10.0  # a failure is told for so long, before another worker tries


class Environment:
    def __init__(self) -> None:
        self._sets_threads = "OMP_NUM_THREADS" not in os.environ
        self._demand = ""
        self.failure = ""  # why the runtime environment could not be set up: nothing may run here
        self._failed_at = 0.0

    def enter(self, job: JobInfo, host: Host) -> None:
        """Before the first run of a job, and before any code of its user's is loaded."""
        self._enter_job(job)
        wanted = job.config.get("runtime_env") or {}
        if not job.environment and not wanted:
            return
        from redray.worker import environment_setup

        self.failure = environment_setup.enter(environment_setup.wanted(job), job, host.fetch_package)
        self._failed_at = time.monotonic()
        self._sets_threads = self._sets_threads and "OMP_NUM_THREADS" not in os.environ

    def may_be_better_now(self) -> bool:
        """The failure is old: another process should try."""
        return time.monotonic() - self._failed_at > FAILED_S

    def _enter_job(self, job: JobInfo) -> None:
        """Import what the driver could import, relative paths included. Entries that this machine does not have are
        left out."""
        directory = job.config.get("cwd")
        if directory and os.path.isdir(directory):
            os.chdir(directory)
        wanted = [entry for entry in job.config.get("sys_path", ()) if entry == "" or os.path.exists(entry)]
        if wanted:
            sys.path[:] = wanted + [entry for entry in sys.path if entry not in wanted]
        if job.config.get("ray_alias"):
            ray_alias.install()  # the driver is run by `redray run`

    def prepare(self, head: TaskHead, gpus: Sequence[int | str]) -> None:
        """Before a task's or an actor's code runs."""
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        if self._sets_threads and head.demand != self._demand:
            self._demand = head.demand
            os.environ["OMP_NUM_THREADS"] = str(max(1, plain(head.demand).get("CPU", 0) // UNIT))
