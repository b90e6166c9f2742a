"""What the loader renders, run by real servers of every version at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redray.gcs.check import check_server
from redray.gcs.client import Connection, ReplyError
from redray.gcs.scripts import Script, Vocabulary, load_scripts
from redray.gcs.server import EmbeddedServer

VOCABULARY = Vocabulary({"OK": "OK"}, {"state": "state"}, {"SLICE": 500}, {"task": "task:"}, {"leases": "leases"})
HEADER = "-- verb: x.\n-- KEYS\n--   task hash x\n-- ARGV\n--   number int x\n--   now ms x\n-- RETURN\n--   OK x\n"


@pytest.fixture
def connection(each_server: EmbeddedServer) -> Any:
    connection = Connection.open(each_server.address)
    yield connection
    connection.close()


def load(connection: Connection, directory: Path, text: str, **libraries: str) -> Script:
    (directory / "lib").mkdir(exist_ok=True)
    (directory / "verb.lua").write_text(text)
    for name, library in libraries.items():
        (directory / "lib" / f"{name}.lua").write_text(library)
    version = check_server(connection).version
    return load_scripts(server_version=version, directory=directory, vocabulary=VOCABULARY)["verb"]


def test_generated_locals_carry_the_arguments(connection: Connection, tmp_path: Path) -> None:
    script = load(
        connection, tmp_path, HEADER + "return {words.OK, task, number + limits.SLICE, now, keys.task('a')}\n"
    )
    assert connection.run(script, ["k"], [7, 1234]) == [b"OK", b"k", 507, 1234, b"{redray}:task:a"]


def test_time_zero_is_the_servers_clock(connection: Connection, tmp_path: Path) -> None:
    script = load(connection, tmp_path, HEADER + "redis.call('SET', task, now) return now\n")
    seconds, micros = map(int, connection.call("TIME"))
    now = connection.run(script, ["k"], [1, 0])
    assert 0 <= now - (seconds * 1000 + micros // 1000) < 60_000


@pytest.mark.parametrize(("keys", "argv"), [([], [1, 2]), (["k"], [1]), (["k"], [1, 2, 3])])
def test_a_call_with_the_wrong_number_of_arguments_is_a_sentence(
    connection: Connection, tmp_path: Path, keys: list[str], argv: list[int]
) -> None:
    script = load(connection, tmp_path, HEADER + "redis.call('SET', 'touched', 1)\n")
    with pytest.raises(ReplyError, match="verb takes 1 keys and 2 arguments, not"):
        connection.run(script, keys, argv)
    assert connection.call("EXISTS", "touched") == 0


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("\nlocal x = nil + 1", "lua/verb.lua:12"),
        ("redis.call('GET')", "lua/verb.lua:11"),
        ("\n\nerror('mine')", "lua/verb.lua:13"),
        ("part(nil)", "lua/lib/part.lua:3"),
        ("return undefined_name", "lua/verb.lua:11"),
        ("\nlocal x == 1", "lua/verb.lua:12"),
    ],
)
@pytest.mark.parametrize("flags", ["", "-- FLAGS allow-oom\n"])
def test_errors_name_the_file_and_line(
    connection: Connection, tmp_path: Path, code: str, place: str, flags: str
) -> None:
    text = HEADER + (flags or "--\n") + "-- @include part\n" + code + "\n"
    part = "-- part: a library\nlocal function part(x)\n  return x.y\nend\n"
    script = load(connection, tmp_path, text, part=part)
    with pytest.raises(ReplyError) as caught:
        connection.run(script, ["k"], [1, 2])
    assert place + ":" in str(caught.value) or str(caught.value).endswith(f"{place}.")


def test_a_library_cannot_see_the_scripts_arguments(connection: Connection, tmp_path: Path) -> None:
    script = load(
        connection,
        tmp_path,
        HEADER + "-- @include part\nreturn part()\n",
        part="local function part() return now end\n",
    )
    with pytest.raises(ReplyError, match=r"lua/lib/part\.lua:1: .*'now'"):
        connection.run(script, ["k"], [1, 2])


def test_allow_oom_writes_when_memory_is_full_and_others_do_not(connection: Connection, tmp_path: Path) -> None:
    code = "redis.call('HSET', task, 'a', 'b') return words.OK\n"
    connection.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ReplyError, match=r"OOM|used memory"):
        connection.run(load(connection, tmp_path, HEADER + code), ["refused"], [1, 2])
    assert connection.call("EXISTS", "refused") == 0
    script = load(connection, tmp_path, HEADER + "-- FLAGS allow-oom\n" + code)
    assert connection.run(script, ["k"], [1, 2]) == b"OK"
    assert connection.call("HGET", "k", "a") == b"b"


def test_every_shipped_script_compiles(connection: Connection) -> None:
    scripts = load_scripts(server_version=check_server(connection).version)
    connection.load_all(scripts.values())
    known = connection.call("SCRIPT", "EXISTS", *[script.sha for script in scripts.values()])
    assert known == [1] * len(scripts)
