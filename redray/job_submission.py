"""Jobs: commands that run somewhere in the cluster, and go on when whoever submitted them has left.

    client = JobSubmissionClient()
    id = client.submit_job(entrypoint="python train.py")
    client.get_job_status(id)  # JobStatus.RUNNING

A detached actor runs the command; status and output are kept in Redis, so any machine can ask for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import string
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from redray import current
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.submissions import Submission, SubmissionTable
from redray.job_supervisor import NAMESPACE, actor_name
from redray.version import __version__

__all__ = ["DriverInfo", "JobDetails", "JobErrorType", "JobInfo", "JobStatus", "JobSubmissionClient", "JobType"]

TAIL_S = 0.2  # between two looks for more output


class JobStatus(str, Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return self.value

    def is_terminal(self) -> bool:
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


class JobType(str, Enum):
    SUBMISSION = "SUBMISSION"
    DRIVER = "DRIVER"


class JobErrorType(str, Enum):
    RUNTIME_ENV_SETUP_FAILURE = "RUNTIME_ENV_SETUP_FAILURE"
    JOB_SUPERVISOR_ACTOR_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
    JOB_SUPERVISOR_ACTOR_START_FAILURE = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
    JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE = "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"
    JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE = "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"
    JOB_SUPERVISOR_ACTOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
    JOB_ENTRYPOINT_COMMAND_START_ERROR = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
    JOB_ENTRYPOINT_COMMAND_ERROR = "JOB_ENTRYPOINT_COMMAND_ERROR"


@dataclass
class DriverInfo:
    id: str
    node_ip_address: str
    pid: str


@dataclass
class JobInfo:
    """Times are in ms since the epoch."""

    status: JobStatus
    entrypoint: str
    message: str | None = None
    error_type: JobErrorType | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: dict[str, float] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


@dataclass
class JobDetails(JobInfo):
    type: JobType = JobType.SUBMISSION
    job_id: str | None = None
    submission_id: str | None = None
    driver_info: DriverInfo | None = field(default=None)


class JobSubmissionClient:
    """Submits jobs to a cluster and asks for them, without becoming one of its drivers.

    Args:
        address: of the cluster's Redis; None, "auto" or an http:// address (of a dashboard, which redray does not
            need for this): the cluster that this process is connected to, else the one `redray.init()` would join.

    Raises:
        ConnectionError: there is no cluster, or it does not answer.
    """

    def __init__(
        self,
        address: str | None = None,
        create_cluster_if_needed: bool = False,
        cookies: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        verify: str | bool | None = True,
        **kwargs: Any,
    ) -> None:
        self._metadata = dict(metadata or {})
        self._address = _find(address)
        Connection.open(self._address, 5.0, "redray-jobs").close()

    def get_address(self) -> str:
        """Of the cluster's Redis, without its password."""
        from redray.local_cluster import without_password

        return without_password(self._address)

    def get_version(self) -> str:
        return __version__

    def submit_job(
        self,
        *,
        entrypoint: str,
        job_id: str | None = None,
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        entrypoint_label_selector: dict[str, str] | None = None,
    ) -> str:
        """Run a shell command in the cluster.

        Args:
            entrypoint: the command. `redray.init()` in it joins this cluster.
            submission_id: its name; default: a random one. `job_id` is an older name of this.
            runtime_env: of the command, and of tasks of the program that it runs.
            metadata: text to remember with it.
            entrypoint_num_cpus, ...: what the command itself holds; nothing by default.

        Returns:
            The submission id.

        Raises:
            ValueError: no command, or text was expected.
            RuntimeError: there is a job with this id, or the cluster refuses it.
        """
        id = submission_id or job_id or _random_id()
        _check(id, entrypoint, metadata)
        submission = Submission(
            id=id,
            entrypoint=entrypoint,
            metadata={**self._metadata, **(metadata or {})},
            runtime_env=dict(runtime_env or {}),
            num_cpus=entrypoint_num_cpus,
            num_gpus=entrypoint_num_gpus,
            memory=entrypoint_memory,
            resources=entrypoint_resources,
        )
        with self._table() as table:
            if not table.add(submission):
                raise RuntimeError(f"Job with submission_id {id} already exists: choose another, or delete that one.")
        try:
            self._begin(submission, entrypoint_label_selector)
        except BaseException:
            with self._table() as table:
                table.delete(id)
            raise
        return id

    def get_job_status(self, job_id: str) -> JobStatus:
        """Raises RuntimeError for an unknown job, as all of these methods do."""
        return JobStatus(self._get(job_id).state)

    def get_job_info(self, job_id: str) -> JobDetails:
        return _details(self._get(job_id))

    def list_jobs(self) -> list[JobDetails]:
        """Submitted jobs, the oldest first, also those that ended within the last week."""
        with self._table() as table:
            return [_details(submission) for submission in table.all()]

    def get_job_logs(self, job_id: str) -> str:
        """What it printed on stdout and stderr; of much, the last 8 MB or so."""
        self._get(job_id)
        with self._table() as table:
            return table.read_log(job_id)[0].decode("utf-8", "replace")

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """What it prints, as it comes, until it ends."""
        after = "-"
        while True:
            over = self._get(job_id).is_over  # before the look: what it printed last is in it
            with self._table() as table:
                data, after = table.read_log(job_id, after)
            if data:
                yield data.decode("utf-8", "replace")
            elif over:
                return
            else:
                await asyncio.sleep(TAIL_S)

    def stop_job(self, job_id: str) -> bool:
        """Ask it to end: SIGTERM to the command and its children, SIGKILL after 3 s. False: it has ended already."""
        if self._get(job_id).is_over:
            return False
        with self._table() as table:
            table.ask_to_stop(job_id)
        if self._get(job_id).state == JobStatus.PENDING:  # nobody is there to hear it
            self._run_driver({"kill": actor_name(job_id)})
            with self._table() as table:
                table.stopped_before_it_began(job_id)
        return True

    def delete_job(self, job_id: str) -> bool:
        """Forget a job that has ended. Raises RuntimeError if it has not."""
        found = self._get(job_id)
        if not found.is_over:
            raise RuntimeError(f"Attempted to delete job '{job_id}', but it is in a non-terminal state {found.state}.")
        with self._table() as table:
            table.delete(job_id)
        return True

    # ---- inside ------------------------------------------------------------------------------------------------------
    def _get(self, id: str) -> Submission:
        with self._table() as table:
            found = table.get(id)
        if found is None:
            raise RuntimeError(f"Job {id} does not exist.")
        return found

    def _table(self) -> _OpenTable:
        return _OpenTable(self._address)

    def _begin(self, submission: Submission, label_selector: dict[str, str] | None) -> None:
        options = {
            "num_cpus": submission.num_cpus or 0,
            "num_gpus": submission.num_gpus,
            "memory": submission.memory,
            "resources": submission.resources,
            "label_selector": label_selector,
            "runtime_env": submission.runtime_env or None,
        }
        self._run_driver(
            {
                "id": submission.id,
                "entrypoint": submission.entrypoint,
                "options": {name: value for name, value in options.items() if value is not None},
            }
        )

    def _run_driver(self, asked: dict[str, Any]) -> None:
        """`_act` in a process of its own: this one may be, or become, a driver of any cluster."""
        from redray.worker.launch import python_environment

        done = subprocess.run(
            [sys.executable, "-m", "redray.job_submission"],
            input=json.dumps({"address": self._address.url(), **asked}).encode(),
            capture_output=True,
            env=python_environment(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])


