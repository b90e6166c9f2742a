"""The documentation is true: every code block is run here, every name in it exists, and what is generated is fresh."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import redray as ray
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.keys import FAMILIES, SINGLETONS, Keys
from redray.gcs.schema import TASK_MOVES
from tests.helpers import PATIENCE, REPOSITORY, Signal, wait_until
from tests.integration.redis_cli import formatted

DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("**/*.md")])
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
ROOTS = (REPOSITORY, REPOSITORY / "redray", REPOSITORY / "examples")  # what a file's name may be relative to
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text, name = page.read_text(), str(page.relative_to(REPOSITORY))
    return [Block(name, text.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
# A cookbook is one session: its commands are run in order, by `test_the_cookbook`.
SHELL = [block for block in BLOCKS if block.language in ("sh", "") and block.page != "docs/inspect.md"]


def ids(blocks: list[Block]) -> list[str]:
    return [block.id for block in blocks]


def test_every_block_is_of_a_kind_that_is_run_or_drawn() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "sh", "", "text", "mermaid"}


# ---- Python --------------------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sessions of this test live in a directory of their own."""
    ray.shutdown()
    directory = tmp_path_factory.mktemp("d") / "r"  # short: it holds sockets
    for name in ("REDRAY_ADDRESS", "RAY_ADDRESS", "REDRAY_REDIS_PASSWORD", "REDRAY_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDRAY_TEMP_DIR", str(directory))
    return directory


@pytest.mark.parametrize("block", PYTHON, ids=ids(PYTHON))
def test_python(block: Block, home: Path, tmp_path: Path) -> None:
    """It runs by itself, and prints what the comments behind its prints say."""
    program = tmp_path / "snippet.py"
    program.write_text(block.text)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    expected = re.findall(r"^\s*print\(.*\)\s+# (.+)$", block.text, re.MULTILINE)
    assert done.stdout.splitlines()[: len(expected)] == expected


# ---- the shell -----------------------------------------------------------------------------------------------------
def commands(block: Block) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("block", SHELL, ids=ids(SHELL))
def test_every_shell_command_exists(block: Block) -> None:
    for command in commands(block):
        check = _CHECKS.get(command[0])
        if check is None:
            assert block.language == "", f"{block.id}: nobody checks {' '.join(command)!r}"
        else:
            check(command[1:])


