"""The detached actor that runs a submitted job's command, somewhere in the cluster, and writes down how it stands."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import threading
from collections import deque
from typing import Any

from redray import api, current
from redray.gcs import submissions
from redray.gcs.submissions import SubmissionTable, now_ms
from redray.local_cluster import without_password

NAMESPACE = "_redray_jobs"
POLL_S = 0.25  # between two looks whether somebody wants it stopped
GRACE_S = 3.0  # between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_TAIL = 20_000  # characters of the log in the message of a job that failed


def actor_name(id: str) -> str:
    return f"job_supervisor_{id}"


class Supervisor:
    """Works in a thread: its constructor must return for the actor to be alive, and the submitter may be gone."""

    def __init__(self, id: str, entrypoint: str) -> None:
        self._id, self._entrypoint = id, entrypoint
        context = api.get_runtime_context()
        self._handle, self._node = context.current_actor, context.get_node_id() or ""
        self._runtime_env = context.runtime_env  # where what the submitter named has become packages
        self._table = SubmissionTable(_Session(current.current()))
        self._tail: deque[str] = deque(maxlen=200)
        threading.Thread(target=self._work, name="redray-job", daemon=True).start()

    def ping(self) -> None:
        """Answers when the command was started, or could not be."""

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:
            text = f"The job could not be run: {type(error).__name__}: {error}"
            self._end(submissions.FAILED, text, "JOB_ENTRYPOINT_COMMAND_START_ERROR")
        finally:
            api.kill(self._handle)

    def _run(self) -> None:
        if self._table.is_asked_to_stop(self._id):
            self._end(submissions.STOPPED, "Job was intentionally stopped.", "")
            return
        process = subprocess.Popen(
            self._entrypoint,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            preexec_fn=_die_with_parent,
            start_new_session=True,  # so that its children can be stopped with it
        )
        said = {"started": now_ms(), "node": self._node, "message": "Job is currently running."}
        self._table.update(self._id, state=submissions.RUNNING, **said)
        reader = threading.Thread(target=self._copy_output, args=(process,), name="redray-job-log", daemon=True)
        reader.start()
        stopped = self._wait(process)
        reader.join(GRACE_S)  # a child that it left behind may hold the pipe open
        self._conclude(process.returncode, stopped)

    def _environment(self) -> dict[str, str]:
        session: Any = current.current()
        address = session.redis_address
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "REDRAY_ADDRESS": without_password(address),
            "RAY_ADDRESS": without_password(address),
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": self._runtime_env}),
            "REDRAY_SUBMISSION_ID": self._id,
            **({"REDRAY_REDIS_PASSWORD": address.password} if address.password else {}),
        }

    def _copy_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 16):
            self._tail.append(data.decode("utf-8", "replace"))
            self._table.append_log(self._id, data)

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Until it has ended; whether it was stopped on request."""
        while True:
            try:
                process.wait(POLL_S)
                return False
            except subprocess.TimeoutExpired:
                if self._table.is_asked_to_stop(self._id):
                    break
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
            try:
                os.killpg(process.pid, number)
                process.wait(patience)
                break
            except ProcessLookupError:
                process.wait()
                break
            except subprocess.TimeoutExpired:
                continue
        return True

    def _conclude(self, code: int, stopped: bool) -> None:
        if stopped:
            self._end(submissions.STOPPED, "Job was intentionally stopped.", "", code)
        elif code == 0:
            self._end(submissions.SUCCEEDED, "Job finished successfully.", "", code)
        else:
            tail = "".join(self._tail)[-_TAIL:]
            text = f"Job entrypoint command failed with exit code {code}, last available logs:\n{tail}"
            self._end(submissions.FAILED, text, "JOB_ENTRYPOINT_COMMAND_ERROR", code)

    def _end(self, state: str, message: str, error: str, code: int | None = None) -> None:
        said = {"state": state, "ended": now_ms(), "message": message, "error": error}
        self._table.update(self._id, **said, **({"exit_code": code} if code is not None else {}))


def _die_with_parent() -> None:
    """In the new process: nobody would see what a command does whose supervisor was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Session:
    """The worker's own connection for questions, and for these answers."""

    def __init__(self, session: Any) -> None:
        self._query = session.query

    def call(self, *command: Any) -> Any:
        return self._query([command])[0]

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = self._query(commands) if commands else []
        return replies