class _OpenTable:
    """A connection for one question."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __enter__(self) -> SubmissionTable:
        self._connection = Connection.open(self._address, 5.0, "redray-jobs")
        return SubmissionTable(self._connection)

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _find(address: str | None) -> Address:
    from redray.bootstrap import find_local_cluster
    from redray.config import settings
    from redray.local_cluster import with_password

    if address in (None, "auto") or str(address).startswith(("http://", "https://")):
        session = current.current_or_none()
        here = getattr(session, "redis_address", None)
        if here is not None:
            found: Address = here
            return found
        address = settings().address or find_local_cluster()
    if not address:
        raise ConnectionError("No cluster was found: run `redray start --head`, or name one with `address`.")
    return with_password(Address.parse(address))


def _random_id() -> str:
    letters = string.ascii_letters + string.digits
    return "raysubmit_" + "".join(secrets.choice(letters) for _ in range(16))


def _check(id: str, entrypoint: object, metadata: object) -> None:
    if not isinstance(entrypoint, str) or not entrypoint.strip():
        raise ValueError(f"The entrypoint of a job is a shell command, not {entrypoint!r}.")
    if not isinstance(id, str) or not id.strip() or any(character.isspace() or character in "{}" for character in id):
        raise ValueError(f"A submission id is a word, not {id!r}.")
    pairs = metadata.items() if isinstance(metadata, dict) else [] if metadata is None else [(metadata, None)]
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in pairs):
        raise TypeError(f"The metadata of a job maps text to text, and is {metadata!r}.")


def _details(found: Submission) -> JobDetails:
    return JobDetails(
        status=JobStatus(found.state),
        entrypoint=found.entrypoint,
        message=found.message or "Job has not started yet.",
        error_type=JobErrorType(found.error) if found.error else None,
        start_time=found.started or found.submitted,
        end_time=found.ended,
        metadata=found.metadata,
        runtime_env=found.runtime_env,
        entrypoint_num_cpus=found.num_cpus,
        entrypoint_num_gpus=found.num_gpus,
        entrypoint_memory=found.memory,
        entrypoint_resources=found.resources,
        driver_node_id=found.node or None,
        driver_exit_code=found.exit_code,
        submission_id=found.id,
    )


def _act(asked: dict[str, Any]) -> None:
    """In the process that `_run_driver` starts: a driver that leaves a detached actor behind, or kills one."""
    from redray import api
    from redray.job_supervisor import Supervisor

    os.environ.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)  # a job does not lend it to those it submits
    api.init(asked["address"], namespace=NAMESPACE, log_to_driver=False)
    if "kill" in asked:
        with contextlib.suppress(ValueError):  # it has ended meanwhile
            api.kill(api.get_actor(asked["kill"]))
        api.shutdown()
        return
    options = {**asked["options"], "name": actor_name(asked["id"]), "lifetime": "detached"}
    actor = api.remote(Supervisor).options(**options).remote(asked["id"], asked["entrypoint"])
    api.get_actor(actor_name(asked["id"]))  # it is in the cluster's books
    with _OpenTable(_find(asked["address"])) as table:
        table.update(asked["id"], actor=actor._actor_id.hex())
    api.shutdown()


if __name__ == "__main__":
    _act(json.loads(sys.stdin.buffer.read()))
