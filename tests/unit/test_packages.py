"""Local files as packages: the same files, the same bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from redray import packages
from redray.exceptions import RuntimeEnvSetupError


def write(root: Path, names: list[str]) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return str(root)


def content(root: str, *excludes: str, with_parent: bool = False) -> list[str]:
    package = packages.packed(root, excludes, with_parent)
    with package.file as file, zipfile.ZipFile(file) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def id_of(root: str) -> str:
    package = packages.packed(root)
    package.file.close()
    return package.id


def test_the_same_files_have_the_same_name_whenever_and_wherever(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", ["b", "a/c"]), write(tmp_path / "other", ["a/c", "b"])
    os.utime(tmp_path / "one" / "b", (0, 0))
    assert id_of(one) == id_of(other)
    (tmp_path / "one" / "b").write_text("changed")
    assert id_of(one) != id_of(other)


def test_being_a_program_is_content(tmp_path: Path) -> None:
    root = write(tmp_path, ["a"])
    before = id_of(root)
    (tmp_path / "a").chmod(0o755)
    assert id_of(root) != before


def test_a_name_leads_back_to_its_package(tmp_path: Path) -> None:
    package = packages.packed(write(tmp_path, ["a"]))
    package.file.close()
    assert package.uri.startswith("gcs://") and packages.id_of(package.uri) == package.id
    for other in ("gcs://x.zip", "https://example.com/x.zip", package.uri + "/..", package.uri.upper()):
        with pytest.raises(ValueError, match="not the name"):
            packages.id_of(other)


def test_with_parent_entries_begin_with_the_directory(tmp_path: Path) -> None:
    assert content(write(tmp_path / "module", ["__init__.py"]), with_parent=True) == ["module/__init__.py"]


def test_ignore_files_rule_below_themselves(tmp_path: Path) -> None:
    root = write(tmp_path, ["a.log", "kept.log", "sub/b.log", "sub/c.tmp", "d.tmp", "deep/er/x"])
    (tmp_path / ".gitignore").write_text("*.log\n!kept.log\ndeep/*\n")
    (tmp_path / "sub" / ".gitignore").write_text("*.tmp\n")
    assert [name for name in content(root) if "ignore" not in name] == ["d.tmp", "kept.log"]


def test_the_default_excludes_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, [".git/config", "venv/x", "a"])
    assert content(root) == ["a"]
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "venv")
    assert content(root) == [".git/config", "a"]
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")
    assert content(root) == [".git/config", "a", "venv/x"]


def test_sockets_and_pipes_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert content(write(tmp_path, ["a"])) == ["a"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.whl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RuntimeEnvSetupError, match=r"x\.whl cannot be packed"):
        packages.packed(str(tmp_path / "x.whl"))
