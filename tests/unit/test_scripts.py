"""The Lua loader on small directories: headers, includes, shared words. Pure: no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from redray.gcs import schema
from redray.gcs.scripts import Script, ScriptError, Scripts, Vocabulary, find_directory, load_scripts

VOCABULARY = Vocabulary(
    words={"QUEUED": "QUEUED", "QUOTED": "it's"},
    fields={"state": "st"},
    limits={"SLICE": 500},
    families={"task": "task:"},
    singletons={"leases": "leases"},
)

MINIMAL = "-- {name}: does something.\n-- RETURN\n--   OK   done\n"

Load = Callable[..., Scripts]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes files named as in lua/ (`lib_x` is lua/lib/x.lua) and loads the directory."""
    (tmp_path / "lib").mkdir()

    def write_and_load(tag: str = "redray", server_version: tuple[int, ...] = (7, 0), **files: str) -> Scripts:
        for name, text in files.items():
            path = tmp_path / "lib" / name[4:] if name.startswith("lib_") else tmp_path / name
            path.with_suffix(".lua").write_text(text)
        return load_scripts(tag, server_version, tmp_path, VOCABULARY)

    return write_and_load


def body(code: str, name: str = "verb") -> str:
    return MINIMAL.format(name=name) + code


def rendered_body(script: Script) -> str:
    return script.source.split("\n", 3)[3].strip()


def test_a_header_is_parsed_and_becomes_locals(load: Load) -> None:
    script = load(
        verb="""\
-- verb: hands out work.
--
-- Prose that mentions KEYS and ARGV.
--
-- KEYS
--   channel   hash     whose call
-- ARGV
--   number    int      its number,
--                      counted from one
--   share     float    of the work
--   now       ms       0 = the server's clock
--   extra     msgpack  more
--   who       text     a name
--   entries   rest     the rest
-- RETURN
--   OK work   work is done
--   GAP       nothing is
return channel
"""
    )["verb"]
    assert script.summary == "hands out work."
    assert [(key.name, key.type) for key in script.keys] == [("channel", "hash")]
    assert [argument.type for argument in script.argv] == ["int", "float", "ms", "msgpack", "text", "rest"]
    assert script.argv[0].meaning == "its number, counted from one"
    assert script.returns == ("OK", "GAP")
    for statement in (
        "local channel = KEYS[1]",
        "local number = tonumber(ARGV[1])",
        "local share = tonumber(ARGV[2])",
        "local extra = cmsgpack.unpack(ARGV[4])",
        "local who = ARGV[5]",
        "local entries_at = 6",
    ):
        assert statement in script.source
    lines = script.source.splitlines()
    assert lines[17] == "return channel", "the body must stand on the line where the file has it"


def test_a_header_with_more_locals_than_lines_keeps_the_line_numbers(load: Load) -> None:
    script = load(verb="-- verb: x.\n-- ARGV\n--   a ms x\n--   b ms x\n-- RETURN\n--   OK x\nreturn a\n")["verb"]
    assert script.source.splitlines()[6] == "return a"