def _check_make(arguments: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    wanted = [word for word in arguments if "=" not in word]
    assert wanted and set(wanted) <= set(targets), f"the Makefile has no {wanted}"


def _check_python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "benchmarks"]:
        done = subprocess.run(
            [sys.executable, *arguments, "--list"], capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
    else:
        assert (REPOSITORY / arguments[0]).is_file(), arguments


def _check_redray(arguments: list[str]) -> None:
    """The command takes these options. `test_the_commands_of_a_cluster` runs those of the README."""
    known = _redray(arguments[0], "--help")
    for option in (word.partition("=")[0] for word in arguments if word.startswith("-")):
        assert option in known, f"redray {arguments[0]} knows no {option}"


def _check_compose(arguments: list[str]) -> None:
    services = re.findall(r"^  (\w+):$", (REPOSITORY / "docker-compose.yml").read_text(), re.MULTILINE)
    scaled = [word.partition("=")[0] for word in arguments if "=" in word]
    assert arguments[0] == "up" and set(scaled) <= set(services)


_CHECKS = {
    "make": _check_make,
    "python": _check_python,
    "redray": _check_redray,
    "docker-compose": _check_compose,
}


def test_the_commands_of_a_cluster(home: Path, request: pytest.FixtureRequest) -> None:
    """The README's own lines, in order: a head, a second node, its status, the end. Only the port is the test's."""
    lines = [command[1:] for block in blocks_of(REPOSITORY / "README.md") for command in _redray_commands(block)]
    assert [line[0] for line in lines] == ["start", "start", "status", "stop"]
    request.addfinalizer(lambda: _redray("stop", "--force"))
    first = _redray(*lines[0], "--port", "0", "--num-cpus", "1")
    address = re.search(r"Redis is at (\S+?)\.?$", first, re.MULTILINE)
    assert address, first
    _redray(*(address[1] if word == "HOST:PORT" else word for word in lines[1]), "--num-cpus", "1")
    wait_until(lambda: "0 of 2 CPU" in _redray(*lines[2]), what="two nodes in the status")
    _redray(*lines[3])


def _redray_commands(block: Block) -> list[list[str]]:
    return [command for command in commands(block) if block.language == "sh" and command[0] == "redray"]


def _redray(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "redray.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"redray {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


# ---- the cookbook --------------------------------------------------------------------------------------------------
@pytest.fixture
def tour(home: Path, tmp_path: Path) -> Iterator[Connection]:
    """The cluster that docs/inspect.md describes, with something of everything in it."""
    import numpy

    signal = Signal(tmp_path / "go")
    context = ray.init(num_cpus=2, namespace="demo", log_to_driver=False)
    address: str = context.address_info["address"]
    assert address.startswith(f"unix://{home}"), "another session would be shown"
    redis = Connection.open(Address.parse(address))
    try:
        kept = _fill(signal, numpy.zeros(100_000), redis)
        yield redis
        del kept
    finally:
        signal.set()
        redis.close()
        ray.shutdown()


def _fill(signal: Signal, array: Any, redis: Connection) -> list[Any]:
    """Returns the refs and handles that must live."""

    @ray.remote
    def slow() -> int:
        signal.wait()
        return 1

    @ray.remote
    def after(value: int) -> int:
        return value

    @ray.remote(num_cpus=0)
    class Counter:
        def add(self) -> int:
            print("hello from an actor")
            return 1

    keys = Keys()
    hits = Counter.options(name="hits").remote()
    assert ray.get(hits.add.remote(), timeout=PATIENCE) == 1
    wait_until(lambda: redis.call("EXISTS", keys.logs(redis.call("SRANDMEMBER", keys.jobs).decode())), what="a line")
    picky = Counter.options(name="picky", num_cpus=1, resources={"disk": 1}).remote()
    parked = picky.add.remote()
    big = ray.put(array)
    holder = ray.put([big])
    redis.call("HSET", keys.prefix + "tour", "list", holder.hex())

    @ray.remote(num_cpus=0)
    def answer() -> str:
        return "small"

    # Nobody waits for this one: so its value stays in the driver's inbox, to be seen there.
    said = answer.remote()
    wait_until(lambda: redis.call("HGET", keys.of_object(said.hex()), "state") == b"FINISHED", what="the answer")
    runs = [slow.remote() for _ in range(5)]
    rest = [after.remote(runs[-1]), slow.options(resources={"disk": 1}).remote()]
    states = [keys.of_object(ref.hex()) for ref in (*runs, *rest)]

    def settled() -> bool:
        found = sorted(redis.call("HGET", key, "state") or b"" for key in states)
        return found == [b"QUEUED"] * 4 + [b"RUNNING"] * 2 + [b"WAITING"]

    wait_until(settled, what="two tasks to run and the others to wait")
    return [hits, picky, parked, big, holder, said, *runs, *rest]


def test_the_cookbook(tour: Connection) -> None:
    """Each command prints what the page says."""
    variables: dict[str, str] = {}
    meant: dict[str, str] = {}  # id on the page -> id here
    page = blocks_of(DOCS / "inspect.md")
    assert [block.language for block in page] == ["sh", "text"] * (len(page) // 2)
    for shell, text in zip(page[::2], page[1::2], strict=True):
        printed = "".join(_run(line, variables, tour) for line in shell.text.splitlines())
        samples: list[str] = []
        match = re.fullmatch(_pattern(text.text, samples), printed)
        assert match, f"{shell.id} printed\n{printed}\nand not\n{text.text}"
        for sample, actual in zip(samples, match.groups(), strict=True):
            assert meant.setdefault(sample, actual) == actual, f"{shell.id}: {sample} stood for another id before"


def _run(line: str, variables: dict[str, str], redis: Connection) -> str:
    """What a shell would print: `redis-cli ...` as in a terminal, `NAME=$(redis-cli ...)` nothing."""
    assignment = re.fullmatch(r"(\w+)=\$\((.*)\)", line)
    words = shlex.split(string.Template(assignment[2] if assignment else line).substitute(variables))
    assert words[0] == "redis-cli", line
    reply = redis.call(*words[1:])
    if not assignment:
        return formatted(reply) + "\n"
    reply = reply[0] if isinstance(reply, list) else reply
    assert reply, f"nothing to call {assignment[1]}: {line}"
    variables[assignment[1]] = reply.decode()
    return ""


_WILD = re.compile(r"(…)|\b([0-9a-f]{32}|[0-9a-f]{24}|[0-9a-f]{16})\b|\b(17\d{11}|17\d{8})\b")


def _pattern(text: str, samples: list[str]) -> str:
    """`…` stands for anything within a line, and alone on a line for any lines; an id for an id, a time for a time."""

    def line_pattern(line: str) -> str:
        found, at = "", 0
        for match in _WILD.finditer(line):
            found += re.escape(line[at : match.start()])
            at = match.end()
            if match[2]:
                samples.append(match[2])
            found += ".*" if match[1] else f"([0-9a-f]{{{len(match[0])}}})" if match[2] else rf"\d{{{len(match[0])}}}"
        return found + re.escape(line[at:]) + "\n"

    return "".join("(?:.*\n)*?" if line == "…" else line_pattern(line) for line in text.splitlines())


# ---- names ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", _prose(page)):
        assert not target or (page.parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", NAMES)
def test_the_code_that_is_named_exists(name: str) -> None:
    """`redray/session.py`, `worker/node.py: Node._call`, `lua/task_submit.lua`, `lua/lib/queue.lua: ring_idle`."""
    for path, symbol in re.findall(r"`([\w/.]+\.(?:py|lua))(?:: ([\w.]+))?`", _prose(REPOSITORY / name)):
        file = next((root / path for root in ROOTS if (root / path).is_file()), None)
        assert file is not None, f"{name} names {path}, which does not exist"
        if symbol:
            assert _defines(file, symbol), f"{name} names {symbol} in {path}, which is not there"


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _defines(file: Path, symbol: str) -> bool:
    if file.suffix == ".lua":
        return re.search(rf"^(local )?function {re.escape(symbol)}\(", file.read_text(), re.MULTILINE) is not None
    body: list[ast.stmt] = ast.parse(file.read_text()).body
    for part in symbol.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


# ---- what is generated ---------------------------------------------------------------------------------------------
def _generator() -> Any:
    specification = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [name for name in NAMES if "<!-- generated:" in (REPOSITORY / name).read_text()])
def test_generated_parts_are_fresh(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert _generator().rendered(text) == text, "run `make docs`"


def test_something_is_generated() -> None:
    """The markers were not lost in an edit."""
    lifecycle, architecture = (DOCS / "lifecycle.md").read_text(), (DOCS / "architecture.md").read_text()
    for state, targets in TASK_MOVES.items():
        for to in targets:
            assert f"{state or '[*]'} --> {to}\n" in lifecycle
    for prefix in (*FAMILIES.values(), *SINGLETONS.values()):
        assert f"| `{prefix}" in architecture


def test_keys_are_of_the_type_that_the_table_says(tour: Connection) -> None:
    """Every key of a living cluster is in the table, and of the type that is said there."""
    said = dict(re.findall(r"^\| `([\w:]+?)(?:ID)?` \| (\w+) \|", (DOCS / "architecture.md").read_text(), re.MULTILINE))
    found = set()
    for name in (key.decode().partition(":")[2] for key in tour.call("KEYS", "*") if key != b"{redray}:tour"):
        prefix = name if name in said else name.partition(":")[0] + ":"
        kind = tour.call("TYPE", f"{{redray}}:{name}").decode()
        assert said.get(prefix) == kind, f"{name} is a {kind}; docs/architecture.md says {said.get(prefix)}"
        found.add(prefix)
    assert len(found) > 20
