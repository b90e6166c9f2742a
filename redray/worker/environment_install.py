"""pip and uv: a virtual environment that sees what the node has installed, and has its own packages before that."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from redray.worker.environment_cache import SetupFailed
from redray.worker.template_process import die_with_parent

TAIL_LINES = 20
_WORKING_DIR = ("${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}", "${REDRAY_RUNTIME_ENV_CREATE_WORKING_DIR}")
_INHERITED = "_redray_inherited.pth"
_QUIET = ("--disable-pip-version-check", "--no-input")


class Installation:
    """What `pip` or `uv` of an environment asks for."""

    def __init__(self, env: Mapping[str, Any], environ: Mapping[str, str], working_dir: Path | None) -> None:
        """`environ` is the environment of the installer: it may name an index."""
        self._tool = "uv" if "uv" in env else "pip"
        self._wanted: Mapping[str, Any] = env[self._tool]
        self._environ = dict(environ)
        self._working_dir = str(working_dir or os.getcwd())
        self._log = Path()
        self._deadline = float("inf")

    def name(self) -> str:
        """The same for what gives the same."""
        relevant = {name: value for name, value in self._environ.items() if name.startswith(("PIP_", "UV_"))}
        local = any(_is_local(requirement) for requirement in self._wanted["packages"])
        facts = [self._wanted, relevant, self._working_dir if local else "", sys.prefix, sys.version]
        text = json.dumps(facts, sort_keys=True, default=str)
        return f"{self._tool}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def make(self, directory: Path, timeout: float) -> None:
        """Raises SetupFailed with the end of the installer's log."""
        self._log = directory / "log.txt"
        self._deadline = time.monotonic() + timeout
        requirements = directory / "requirements.txt"
        requirements.write_text("\n".join(map(self._expanded, self._wanted["packages"])) + "\n")
        self._make_venv(directory)
        options = self._wanted.get("uv_pip_install_options" if self._tool == "uv" else "pip_install_options", [])
        self._run([*self._command(directory, "install"), *options, "-r", str(requirements)])
        if self._wanted.get(f"{self._tool}_check"):
            self._run(self._command(directory, "check"))

    # ---- steps -------------------------------------------------------------------------------------------------------
    def _make_venv(self, directory: Path) -> None:
        pip = [] if self._needs_own_pip() else ["--without-pip"]
        self._run([sys.executable, "-m", "venv", *pip, str(directory)])
        inherited = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        home = str(Path(__file__).parents[2])  # redray, where it is not installed but on the path
        (site_packages(directory) / _INHERITED).write_text("\n".join([*inherited, home]) + "\n")

    def _needs_own_pip(self) -> bool:
        """Else the node's installs for this interpreter, which saves the seconds that installing pip takes."""
        return "pip_version" in self._wanted or "uv_version" in self._wanted or importlib.util.find_spec("pip") is None

    def _command(self, directory: Path, verb: str) -> list[str]:
        python = str(directory / "bin" / "python")
        if self._tool == "uv":
            return [self._uv(directory), "pip", verb, "--python", python]
        if not self._needs_own_pip():
            return [sys.executable, "-m", "pip", *_QUIET, "--python", python, verb]
        if "pip_version" in self._wanted:
            self._run([python, "-m", "pip", *_QUIET, "install", f"pip{self._wanted['pip_version']}"])
        return [python, "-m", "pip", *_QUIET, verb]

    def _uv(self, directory: Path) -> str:
        if "uv_version" in self._wanted:
            python = str(directory / "bin" / "python")
            self._run([python, "-m", "pip", *_QUIET, "install", f"uv{self._wanted['uv_version']}"])
            return str(directory / "bin" / "uv")
        program = shutil.which("uv", path=self._environ.get("PATH"))
        if program is None:
            raise SetupFailed("runtime_env['uv'] needs the program uv, which this node does not have: pip install uv")
        return program

    def _expanded(self, requirement: str) -> str:
        for name in _WORKING_DIR:
            requirement = requirement.replace(name, self._working_dir)
        return requirement

    def _run(self, command: Sequence[str]) -> None:
        """No shell: what the user wrote are arguments."""
        what = " ".join(command[:6])
        with open(self._log, "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            try:
                process = subprocess.Popen(
                    command, cwd=self._working_dir, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()),
                )  # fmt: skip
            except OSError as error:
                raise SetupFailed(f"{command[0]} cannot be run: {error.strerror}.") from error
        try:
            code = process.wait(None if self._deadline == float("inf") else self._deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code is None:
            raise SetupFailed(f"{what} took longer than setup_timeout_seconds. Its log ends:\n{self._tail()}")
        if code:
            raise SetupFailed(f"{what} failed with exit code {code}. Its log ends:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def _is_local(requirement: str) -> bool:
    """Whether it means something else in another directory."""
    return requirement.startswith((".", "-")) or "$" in requirement or "./" in requirement


def site_packages(directory: Path) -> Path:
    base = {"base": str(directory), "platbase": str(directory)}
    return Path(sysconfig.get_path("purelib", "posix_prefix", vars=base))


def enter(directory: Path) -> None:
    """This process uses what is installed there. What it has imported by now stays what it is."""
    import site

    before = set(sys.path)
    site.addsitedir(str(site_packages(directory)))
    added = [path for path in sys.path if path not in before]
    sys.path[:] = added + [path for path in sys.path if path in before]
    importlib.invalidate_caches()
    os.environ["VIRTUAL_ENV"] = str(directory)
    os.environ["PATH"] = os.pathsep.join([str(directory / "bin"), os.environ.get("PATH", os.defpath)])
    sys.executable = str(directory / "bin" / "python")
