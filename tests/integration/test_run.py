"""`redray run`: a program starts as with `python`, and `import ray` means redray, in it and in its workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.helpers import PATIENCE, REPOSITORY, wait_until

PROBE = """
import sys
def fail():
    raise ValueError("on purpose")
if __name__ == "__main__":
    print(sys.argv, sys.path[0], len(sys.path), __file__, __spec__ and __spec__.name, repr(__package__), __doc__)
    print(sorted(globals()), type(__loader__).__name__, type(__builtins__).__name__, __cached__)
    print(sys.modules["__main__"].__dict__ is globals(), __annotations__)
    print(*([1, 2, 3][index] for index in range(int(sys.argv[1]))), flush=True)
    if sys.argv[2:] != ["fine"]:
        fail()
"""

# What stands in for an installed Ray: whoever loads it has lost.
REAL_RAY = "raise SystemExit('Ray itself was imported')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("probe.py", "package/__main__.py", "package/module.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PROBE)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "no_main").mkdir()
    (tmp_path / "broken.py").write_text("x = (\n")
    (tmp_path / "raises").mkdir()
    (tmp_path / "raises" / "__init__.py").write_text("import not_there_at_all")
    (tmp_path / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n".encode("latin-1"))
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    (tmp_path / "exits_with_text.py").write_text("raise SystemExit('enough')\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "package" / "module.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", PROBE)
    return tmp_path


def python(folder: Path, *arguments: str) -> CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
    )


def run(folder: Path, *arguments: str) -> CompletedProcess[str]:
    return python(folder, "-m", "redray.cli", "run", *arguments)


@pytest.mark.parametrize(
    "command",
    [
        "probe.py 3 fine",
        "probe.py 2 -m --help -- -x",
        "./package/../probe.py 1",
        "link.py 1",
        "-m package 3 --version",
        "-m package.module 1 fine",
        "package 2 fine",
        "package 2",
        "archive.zip 1 fine",
        "broken.py",
        "latin.py",
        "exits.py 0",
        "exits.py 7",
        "exits_with_text.py",
        "-m raises",
    ],
)
def test_a_program_starts_as_with_python(folder: Path, command: str) -> None:
    words = command.split()
    expected, seen = python(folder, *words), run(folder, *words)
    assert (seen.stdout, seen.returncode) == (expected.stdout, expected.returncode)
    assert _of_the_program(seen.stderr) == _of_the_program(expected.stderr)


def _of_the_program(trace: str) -> list[str]:
    """Without the interpreter's own frames: how it found the module to run."""
    lines = trace.splitlines()
    return [line for line in lines if not re.match(r'(  File "<frozen |.*Error while finding module)', line)]


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("nothing.py", 2, "can't open file '.*/nothing.py': .Errno 2. No such file or directory"),
        ("-m nothing", 1, "No module named nothing"),
        ("-m package.nothing", 1, "No module named package.nothing"),
        ("no_main", 1, "can't find '__main__' module in 'no_main'"),
        ("-m no_main", 1, "No module named no_main.__main__"),
        ("", 2, "Which program. Name its file, or a module behind -m. See 'redray run --help'."),
    ],
)
def test_a_program_that_is_not_there(folder: Path, command: str, code: int, sentence: str) -> None:
    done = run(folder, *command.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert re.fullmatch(f"redray: {sentence}\n", done.stderr), done.stderr


def test_ctrl_c_ends_a_program_as_it_ends_python(folder: Path) -> None:
    (folder / "waits.py").write_text("import time, pathlib\npathlib.Path('up').touch()\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "redray.cli", "run", "waits.py"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((folder / "up").exists, what="the program to run")
        process.send_signal(signal.SIGINT)
        _, trace = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert trace.splitlines()[0] == "Traceback (most recent call last):"
    assert trace.splitlines()[-1] == "KeyboardInterrupt"
    assert "waits.py" in trace and "redray" not in trace


PROGRAM = """
import pickle
import sys
import ray
import ray.util.queue
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.util import ActorPool
from ray.util.queue import Queue
import helper

ray.init(num_cpus=2)

@ray.remote
def inside():
    import ray.util.queue as again   # a worker's own import
    from ray.exceptions import RayTaskError as same
    assert again.Queue is Queue and same is RayTaskError
    return ray.__name__, sys.modules["ray"].__spec__.name

@ray.remote
def fails(error):
    raise error

@ray.remote
class Pool:
    def sums(self, numbers):
        pool = ActorPool([helper.Adder.remote() for _ in range(2)])
        return list(pool.map(lambda adder, number: adder.add.remote(number), numbers))

@ray.remote
def catches():
    try:
        ray.get(fails.remote(KeyError("k")))
    except ray.exceptions.RayTaskError as error:
        return isinstance(error, KeyError)

print(ray.get(inside.remote()))
print(ray.get(catches.remote()))
print(ray.get(Pool.remote().sums.remote([1, 2, 3])))
print(ray.get(ray.remote(helper.by_reference).remote(5)))
ref = ray.put("kept")
print(ray.get(pickle.loads(pickle.dumps(ref))), pickle.loads(pickle.dumps(ref.task_id())) == ref.task_id())
try:
    ray.get(ray.remote(lambda: __import__("time").sleep(60)).remote(), timeout=0)
except GetTimeoutError as error:
    print(type(error).__name__)
queue = Queue()
queue.put(ray.ObjectRef)
print(queue.get() is ray.ObjectRef, ray.util.queue is sys.modules["ray.util.queue"])
for name in ("ray.rllib.nothing", "ray.no_such_part"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error.name, "stands in for ray and has no 'redray." in str(error))
"""

HELPER = """
import ray

@ray.remote
class Adder:
    def add(self, number):
        return number + 1

@ray.remote
def double(number):
    return 2 * number

def by_reference(number):
    return ray.get(double.remote(number))
"""


@pytest.fixture
def ray_program(folder: Path) -> Path:
    """Beside it lies a package named ray, as if Ray were installed."""
    (folder / "ray").mkdir()
    (folder / "ray" / "__init__.py").write_text(REAL_RAY)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "helper.py").write_text(HELPER)
    return folder


def test_import_ray_means_redray_in_the_driver_and_in_every_worker(ray_program: Path) -> None:
    done = run(ray_program, "program.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "('redray', 'redray')",
        "True",
        "[2, 3, 4]",
        "10",
        "kept True",
        "GetTimeoutError",
        "True True",
        "ray.rllib True",
        "ray.no_such_part True",
    ]
    assert (ray_program / "program.py").read_text() == PROGRAM


def test_without_redray_run_ray_is_ray(ray_program: Path) -> None:
    """The hook is the job's: it does not follow workers or programs that never asked for it."""
    done = python(ray_program, "program.py")
    assert (done.returncode, done.stderr) == (1, "Ray itself was imported\n")
    (ray_program / "plain.py").write_text(
        "import redray\n"
        "redray.init(num_cpus=1)\n"
        "def sees():\n"
        "    import sys\n"
        "    return any(type(finder).__name__ == 'RayAlias' for finder in sys.meta_path)\n"
        "print(redray.get(redray.remote(sees).remote()))\n"
    )
    done = python(ray_program, "plain.py")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_a_loaded_ray_is_not_replaced(folder: Path) -> None:
    (folder / "ray.py").write_text("")
    program = "import ray\nfrom redray import ray_alias\nray_alias.install()\n"
    (folder / "late.py").write_text(program)
    done = python(folder, "late.py")
    assert done.returncode == 1
    assert re.search(
        "RuntimeError: `import ray` cannot mean redray here: Ray itself is loaded, from .*ray.py", done.stderr
    )


def test_what_a_module_misses_is_named_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of redray that needs what is not installed says so; it does not claim that redray lacks the part."""
    from redray import ray_alias

    def misses(name: str) -> None:
        raise ModuleNotFoundError("No module named 'joblib'", name="joblib")

    monkeypatch.setattr(ray_alias.importlib, "import_module", misses)
    with pytest.raises(ModuleNotFoundError, match="^No module named 'joblib'$"):
        ray_alias.RayAlias().find_spec("ray.util.joblib")