@pytest.mark.parametrize(
    ("header", "line", "complaint"),
    [
        ("return 1", 1, "first line must read"),
        ("-- other: a name that is not the file's.\n-- RETURN\n--   OK x", 1, "'-- verb: one sentence"),
        ("-- verb: no outcome words.", 1, "no RETURN section"),
        ("-- verb: x.\n-- KEYS\n--   a blob x\n-- RETURN\n--   OK x", 3, "type 'blob'"),
        ("-- verb: x.\n-- ARGV\n--   a number x\n-- RETURN\n--   OK x", 3, "type 'number'"),
        ("-- verb: x.\n-- ARGV\n--   a int\n-- RETURN\n--   OK x", 3, "no meaning"),
        ("-- verb: x.\n-- ARGV\n--   end int x\n-- RETURN\n--   OK x", 3, "cannot be the name"),
        ("-- verb: x.\n-- ARGV\n--   keys int x\n-- RETURN\n--   OK x", 3, "cannot be the name"),
        ("-- verb: x.\n-- KEYS\n--   a hash x\n-- ARGV\n--   a int x\n-- RETURN\n--   OK x", 5, "named twice"),
        ("-- verb: x.\n-- ARGV\n--   a rest x\n--   b int x\n-- RETURN\n--   OK x", 4, "nothing can follow"),
        ("-- verb: x.\n-- ARGV\n--     a int x\n--   b int x\n-- RETURN\n--   OK x", 4, "indented less"),
        ("-- verb: x.\n-- RETURN\n--   OK x\n-- FLAGS fast", 4, "unknown flag 'fast'"),
        ("-- verb: x.\n-- RETURN\n--   OK x\n-- FLAGS", 4, "names no flag"),
    ],
)
def test_a_malformed_header_is_refused_with_file_and_line(load: Load, header: str, line: int, complaint: str) -> None:
    with pytest.raises(ScriptError) as caught:
        load(verb=header + "\n")["verb"]
    assert str(caught.value).startswith(f"lua/verb.lua:{line}: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("code", "rendered"),
    [
        ("return words.QUEUED", "return 'QUEUED'"),
        ("return words.QUOTED", r"return 'it\'s'"),
        ("return fields.state .. limits.SLICE", "return 'st' .. 500"),
        ("return keys.leases", "return '{redray}:leases'"),
        ("return keys.task(id)", "return ('{redray}:task:' .. (id))"),
        ("return keys.task (a or b)", "return ('{redray}:task:' .. (a or b))"),
        ("return keys.task(f(')', keys.leases))", "return ('{redray}:task:' .. (f(')', '{redray}:leases')))"),
        ("return keys.task(keys.task(a))", "return ('{redray}:task:' .. (('{redray}:task:' .. (a))))"),
        ('return \'words.NONE\' .. "fields.none\\" words.NONE"', None),
        ("local a = 1 -- words.NONE\nreturn 1 --[[ words.NONE\n words.NONE ]] + 1", None),
        ("return [==[ words.NONE ]] ]==]", None),
        ("return passwords.NONE, my.words.NONE, my_fields.none, a:keys.task", None),
    ],
)
def test_shared_words_become_literals_in_code_only(load: Load, code: str, rendered: str | None) -> None:
    assert rendered_body(load(verb=body(code))["verb"]) == (rendered or code)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("words.LOST", "unknown word 'LOST'"),
        ("fields.colour", "unknown field 'colour'"),
        ("limits.SKY", "unknown limit 'SKY'"),
        ("keys.cloud(1)", "unknown key family 'cloud'"),
        ("keys.cloud", "unknown key 'cloud'"),
        ("keys.task", "needs an id"),
        ("keys.leases(1)", "takes no id"),
        ("keys.task(1", "never closed"),
    ],
)
def test_an_unknown_shared_word_is_refused_with_file_and_line(load: Load, code: str, complaint: str) -> None:
    with pytest.raises(ScriptError, match=r"^lua/verb\.lua:5: ") as caught:
        load(verb=body(f"\nreturn {code}"))["verb"]
    assert complaint in str(caught.value)


def test_an_unknown_word_in_a_library_names_the_library(load: Load) -> None:
    with pytest.raises(ScriptError, match=r"^lua/lib/part\.lua:2: unknown word"):
        load(verb=body("-- @include part"), lib_part="-- a part\nlocal x = words.LOST\n")["verb"]


def test_the_tag_is_in_every_key_and_must_be_harmless(load: Load) -> None:
    assert "'{blue}:leases'" in load(tag="blue", verb=body("return keys.leases"))["verb"].source
    with pytest.raises(ScriptError, match="cluster tag"):
        load(tag="a'b", verb=body(""))


def test_includes_come_once_each_depth_first_and_before_the_locals(load: Load) -> None:
    source = load(
        verb="-- verb: x.\n-- ARGV\n--   a int x\n-- RETURN\n--   OK x\n-- @include one\n-- @include two\nreturn a\n",
        lib_one="-- one\n-- @include two\nlocal one = 1\n",
        lib_two="-- two\nlocal two = 2\n",
    )["verb"].source
    places = [source.index(text) for text in ("local two", "local one", "local a =", "return a")]
    assert places == sorted(places)
    assert source.count("local two") == 1


def test_an_include_circle_is_refused_with_the_stack(load: Load) -> None:
    with pytest.raises(ScriptError, match="circle: one -> two -> one"):
        load(verb=body("-- @include one"), lib_one="-- @include two\n", lib_two="-- @include one\n")["verb"]


@pytest.mark.parametrize("name", ["missing", "../verb", ""])
def test_an_include_of_nothing_is_refused(load: Load, name: str) -> None:
    with pytest.raises(ScriptError, match=r"^lua/verb\.lua:4: @include .* names no file"):
        load(verb=body(f"-- @include {name}"))["verb"]


