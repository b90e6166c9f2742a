"""Loads `lua/*.lua`: turns a script as people read it into what Redis runs, and Redis' line numbers back into files.

The header (see script_header.py) becomes as many lines of generated locals. Before it stand the included files of
`lua/lib/`, each once, depth first: they come before the locals so that a function in them can only use its arguments.
In the code, `words.QUEUED`, `fields.state` and `limits.SLICE` become literals, `keys.task(id)` becomes
`('{tag}:task:' .. (id))` and `keys.leases` becomes `'{tag}:leases'`.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from redray.gcs import keys, schema
from redray.gcs.script_header import Header, Parameter, ScriptError

__all__ = ["Parameter", "Script", "ScriptError", "Scripts", "Vocabulary", "find_directory", "load_scripts"]

_Value = TypeVar("_Value")

# A library that says so makes its functions when one of them is first called: a simple call needs few of those that a
# script might need. For the same reason library functions are fields of one table: Lua looks for each local variable
# that a new function uses in a list of all that others use, so hundred functions that are locals cost 20 us to make.
_LAZY = re.compile(r"(?m)^-- @lazy$")
_FUNCTION = re.compile(r"(?m)^local function (\w+)\(")
_INCLUDE = re.compile(r"--\s*@include\b[ \t]*(.*)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAG = re.compile(r"[A-Za-z0-9_.\-]+")
_LONG_OPEN = re.compile(r"\[(=*)\[")
_ERROR_LINE = re.compile(r"@?user_script: ?(\d+)")
# Each alternative begins with a literal: so re skips to the next candidate at C speed. Start-up waits for this.
_TOKEN = re.compile(
    r"--[^\n]*"
    r"|'(?:[^'\\\n]|\\.)*'"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|\[=*\["
    r"|words\.(?<![\w.:]words\.)(?P<word>\w+)"
    r"|fields\.(?<![\w.:]fields\.)(?P<field>\w+)"
    r"|limits\.(?<![\w.:]limits\.)(?P<limit>\w+)"
    r"|keys\.(?<![\w.:]keys\.)(?P<family>\w+)(?P<call>[ \t]*\()?",
    re.DOTALL,
)
_TOKEN_IN_CALL = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|[()]")


class Vocabulary(NamedTuple):
    """The words that Python and Lua share. A family of keys takes an id, a singleton is one key."""

    words: Mapping[str, str]
    fields: Mapping[str, str]
    limits: Mapping[str, int | float]
    families: Mapping[str, str]
    singletons: Mapping[str, str]


SHARED = Vocabulary(schema.WORDS, schema.FIELDS, schema.LIMITS, keys.FAMILIES, keys.SINGLETONS)


class Piece(NamedTuple):
    """Whole lines of what Redis gets, and the place of the first one."""

    file: str
    number: int
    text: str


class Script:
    """One script, ready for Redis. `sha`, the hash of its content, is its identity: two releases can share a server."""

    __slots__ = ("_origin", "argv", "flags", "keys", "name", "returns", "sha", "source", "summary")

    def __init__(self, header: Header, pieces: list[Piece]) -> None:
        import hashlib

        self.name, self.summary, self.flags = header.name, header.summary, header.flags
        self.keys, self.argv, self.returns = tuple(header.keys), tuple(header.argv), tuple(header.returns)
        self.source = "\n".join([piece.text for piece in pieces]) + "\n"
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        self._origin = _origin(pieces)

    def __repr__(self) -> str:
        return f"Script({self.name}, {self.sha[:8]})"

    def explain(self, message: str) -> str:
        """Redis' error text with `user_script:123` replaced by the file and line that a person can open."""

        def locate(match: re.Match[str]) -> str:
            first, file, number = self._origin[bisect.bisect_right(self._origin, (int(match[1]), "\x7f", 0)) - 1]
            return f"lua/{file}:{number + int(match[1]) - first}"

        return _ERROR_LINE.sub(locate, message)


def _origin(pieces: list[Piece]) -> list[tuple[int, str, int]]:
    """(line in the source, file, line in the file) of each piece's beginning."""
    places: list[tuple[int, str, int]] = []
    line = 1
    for piece in pieces:
        places.append((line, piece.file, piece.number))
        line += piece.text.count("\n") + 1
    return places


