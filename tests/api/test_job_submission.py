"""Jobs: commands that are submitted to the cluster, asked for, stopped and forgotten."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal as signals
import sys
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.job_submission import JobErrorType, JobStatus, JobSubmissionClient, JobType
from tests.helpers import REPOSITORY, Signal, is_alive, wait_until


@pytest.fixture
def client(cluster: None) -> JobSubmissionClient:
    return JobSubmissionClient()


def python(program: str) -> str:
    return f"PYTHONPATH={REPOSITORY} {shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def finish(client: JobSubmissionClient, id: str) -> JobStatus:
    wait_until(lambda: client.get_job_status(id).is_terminal(), what=f"the job {id} to end")
    return client.get_job_status(id)


def test_a_job_that_succeeds(client: JobSubmissionClient) -> None:
    id = client.submit_job(entrypoint="echo hello; echo there >&2", metadata={"owner": "me"})
    assert id.startswith("raysubmit_")
    assert finish(client, id) == JobStatus.SUCCEEDED
    assert client.get_job_logs(id) == "hello\nthere\n"
    info = client.get_job_info(id)
    assert (info.status, info.submission_id, info.entrypoint) == (JobStatus.SUCCEEDED, id, "echo hello; echo there >&2")
    assert (info.type, info.metadata, info.driver_exit_code) == (JobType.SUBMISSION, {"owner": "me"}, 0)
    assert info.message == "Job finished successfully."
    assert info.error_type is None
    assert info.start_time is not None and info.end_time is not None and info.start_time <= info.end_time
    assert info.driver_node_id == ray.nodes()[0]["NodeID"]
    assert id in [job.submission_id for job in client.list_jobs()]


def test_a_job_that_fails(client: JobSubmissionClient) -> None:
    id = client.submit_job(entrypoint="echo going down; exit 3")
    assert finish(client, id) == JobStatus.FAILED
    info = client.get_job_info(id)
    assert info.driver_exit_code == 3
    assert info.error_type == JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR
    assert "exit code 3" in str(info.message) and "going down" in str(info.message)


def test_a_program_joins_the_cluster_it_runs_in(client: JobSubmissionClient) -> None:
    program = """
import redray as ray
ray.init()
@ray.remote
def node(): return ray.get_runtime_context().get_node_id()
print("ran on", ray.get(node.remote()))
"""
    id = client.submit_job(entrypoint=python(program))
    assert finish(client, id) == JobStatus.SUCCEEDED, client.get_job_logs(id)
    assert f"ran on {ray.nodes()[0]['NodeID']}" in client.get_job_logs(id)


def test_runtime_env_of_the_command_and_of_its_tasks(client: JobSubmissionClient) -> None:
    program = """