def test_lines_are_explained_through_includes_and_flags(load: Load) -> None:
    script = load(
        verb="-- verb: x.\n-- RETURN\n--   OK x\n-- FLAGS allow-oom\n-- @include part\nerror('body')\n",
        lib_part="-- part\nlocal function part() error('part') end\n",
    )["verb"]
    lines = script.source.splitlines()
    in_part, in_body = (1 + next(n for n, line in enumerate(lines) if mark in line) for mark in ("'part'", "'body'"))
    assert script.explain(f"ERR user_script:{in_body}: body") == "ERR lua/verb.lua:6: body"
    assert script.explain(f"ERR @user_script: {in_part}: part") == "ERR lua/lib/part.lua:2: part"
    assert script.explain("OOM nothing to explain") == "OOM nothing to explain"


def test_flags_become_a_shebang_where_the_server_knows_it(load: Load) -> None:
    text = "-- verb: x.\n-- RETURN\n--   OK x\n-- FLAGS allow-oom\nreturn 1\n"
    assert load(verb=text)["verb"].source.startswith("#!lua flags=allow-oom\n")
    old = load(verb=text, server_version=(6, 2, 14))["verb"].source
    assert old.startswith("redis.call('DEL', '{redray}:nothing')\n")
    assert "#!" not in load(verb=body("return 1"))["verb"].source


def test_identity_is_the_content(load: Load) -> None:
    first = load(verb=body("return 1"))["verb"].sha
    assert load(verb=body("return 1"))["verb"].sha == first
    assert load(verb=body("return 2"))["verb"].sha != first


def test_scripts_are_rendered_only_when_asked_for(load: Load) -> None:
    scripts = load(verb=body("return 1"), broken="no header")
    assert sorted(scripts) == ["broken", "verb"] and len(scripts) == 2
    assert scripts["verb"] is scripts["verb"]
    with pytest.raises(KeyError):
        scripts["nothing"]
    with pytest.raises(ScriptError):
        scripts["broken"]


def test_the_shipped_scripts_are_kept_per_process() -> None:
    assert load_scripts() is load_scripts()
    assert load_scripts() is not load_scripts(server_version=(6, 2))


@pytest.mark.parametrize("name", sorted(load_scripts()))
def test_every_shipped_script_renders_on_every_server(name: str) -> None:
    for version in ((6, 2), (7, 0)):
        script = load_scripts(server_version=version)[name]
        assert script.returns and script.summary.endswith("."), "a header ends its sentence and lists its outcomes"


def test_every_library_is_included_somewhere() -> None:
    directory = Path(find_directory())
    texts = "".join(path.read_text() for path in directory.rglob("*.lua"))
    for library in (directory / "lib").glob("*.lua"):
        assert f"@include {library.stem}\n" in texts, f"{library} is dead"


def test_shared_words_are_safe_to_quote() -> None:
    for name, text in {**schema.WORDS, **schema.FIELDS}.items():
        assert text.isidentifier(), f"{name} = {text!r} would need thought in redis-cli"


# ---- lazy libraries --------------------------------------------------------------------------------------------------
def test_the_functions_of_a_lazy_library_are_made_when_one_is_called(tmp_path: Path) -> None:
    """What a script does not call costs it one function for the whole library; lines stay where they are."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sums.lua").write_text(
        "-- sums: a library.\n-- @lazy\n\nlocal one = 1\n\nlocal function inner(x)\n  return x + one\nend\n\n"
        "local function outer(x)\n  return inner(x) + inner(x)\nend\n"
    )
    (tmp_path / "add.lua").write_text(
        "-- add: adds.\n--\n-- KEYS\n--   total hash a record\n-- ARGV\n--   number int a number\n"
        "-- RETURN\n--   OK sum\n-- @include sums\n\n"
        "if number > 0 then\n  outer(number)\nend\nlocal sum = outer(number)\nreturn sum\n"
    )
    source = load_scripts(directory=tmp_path)["add"].source
    assert "local function make_sums()" in source
    assert "function made.outer(x)" in source
    assert "return made.inner(x) + made.inner(x)" in source, "inside, they are there"
    assert "  if not made.outer then make_sums() end made.outer(number)" in source
    assert "local sum = (made.outer or make_sums() or made.outer)(number)" in source
