"""What is in the repository is what a user gets: packages, scripts and markers, in each way of installing."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LUA = {path.relative_to(ROOT / "lua").as_posix() for path in (ROOT / "lua").rglob("*.lua")}


@pytest.fixture(autouse=True)
def scripts_exist() -> None:
    assert LUA, "a comparison with no scripts at all proves nothing"


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed(metadata: configparser.ConfigParser) -> None:
    listed = set(metadata["options"]["packages"].split())
    present = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "redray").rglob("__init__.py")}
    assert listed == present | {"redray.lua"}


def test_the_library_imports_only_what_it_declares(metadata: configparser.ConfigParser) -> None:
    extras = metadata["options.extras_require"]
    optional = extras["joblib"] + extras["spill"]  # imported on request alone
    declared = {
        re.split(r"[^\w-]", line.strip())[0]
        for line in (metadata["options"]["install_requires"] + optional).splitlines()
        if line.strip() and not line.strip().startswith("#")
    }
    modules = set()
    for path in (ROOT / "redray").rglob("*.py"):
        modules |= set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    only_for_type_checkers = {"mypy", "typing_extensions"}
    foreign = modules - set(sys.stdlib_module_names) - {"redray"} - only_for_type_checkers
    assert foreign <= declared


def test_make_and_ci_agree() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "types", "bench", "chaos", "docs"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} is gone"
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that a build leaves nothing behind in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("redray", "lua"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(source: Path, kind: str, where: Path) -> Path:
    """Call one hook of PEP 517, as pip does, but with the setuptools that is here: no network."""
    hook = f"import setuptools.build_meta as backend, sys; print(backend.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", hook, str(where)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return where / done.stdout.split()[-1]


def find_scripts(site: Path, elsewhere: Path) -> set[str]:
    """Ask a Python that sees only `site` (and the dependencies) which scripts an installed redray can read."""
    program = (
        "import site, sys; sys.path.append(sys.argv[2]); site.addsitedir(sys.argv[1])\n"
        "from redray.gcs import scripts\n"
        "from pathlib import Path\n"
        "root = Path(scripts.find_directory())\n"
        "print(*sorted(path.relative_to(root).as_posix() for path in root.rglob('*.lua')))"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(site), sysconfig.get_path("purelib")]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_wheel_carries_the_scripts(source: Path, tmp_path: Path) -> None:
    wheel = build(source, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {name.removeprefix("redray/lua/") for name in names if name.endswith(".lua")} == LUA
    assert "redray/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "lua/", "benchmarks/"))]
    assert find_scripts(tmp_path / "site", tmp_path) == LUA


def test_sdist_builds_the_same_wheel(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "sdist", tmp_path)) as archive:
        # Python 3.12 and later want the filter named; 3.10 and early patches of 3.11 do not know it.
        archive.extractall(tmp_path / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(build(unpacked, "wheel", tmp_path / "wheels")) as archive:
        assert {name.removeprefix("redray/lua/") for name in archive.namelist() if name.endswith(".lua")} == LUA


def test_editable_install_reads_the_scripts_of_the_checkout(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(source, "editable", tmp_path)) as archive:
        archive.extractall(tmp_path / "site")
    assert find_scripts(tmp_path / "site", tmp_path) == LUA