import os
import redray as ray
ray.init()
@ray.remote
def colour(): return os.environ.get("COLOUR")
print(os.environ["COLOUR"], ray.get(colour.remote()))
"""
    id = client.submit_job(entrypoint=python(program), runtime_env={"env_vars": {"COLOUR": "blue"}})
    assert finish(client, id) == JobStatus.SUCCEEDED, client.get_job_logs(id)
    assert "blue blue" in client.get_job_logs(id)
    assert client.get_job_info(id).runtime_env == {"env_vars": {"COLOUR": "blue"}}


def test_stop(client: JobSubmissionClient, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    id = client.submit_job(entrypoint=f"sleep 1000 & echo $! $$ > {pids}; wait")
    wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), what="the command to begin")
    assert client.get_job_status(id) == JobStatus.RUNNING
    with pytest.raises(RuntimeError, match="non-terminal"):
        client.delete_job(id)
    assert client.stop_job(id) is True
    assert finish(client, id) == JobStatus.STOPPED
    assert client.get_job_info(id).message == "Job was intentionally stopped."
    assert client.stop_job(id) is False
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not is_alive(pid), what="the command and its child to end")


def test_a_command_that_ignores_sigterm_is_killed(client: JobSubmissionClient, tmp_path: Path) -> None:
    begun = Signal(tmp_path / "begun")
    id = client.submit_job(entrypoint=f"trap '' TERM; touch {begun.path}; while true; do sleep 0.1; done")
    begun.wait()
    client.stop_job(id)
    assert finish(client, id) == JobStatus.STOPPED


def test_tail(client: JobSubmissionClient, signal: Signal) -> None:
    id = client.submit_job(entrypoint=f"echo one; until test -e {signal.path}; do sleep 0.05; done; echo two")
    seen = []

    async def read() -> None:
        async for text in client.tail_job_logs(id):
            seen.append(text)
            if "one" in text:
                signal.set()

    asyncio.run(asyncio.wait_for(read(), 60))
    assert "".join(seen) == "one\ntwo\n"
    assert finish(client, id) == JobStatus.SUCCEEDED


def test_ids(client: JobSubmissionClient) -> None:
    assert client.submit_job(entrypoint="true", submission_id="mine") == "mine"
    with pytest.raises(RuntimeError, match="already exists"):
        client.submit_job(entrypoint="true", submission_id="mine")
    finish(client, "mine")
    assert client.delete_job("mine") is True
    for ask in (client.get_job_status, client.get_job_info, client.get_job_logs, client.stop_job, client.delete_job):
        with pytest.raises(RuntimeError, match="does not exist"):
            ask("mine")
    assert client.submit_job(entrypoint="true", submission_id="mine") == "mine"
    finish(client, "mine")


def test_bad_arguments(client: JobSubmissionClient) -> None:
    with pytest.raises(ValueError):
        client.submit_job(entrypoint=" ")
    with pytest.raises(ValueError):
        client.submit_job(entrypoint="true", submission_id="two words")
    with pytest.raises(TypeError):
        client.submit_job(entrypoint="true", metadata={"n": 1})  # type: ignore[dict-item]


def test_what_the_command_holds(client: JobSubmissionClient, signal: Signal) -> None:
    command = f"until test -e {signal.path}; do sleep 0.05; done"
    id = client.submit_job(entrypoint=command, entrypoint_num_cpus=1, entrypoint_resources={"disk": 1})
    wait_until(lambda: ray.available_resources().get("disk") == 1, what="the job to hold a disk")
    assert ray.available_resources()["CPU"] == 1
    signal.set()
    assert finish(client, id) == JobStatus.SUCCEEDED
    assert client.get_job_info(id).entrypoint_num_cpus == 1


def test_a_job_that_finds_no_room_is_pending(client: JobSubmissionClient) -> None:
    id = client.submit_job(entrypoint="true", entrypoint_resources={"nowhere": 1})
    assert client.get_job_status(id) == JobStatus.PENDING
    assert client.stop_job(id)
    assert finish(client, id) == JobStatus.STOPPED


def test_a_supervisor_that_dies_fails_its_job(client: JobSubmissionClient, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    id = client.submit_job(entrypoint=f"echo $PPID > {file}; exec sleep 1000")
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), what="the command to begin")
    os.kill(int(file.read_text()), signals.SIGKILL)
    assert finish(client, id) == JobStatus.FAILED
    assert client.get_job_info(id).error_type == JobErrorType.JOB_SUPERVISOR_ACTOR_DIED


def test_statuses_are_text(cluster: None) -> None:
    assert JobStatus.SUCCEEDED == "SUCCEEDED" and str(JobStatus.FAILED) == "FAILED"
    assert not JobStatus.PENDING.is_terminal() and JobStatus.STOPPED.is_terminal()


def test_nobody_there(no_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDRAY_TEMP_DIR", str(tmp_path))
    for address in (None, "127.0.0.1:1"):
        with pytest.raises(ConnectionError):
            JobSubmissionClient(address)


def test_the_state_api_lists_submitted_jobs(client: JobSubmissionClient) -> None:
    from redray.util.state import list_jobs

    id = client.submit_job(entrypoint="true")
    finish(client, id)
    (row,) = list_jobs(filters=[("submission_id", "=", id)])
    found: Any = (row.type, row.status, row.entrypoint)
    assert found == ("SUBMISSION", "SUCCEEDED", "true")