class Loader:
    """Renders scripts for one cluster tag and one kind of server."""

    def __init__(self, directory: str, vocabulary: Vocabulary, tag: str, modern: bool) -> None:
        if not _TAG.fullmatch(tag):
            raise ScriptError(f"The cluster tag {tag!r} may hold letters, digits, '_', '-' and '.' only.")
        self.directory, self.vocabulary, self.tag, self.modern = directory, vocabulary, tag, modern
        self._libraries: dict[str, tuple[list[str], str]] = {}

    def script(self, name: str) -> Script:
        file = f"{name}.lua"
        text = self._read(file)
        header = Header(file, text.splitlines())
        included, code = self._code(file, text)
        pieces: list[Piece] = []
        if header.flags:
            pieces.append(Piece(file, 1, self._flag_line(header)))
        done: set[str] = set()
        for library in included:
            self._include(library, done, pieces)
        pieces.append(Piece(file, 1, header.block()))
        pieces.append(Piece(file, header.length + 1, code.split("\n", header.length)[-1]))
        return Script(header, self._making(done, pieces))

    def _making(self, done: set[str], pieces: list[Piece]) -> list[Piece]:
        """The pieces, with all functions of libraries as fields of `made`, and calls to lazy ones making them first."""
        makers = {
            function: name if _LAZY.search(self._libraries[name][1]) else ""
            for name in done
            for function in _FUNCTION.findall(self._libraries[name][1])
        }
        if not makers:
            return pieces
        names = "|".join(sorted(makers, key=len, reverse=True))
        call = re.compile(rf"(?m)(?P<start>^[ \t]*)?(?<![\w.:])(?P<name>{names})\(")

        def edit(piece: Piece) -> Piece:
            own = piece.file.removeprefix("lib/").removesuffix(".lua")

            def made(match: re.Match[str]) -> str:
                name, start = match["name"], match["start"]
                if makers[name] in ("", own):
                    return f"{start or ''}made.{name}("
                if start is not None:
                    return f"{start}if not made.{name} then make_{makers[name]}() end made.{name}("
                return f"(made.{name} or make_{makers[name]}() or made.{name})("

            text = piece.text
            if piece.file.startswith("lib/"):
                text = _FUNCTION.sub(lambda match: f"function {match[1]}(" if match[1] in makers else match[0], text)
            return Piece(piece.file, piece.number, call.sub(made, text))

        first = 1 if pieces[0].text.startswith(("#!", "redis.call")) else 0  # a line of flags stays the first
        return [*pieces[:first], Piece(pieces[0].file, 1, "local made = {}"), *map(edit, pieces[first:])]

    def _flag_line(self, header: Header) -> str:
        if self.modern:
            return f"#!lua flags={','.join(header.flags)}"
        # 6.2 has no flags, but refuses what needs memory only until a script has written, and deleting nothing counts.
        return f"redis.call('DEL', '{{{self.tag}}}:nothing')" if "allow-oom" in header.flags else ""

    def _include(self, name: str, done: set[str], pieces: list[Piece], stack: tuple[str, ...] = ()) -> None:
        if name in stack:
            raise ScriptError(f"lua/lib/{name}.lua:1: @include goes in a circle: {' -> '.join((*stack, name))}.")
        if name in done:
            return
        file = f"lib/{name}.lua"
        if name not in self._libraries:
            self._libraries[name] = self._code(file, self._read(file))
        included, code = self._libraries[name]
        for inner in included:
            self._include(inner, done, pieces, (*stack, name))
        done.add(name)
        if _LAZY.search(code):
            code = _made_when_called(name, code)
        pieces.append(Piece(file, 1, code))

    def _read(self, file: str) -> str:
        with open(os.path.join(self.directory, file), encoding="utf-8") as stream:
            return stream.read()

    def _code(self, file: str, text: str) -> tuple[list[str], str]:
        """The names `text` includes, and the text with every shared word in place."""
        included: list[str] = []
        edits: list[tuple[int, int, str]] = []
        at = 0
        while match := _TOKEN.search(text, at):
            at = match.end()
            token = match[0]
            if token.startswith("--"):
                at = self._comment(file, text, match, included)
            elif token.startswith("["):
                at = _end_of_long_bracket(text, match.start())
            elif match.lastgroup is not None:
                try:
                    edits += self._shared(match, text)
                except LookupError as error:
                    raise ScriptError(f"lua/{file}:{_line_at(text, match.start())}: {error.args[0]}") from None
        return included, (_apply(text, edits) if edits else text).rstrip("\n")

    def _comment(self, file: str, text: str, match: re.Match[str], included: list[str]) -> int:
        if _LONG_OPEN.match(text, match.start() + 2):
            return _end_of_long_bracket(text, match.start() + 2)
        include = _INCLUDE.fullmatch(match[0].rstrip())
        if include:
            name = include[1]
            if not _NAME.fullmatch(name) or not os.path.exists(os.path.join(self.directory, "lib", f"{name}.lua")):
                number = _line_at(text, match.start())
                raise ScriptError(f"lua/{file}:{number}: @include '{name}' names no file lua/lib/{name}.lua.")
            included.append(name)
        return match.end()

    def _shared(self, match: re.Match[str], text: str) -> list[tuple[int, int, str]]:
        """The edits that put the value of one shared word in its place. Raises LookupError with a sentence."""
        start, end = match.span()
        if match["word"]:
            return [(start, end, _quoted(_look_up(self.vocabulary.words, match["word"], "word", "schema.py")))]
        if match["field"]:
            return [(start, end, _quoted(_look_up(self.vocabulary.fields, match["field"], "field", "schema.py")))]
        if match["limit"]:
            return [(start, end, repr(_look_up(self.vocabulary.limits, match["limit"], "limit", "schema.py")))]
        family, singletons = match["family"], self.vocabulary.singletons
        if not match["call"]:
            if family in self.vocabulary.families:
                raise LookupError(f"keys.{family} needs an id: keys.{family}(id).")
            return [(start, end, self._key(_look_up(singletons, family, "key", "keys.py")))]
        if family in singletons:
            raise LookupError(f"keys.{family} is one key and takes no id.")
        prefix = self._key(_look_up(self.vocabulary.families, family, "key family", "keys.py"))
        # The argument keeps parentheses of its own: `..` binds tighter than `or`, so `'x' .. a or b` is something else.
        close = _closing_parenthesis(text, end)
        return [(start, end, f"({prefix} .. ("), (close, close, ")")]

    def _key(self, text: str) -> str:
        return _quoted(f"{{{self.tag}}}:{text}")


