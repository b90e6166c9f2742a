"""Files of runtime environments: working_dir and py_modules."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.gcs.client import Connection
from redray.gcs.keys import Keys
from redray.packages import packed
from tests.helpers import run_driver, wait_until

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.differs_from_ray(
        "tasks and actors may have local files of their own, where Ray takes them in init only"
    ),
]


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@ray.remote
def listing() -> list[str]:
    return sorted(os.path.relpath(os.path.join(folder, name)) for folder, _, names in os.walk(".") for name in names)


@ray.remote
def read(name: str) -> str:
    with open(name) as file:
        return file.read()


@ray.remote
def attribute(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(module), name)


def test_a_working_dir_is_where_a_task_runs_and_what_it_imports(tmp_path: Path) -> None:
    env = {"working_dir": write(tmp_path, {"data/x.txt": "hello", "my_own_module.py": "ANSWER = 42\n"})}
    assert ray.get(read.options(runtime_env=env).remote("data/x.txt")) == "hello"
    assert ray.get(attribute.options(runtime_env=env).remote("my_own_module", "ANSWER")) == 42
    with pytest.raises(FileNotFoundError):
        ray.get(read.remote("data/x.txt"))


def test_an_actor_runs_in_its_working_dir(tmp_path: Path) -> None:
    @ray.remote(runtime_env={"working_dir": write(tmp_path, {"x.txt": "hello"})})
    class Reader:
        def read(self) -> str:
            return Path("x.txt").read_text()

        def by_a_task(self) -> str:
            return str(ray.get(read.remote("x.txt")))

    reader = Reader.remote()
    assert ray.get([reader.read.remote(), reader.by_a_task.remote()]) == ["hello"] * 2


def test_the_workers_have_a_copy(tmp_path: Path) -> None:
    """What the driver changes later, and what a task writes, stays where it is."""
    env = {"working_dir": write(tmp_path, {"x.txt": "first"})}
    reading = read.options(runtime_env=env)
    assert ray.get(reading.remote("x.txt")) == "first"
    write(tmp_path, {"x.txt": "second"})
    assert ray.get(reading.remote("x.txt")) == "first"
    assert ray.get(read.options(runtime_env=env).remote("x.txt")) == "second", "a new environment is packed anew"
    assert ray.get(attribute.options(runtime_env=env).remote("os", "path")) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt"]


def test_what_is_excluded_stays_out(tmp_path: Path) -> None:
    files = [
        "kept.py", "a/kept.txt", "a/dropped.log", "a/b/dropped.tmp", "a/b/kept.tmp.txt", "big/x.bin", "rooted.txt",
        "a/rooted.txt",        ".git/config", ".venv/x", "venv/x", "__pycache__/x.pyc", "a/__pycache__/x.pyc",
    ]  # fmt: skip
    write(tmp_path, dict.fromkeys(files, "x"))
    write(tmp_path, {".gitignore": "*.log\n/rooted.txt\n", "a/b/.gitignore": "*.tmp\n", ".rayignore": "big/\n"})
    write(tmp_path, {"secret.key": "x", "a/secret.key": "x", "kept.key": "x"})
    env = {"working_dir": str(tmp_path), "excludes": ["*.key", "!kept.key"]}
    expected = [
        ".gitignore",
        ".rayignore",
        "a/b/.gitignore",
        "a/b/kept.tmp.txt",
        "a/kept.txt",
        "a/rooted.txt",
        "kept.key",
        "kept.py",
    ]
    assert ray.get(listing.options(runtime_env=env).remote()) == sorted(expected)


def test_a_zip_file_as_working_dir(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("inside/x.txt", "hello")
    assert ray.get(read.options(runtime_env={"working_dir": str(tmp_path / "x.zip")}).remote("inside/x.txt")) == "hello"


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/redray-outside.txt", "a/../../outside.txt", "a\\..\\x.txt"])
def test_a_zip_file_that_leads_out_of_its_directory_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="leads out of it"):
        ray.get(listing.options(runtime_env={"working_dir": str(tmp_path / "x.zip")}).remote())


def test_a_link_in_a_zip_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
        archive.writestr("link/passwd", "x")
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="no file or directory"):
        ray.get(listing.options(runtime_env={"working_dir": str(tmp_path / "x.zip")}).remote())


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "there", {"x.txt": "hello"})
    write(tmp_path / "here", {"y.txt": "y"})
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "circle").symlink_to(tmp_path / "here")
    found = ray.get(listing.options(runtime_env={"working_dir": str(tmp_path / "here")}).remote())
    assert found == ["link/x.txt", "y.txt"]


def test_programs_stay_executable(tmp_path: Path) -> None:
    write(tmp_path, {"run.sh": "#!/bin/sh\necho hello\n"})
    (tmp_path / "run.sh").chmod(0o755)

    @ray.remote(runtime_env={"working_dir": str(tmp_path)})
    def run() -> str:
        import subprocess

        return subprocess.run(["./run.sh"], capture_output=True, text=True, check=True).stdout

    assert ray.get(run.remote()) == "hello\n"


def test_modules_from_directories_files_and_wheels(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"package_of_mine/__init__.py": "", "package_of_mine/part.py": "ANSWER = 1\n", "single.py": "ANSWER = 2\n"},
    )
    with zipfile.ZipFile(tmp_path / "wheel_of_mine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("wheel_of_mine.py", "ANSWER = 3\n")
        wheel.writestr("wheel_of_mine-1.0.data/purelib/deep_in_the_wheel.py", "ANSWER = 4\n")
    names = ["package_of_mine", "single.py", "wheel_of_mine-1.0-py3-none-any.whl"]
    asked = attribute.options(runtime_env={"py_modules": [str(tmp_path / name) for name in names]})
    modules = ["package_of_mine.part", "single", "wheel_of_mine", "deep_in_the_wheel"]
    assert ray.get([asked.remote(module, "ANSWER") for module in modules]) == [1, 2, 3, 4]
    with pytest.raises(ModuleNotFoundError):
        ray.get(attribute.remote("single", "ANSWER"))


def test_a_module_that_was_imported_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"given_as_module/__init__.py": "ANSWER = 5\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    import given_as_module  # type: ignore[import-not-found]

    asked = attribute.options(runtime_env={"py_modules": [given_as_module]})
    monkeypatch.undo()
    assert ray.get(asked.remote("given_as_module", "ANSWER")) == 5


def test_too_large_a_package_is_an_error_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAY_PACKAGE_BYTES", "100000")
    (tmp_path / "x.bin").write_bytes(os.urandom(100_001))
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="exceeds the maximum size"):
        listing.options(runtime_env={"working_dir": str(tmp_path)}).remote()
    assert ray.get(listing.options(runtime_env={"working_dir": str(tmp_path), "excludes": ["x.bin"]}).remote()) == []


def test_a_package_of_many_parts_arrives_whole(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "x.bin").write_bytes(content)

    @ray.remote(runtime_env={"working_dir": str(tmp_path)})
    def content_of_it() -> bytes:
        return Path("x.bin").read_bytes()

    assert ray.get(content_of_it.remote()) == content


def test_a_package_that_was_tampered_with_is_not_unpacked(tmp_path: Path, address: str) -> None:
    """Whoever can write to Redis could run code here."""
    write(tmp_path, {"x.txt": os.urandom(8).hex()})
    package = packed(str(tmp_path))
    with package.file as file, contextlib.closing(Connection.open(address)) as connection:
        other = b"other" + file.read()[5:]
        connection.call("HSET", Keys().package(package.id), "parts", 1, "have", 1, "size", package.size, "0", other)
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="its content has another hash"):
        ray.get(listing.options(runtime_env={"working_dir": str(tmp_path)}).remote())


def test_packages_go_with_the_last_job_that_uses_them(tmp_path: Path, address: str) -> None:
    """A detached actor is a job of its own."""
    write(tmp_path / "files", {"x.txt": os.urandom(8).hex()})
    source = f"""
        import redray as ray
        ray.init(address={address!r}, namespace="files", runtime_env={{"working_dir": {str(tmp_path / "files")!r}}})
        @ray.remote(num_cpus=0)
        class Reader:
            def read(self):
                return open("x.txt").read()
        reader = Reader.options(name="reader", lifetime="detached").remote()
        print(ray.get(reader.read.remote()))
    """
    connection = Connection.open(address)
    before = set(connection.call("KEYS", Keys().package("*")))
    run_driver(tmp_path, source)
    reader = ray.get_actor("reader", namespace="files")
    kept = set(connection.call("KEYS", Keys().package("*"))) - before
    assert len(kept) == 1
    assert ray.get(reader.read.remote()) == (tmp_path / "files" / "x.txt").read_text()
    ray.kill(reader)
    wait_until(lambda: not kept & set(connection.call("KEYS", Keys().package("*"))), what="the package to be freed")
    connection.close()


def test_a_function_with_files_travels_without_them(tmp_path: Path) -> None:
    """It was checked in the driver; on the node that only passes it on, its files need not exist."""
    env = {"working_dir": write(tmp_path / "files", {"x.txt": "hello"}), "pip": str(tmp_path / "requirements.txt")}
    (tmp_path / "requirements.txt").write_text("redray-of-mine\n")

    @ray.remote(runtime_env=env)
    def with_files() -> None: ...

    @ray.remote
    def passes_it_on() -> str:
        return str(type(with_files).__name__)

    captured = passes_it_on.remote()
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "requirements.txt").unlink()
    assert ray.get([captured, passes_it_on.remote()]) == ["RemoteFunction"] * 2
