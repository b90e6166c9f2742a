"""Packages that an environment installs. No network: wheels are made here, by hand."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import redray as ray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]

OFFLINE = ["--no-index", "--no-deps"]


def make_wheel(folder: Path, name: str, version: str, source: str) -> str:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(inside, text)
    return str(path)


def pip(*packages: str, **more: Any) -> dict[str, Any]:
    return {"pip": {"packages": list(packages), "pip_install_options": OFFLINE, **more}}


@ray.remote
def attribute(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(module), name)


@ray.remote
class Importer:
    def attribute(self, module: str, name: str) -> Any:
        import importlib

        return getattr(importlib.import_module(module), name)


def test_pip_installs_for_its_environment_only(tmp_path: Path) -> None:
    asked = attribute.options(runtime_env=pip(make_wheel(tmp_path, "tiny_package", "1.0", "ANSWER = 1\n")))
    assert ray.get([asked.remote("tiny_package", "ANSWER") for _ in range(4)]) == [1] * 4
    with pytest.raises(ModuleNotFoundError):
        ray.get(attribute.remote("tiny_package", "ANSWER"))


def test_two_versions_side_by_side(tmp_path: Path) -> None:
    one, two = (pip(make_wheel(tmp_path, "tiny_package", f"{i}.0", f"ANSWER = {i}\n")) for i in (1, 2))
    task = attribute.options(runtime_env=one).remote("tiny_package", "ANSWER")
    actor = Importer.options(runtime_env=two).remote()
    assert ray.get([task, actor.attribute.remote("tiny_package", "ANSWER")]) == [1, 2]


def test_what_the_node_has_is_there_too_and_can_be_replaced(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "colorama_of_mine", "1.0", "ANSWER = 1\n")
    other = make_wheel(tmp_path, "pathspec", "999.0", "ANSWER = 2\n")

    @ray.remote(runtime_env=pip(wheel, other))
    def both() -> tuple[Any, ...]:
        import colorama_of_mine  # type: ignore[import-not-found]
        import numpy
        import pathspec

        return colorama_of_mine.ANSWER, pathspec.ANSWER, int(numpy.arange(3).sum())  # type: ignore[attr-defined]

    assert ray.get(both.remote()) == (1, 2, 3)


def test_programs_of_the_environment_are_found(tmp_path: Path) -> None:
    @ray.remote(runtime_env=pip(make_wheel(tmp_path, "tiny_package", "1.0", "ANSWER = 1\n")))
    def run() -> str:
        import subprocess

        code = "import tiny_package, redray; print(tiny_package.ANSWER)"
        found = [
            subprocess.run([python, "-c", code], capture_output=True, text=True)
            for python in (sys.executable, "python")
        ]
        return "".join(each.stdout + each.stderr for each in found)

    assert ray.get(run.remote()) == "1\n1\n"


def test_it_is_installed_once_for_all_workers_of_a_node(tmp_path: Path) -> None:
    @ray.remote(runtime_env=pip(make_wheel(tmp_path, "tiny_package", "1.0", "ANSWER = 1\n")))
    class Where:
        def file(self) -> str:
            import tiny_package  # type: ignore[import-not-found]

            return str(tiny_package.__file__)

    actors = [Where.remote() for _ in range(6)]
    assert len(set(ray.get([actor.file.remote() for actor in actors]))) <= len(ray.nodes())


def test_a_failed_installation_fails_its_tasks_with_the_log() -> None:
    asked = attribute.options(runtime_env=pip("no-such-package-of-mine"))
    for _ in range(2):
        with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="no-such-package-of-mine") as caught:
            ray.get(asked.remote("os", "name"))
        assert "Failed to set up" in str(caught.value) and "exit code 1" in str(caught.value)
    actor = Importer.options(runtime_env=pip("no-such-package-of-mine")).remote()
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="no-such-package-of-mine"):
        ray.get(actor.attribute.remote("os", "name"))
    assert ray.get(attribute.remote("os", "name")) == os.name


def test_an_installation_has_its_time(tmp_path: Path) -> None:
    """A source package whose setup.py never ends."""
    (tmp_path / "setup.py").write_text("import time\ntime.sleep(1000)\n")
    options = ["--no-index", "--no-build-isolation"]
    env = {"pip": {"packages": [str(tmp_path)], "pip_install_options": options}, "config": {"setup_timeout_seconds": 3}}
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="setup_timeout_seconds"):
        ray.get(attribute.options(runtime_env=env).remote("os", "name"))


def test_pip_check_finds_what_is_missing(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "needy", "1.0\nRequires-Dist: no-such-package-of-mine", "")
    renamed = tmp_path / "needy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(renamed, "w") as target:
        for name in source.namelist():
            target.writestr(name.replace("\nRequires-Dist: no-such-package-of-mine", ""), source.read(name))
    assert ray.get(attribute.options(runtime_env=pip(str(renamed))).remote("needy", "__name__")) == "needy"
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="no-such-package-of-mine"):
        ray.get(attribute.options(runtime_env=pip(str(renamed), pip_check=True)).remote("needy", "__name__"))


def test_a_requirements_file(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "from_a_file", "1.0", "ANSWER = 1\n")
    (tmp_path / "requirements.txt").write_text(f"# offline\n--no-index\n{wheel}\n")
    env = {"pip": str(tmp_path / "requirements.txt")}
    assert ray.get(attribute.options(runtime_env=env).remote("from_a_file", "ANSWER")) == 1


def test_requirements_in_the_working_dir(tmp_path: Path) -> None:
    make_wheel(tmp_path, "beside_the_code", "1.0", "ANSWER = 1\n")
    for place in ("./", "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/"):
        env = {"working_dir": str(tmp_path), **pip(f"{place}beside_the_code-1.0-py3-none-any.whl")}
        assert ray.get(attribute.options(runtime_env=env).remote("beside_the_code", "ANSWER")) == 1


@pytest.mark.skipif(shutil.which("uv") is not None, reason="uv is installed")
def test_uv_that_is_not_there_is_named() -> None:
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="needs the program uv"):
        ray.get(attribute.options(runtime_env={"uv": ["x"]}).remote("os", "name"))


def test_uv_installs(tmp_path: Path) -> None:
    """A stand-in for uv, where there is none: it is called as uv is."""
    wheel = make_wheel(tmp_path, "by_uv", "1.0", "ANSWER = 1\n")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "uv").write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "pip install --python" ] || exit 9\npython=$4; shift 4\n'
        f'exec {sys.executable} -m pip --python "$python" install "$@"\n'
    )
    (bin / "uv").chmod(0o755)
    env = {
        "uv": {"packages": [wheel], "uv_pip_install_options": OFFLINE},
        "env_vars": {"PATH": f"{bin}:${{PATH}}"},
    }
    assert ray.get(attribute.options(runtime_env=env).remote("by_uv", "ANSWER")) == 1