def _made_when_called(name: str, code: str) -> str:
    """A library as a function `make_NAME` that makes those of the library. Not a line is added before its last one, so
    that errors are found where they are."""
    first, rest = code.split("\n", 1)
    assert first.startswith("--"), "a library begins with a comment"
    return f"local function make_{name}()\n{_FUNCTION.sub(lambda match: f'function {match[1]}(', rest)}\nend"


def _look_up(values: Mapping[str, _Value], name: str, what: str, where: str) -> _Value:
    if name not in values:
        raise LookupError(f"unknown {what} '{name}'; the known ones are in redray/gcs/{where}.")
    return values[name]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _end_of_long_bracket(text: str, start: int) -> int:
    level = text.index("[", start + 1) - start - 1
    end = text.find(f"]{'=' * level}]", start + level + 2)
    return len(text) if end < 0 else end + level + 2


def _closing_parenthesis(text: str, start: int) -> int:
    depth = 1
    for token in _TOKEN_IN_CALL.finditer(text, start):
        depth += (token[0] == "(") - (token[0] == ")")
        if not depth:
            return token.start()
    raise LookupError("the parenthesis is never closed.")


def _apply(text: str, edits: list[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, replacement in sorted(edits):
        pieces += (text[at:start], replacement)
        at = end
    return "".join([*pieces, text[at:]])


class Scripts(Mapping[str, Script]):
    """All scripts by name, each rendered when it is first asked for: what a process does not call costs it nothing."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._names = sorted(name[:-4] for name in os.listdir(loader.directory) if name.endswith(".lua"))
        self._rendered: dict[str, Script] = {}

    def __getitem__(self, name: str) -> Script:
        script = self._rendered.get(name)
        if script is None:
            if name not in self._names:
                raise KeyError(name)
            script = self._rendered[name] = self._loader.script(name)
        return script

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


_loaded: dict[tuple[str, bool, str], Scripts] = {}


def load_scripts(
    tag: str = "redray",
    server_version: tuple[int, ...] = (7, 0),
    directory: str | os.PathLike[str] | None = None,
    vocabulary: Vocabulary | None = None,
) -> Scripts:
    """The scripts of clusters named `tag` for servers of this version, rendered once per process.

    Scripts loaded with a vocabulary of the caller's own are not kept.
    """
    modern = tuple(server_version) >= (7, 0)
    where = os.fspath(directory) if directory is not None else find_directory()
    if vocabulary is not None:
        return Scripts(Loader(where, vocabulary, tag, modern))
    scripts = _loaded.get((tag, modern, where))
    if scripts is None:
        scripts = _loaded[tag, modern, where] = Scripts(Loader(where, SHARED, tag, modern))
    return scripts


def find_directory() -> str:
    """`redray/lua` of an installed package, else `lua/` at the top of a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for candidate in (os.path.join(package, "lua"), os.path.join(os.path.dirname(package), "lua")):
        if os.path.isdir(candidate):
            return candidate
    raise ScriptError(f"The Lua scripts are missing: no directory lua/ in {package} or beside it. Reinstall redray.")
