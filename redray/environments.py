"""A session and its runtime environments: its own, and those of what it submits.

An environment travels as text: JSON, its keys sorted, with local files replaced by the names of uploaded packages. The
text is also its identity: a worker process serves one job and one text. "" stands for the environment of the job, so
that tasks of a job that says nothing of environments carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redray.exceptions import RuntimeEnvSetupError
from redray.gcs import packages as table
from redray.gcs.address import Address
from redray.gcs.check import scripts_for
from redray.gcs.client import Connection, ReplyError
from redray.gcs.keys import Keys
from redray.ids import JobID, WorkerID
from redray.runtime_env import RuntimeEnv, merged
from redray.runtime_env_checks import PACKAGE_SCHEME
from redray.values import Values

if TYPE_CHECKING:
    from redray.packages import Package

MOST_TEXT = 64 * 1024  # bytes: it travels with each task


Travelling = tuple[dict[str, Any], "list[Package]"]


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

    def _environment_for(self, wanted: RuntimeEnv | None) -> str:
        """The text for a task or actor whose options ask for `wanted`. Uploads what that needs."""
        if not wanted:
            return self._own_text
        job = self.job_id.hex()
        if wanted.prepared is None or wanted.prepared[:2] != (self.token, job):
            wanted.prepared = (self.token, job, self._prepared_text(wanted, job))
        return wanted.prepared[2]

    def _prepared_text(self, wanted: RuntimeEnv, job: str) -> str:
        env, packages = travelling(wanted)
        self._upload_packages(packages, job)
        text = text_of(merged(self._own, env))
        return "" if job == self.job_id.hex() and text == text_of(self._job_env) else text

    # ---- packages ----------------------------------------------------------------------------------------------------
    def _upload_packages(self, packages: list[Package], job: str) -> None:
        """Behind what was said before, so that the job is known; and done when this returns, so ahead of what follows.

        Raises RuntimeEnvSetupError if Redis has no room, or the job has ended.
        """
        for package in packages:
            with self._lock:
                self._flush_batch()
                number = self._call(table.begin(package.id, job, package.size), wants_reply=True)
                self._send_out()
            reply = self._await_reply(number)
            if reply[0] != "OK":
                raise RuntimeEnvSetupError(f"The package {package.id} was not uploaded: {reply[0]}.")
            if int(reply[1]) < table.parts_of(package.size):
                self._write_parts(package, int(reply[1]))
            package.file.close()

    def _write_parts(self, package: Package, first: int) -> None:
        connection = Connection.open(self._address, 5.0, f"redray-upload-{self._worker[:8]}")
        try:
            scripts = scripts_for(connection, self._keys.tag)
            package.file.seek(first * table.PART)
            for index in range(first, table.parts_of(package.size)):
                command = table.write(self._keys, package.id, index, package.file.read(table.PART))
                reply = connection.run(scripts[command.verb], command.keys, command.args, 30.0)
                if reply[0] != b"OK":
                    raise RuntimeEnvSetupError(f"The package {package.id} was not uploaded: {reply[0].decode()}.")
        except ReplyError as error:
            text = f"Redis refused the package {package.id} ({package.size / 2**20:.1f} MiB): {error}"
            raise RuntimeEnvSetupError(text) from error
        finally:
            connection.close()


def travelling(env: Mapping[str, Any]) -> Travelling:
    """As JSON can carry it: files as names of packages, which are to be uploaded, and a function as its pickle."""
    found, packages = _with_packages(env)
    hook = found.get("worker_process_setup_hook")
    if hook is not None and not isinstance(hook, (str, Mapping)):
        import base64

        from redray import cloudpickle

        pickled = base64.b64encode(cloudpickle.dumps(hook)).decode()
        found["worker_process_setup_hook"] = {"name": getattr(hook, "__name__", repr(hook)), "pickled": pickled}
    return found, packages


def _with_packages(env: Mapping[str, Any]) -> tuple[dict[str, Any], list[Package]]:
    """Raises RuntimeEnvSetupError for files that are too large or cannot be read."""
    found = {name: value for name, value in env.items() if name != "excludes"}
    if not ("working_dir" in found or "py_modules" in found):
        return found, []
    from redray.packages import packed

    excludes = env.get("excludes") or []
    packages: list[Package] = []

    def named(path: str, with_parent: bool) -> str:
        if path.startswith(PACKAGE_SCHEME):
            return path
        packages.append(packed(path, excludes, with_parent))
        return packages[-1].uri

    if "working_dir" in found:
        found["working_dir"] = named(found["working_dir"], with_parent=False)
    if "py_modules" in found:
        found["py_modules"] = [named(path, with_parent=True) for path in found["py_modules"]]
    return found, packages


def package_ids(env: Mapping[str, Any]) -> list[str]:
    """Of the uploaded packages that an environment names."""
    uris = [*filter(None, [env.get("working_dir")]), *env.get("py_modules", ())]
    if not uris:
        return []
    from redray.packages import id_of

    return [id_of(uri) for uri in uris]


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
