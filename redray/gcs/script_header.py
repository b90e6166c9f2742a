"""Parses the header of a Lua script: the comment block that is its contract.

    -- task_claim: hands ready tasks to a node.
    --
    -- any prose
    --
    -- KEYS
    --   channel   hash     the calling process's channel
    -- ARGV
    --   number    int      the call's number on its channel,
    --                      continued by a deeper indent
    --   now       ms       0 = the server's clock
    --   entries   rest     the last one only: becomes entries_at, an index into ARGV
    -- RETURN
    --   OK work            tasks were claimed
    -- FLAGS allow-oom
    -- @include hand_out

ARGV types: text, int, float, ms (milliseconds), msgpack (unpacked), rest. The part before the colon is the file's name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KEY_TYPES = frozenset({"string", "hash", "list", "set", "zset", "stream"})
ARGUMENT_TYPES = frozenset({"text", "int", "float", "ms", "msgpack", "rest"})
FLAGS = frozenset({"allow-oom", "no-writes"})

_SECTIONS = ("KEYS", "ARGV", "RETURN")
_SHARED = frozenset({"words", "fields", "limits", "keys"})
_LUA_KEYWORDS = frozenset(
    "and break do else elseif end false for function if in local nil not or repeat return then true until while".split()
)
_TITLE = re.compile(r"-- ([a-z][a-z0-9_]*): (\S.*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ScriptError(Exception):
    """A script file breaks the rules of the loader. The message begins with file and line."""


class Parameter(NamedTuple):
    name: str
    type: str
    meaning: str


class Header:
    """The contract a script opens with, parsed."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file = file
        self.keys: list[Parameter] = []
        self.argv: list[Parameter] = []
        self.returns: list[str] = []
        self.flags: tuple[str, ...] = ()
        self.length = next((at for at, line in enumerate(lines) if not line.startswith("--")), len(lines))
        self._parse_title(lines[0] if lines else "")
        section, indent = "", 0
        for number, line in enumerate(lines[1 : self.length], 2):
            text = line[2:].strip()
            depth = len(line[2:]) - len(line[2:].lstrip())
            if text in _SECTIONS and depth == 1:
                section, indent = text, 0
            elif text.startswith("FLAGS") and depth == 1:
                section, self.flags = "", self._parse_flags(number, text)
            elif not text or text.startswith("@include") or (depth == 1 and section):
                section = ""
            elif section:
                if not indent or depth == indent:
                    indent = depth
                    self._parse_entry(number, section, text)
                elif depth < indent:
                    raise self.error(number, f"'{text}' is indented less than the entries of {section} above it.")
                else:
                    self._continue_entry(section, text)
        if not self.returns:
            raise self.error(1, "the header has no RETURN section, which lists the outcome words.")

    def error(self, number: int, sentence: str) -> ScriptError:
        return ScriptError(f"lua/{self.file}:{number}: {sentence}")

    def _parse_title(self, line: str) -> None:
        title = _TITLE.fullmatch(line.rstrip())
        expected = self.file.removesuffix(".lua")
        if title is None or title[1] != expected:
            raise self.error(1, f"the first line must read '-- {expected}: one sentence of what it does.'")
        self.name, self.summary = title[1], title[2]

    def _parse_flags(self, number: int, text: str) -> tuple[str, ...]:
        flags = text.split()[1:]
        for flag in flags:
            if flag not in FLAGS:
                raise self.error(number, f"unknown flag '{flag}'; known are {', '.join(sorted(FLAGS))}.")
        if not flags:
            raise self.error(number, "FLAGS names no flag.")
        return tuple(flags)

    def _parse_entry(self, number: int, section: str, text: str) -> None:
        if section == "RETURN":
            self.returns.append(text.split()[0])
            return
        name, kind, meaning = [*text.split(None, 2), "", "", ""][:3]
        types = KEY_TYPES if section == "KEYS" else ARGUMENT_TYPES
        if kind not in types:
            raise self.error(number, f"{section} '{name}' has type '{kind}'; known are {', '.join(sorted(types))}.")
        if not meaning:
            raise self.error(number, f"{section} '{name}' has no meaning; a line reads: name, type, meaning.")
        if not _NAME.fullmatch(name) or name in _LUA_KEYWORDS or name in _SHARED:
            raise self.error(number, f"'{name}' cannot be the name of a Lua local.")
        if any(name == known.name for known in (*self.keys, *self.argv)):
            raise self.error(number, f"'{name}' is named twice.")
        if self.argv and self.argv[-1].type == "rest":
            raise self.error(number, f"'{self.argv[-1].name}' takes the rest of ARGV, so nothing can follow it.")
        (self.keys if section == "KEYS" else self.argv).append(Parameter(name, kind, meaning))

    def _continue_entry(self, section: str, text: str) -> None:
        if section != "RETURN":
            entries = self.keys if section == "KEYS" else self.argv
            entries[-1] = entries[-1]._replace(meaning=f"{entries[-1].meaning} {text}")

    def block(self) -> str:
        """The statements that stand for the header, on as many lines, so that the numbers of the lines below hold."""
        statements = self._statements()
        last = self.length - 1
        lines = [*statements[:last], " ".join(statements[last:])]
        return "\n".join(lines + [""] * (self.length - len(lines)))

    def _statements(self) -> list[str]:
        """They count first: a wrong call is a sentence and writes nothing."""
        rest = bool(self.argv) and self.argv[-1].type == "rest"
        fixed = len(self.argv) - rest
        takes = f"{self.name} takes {len(self.keys)} keys and {fixed} arguments{' or more' if rest else ''}"
        statements = [
            f"if #KEYS ~= {len(self.keys)} or #ARGV {'<' if rest else '~='} {fixed} then return redis.error_reply("
            f"'ERR {takes}, not ' .. #KEYS .. ' and ' .. #ARGV .. '.') end"
        ]
        statements += [f"local {key.name} = KEYS[{at}]" for at, key in enumerate(self.keys, 1)]
        statements += [_argument(at, parameter) for at, parameter in enumerate(self.argv, 1)]
        return statements


def _argument(at: int, parameter: Parameter) -> str:
    name, kind = parameter.name, parameter.type
    if kind == "text":
        return f"local {name} = ARGV[{at}]"
    if kind == "msgpack":
        return f"local {name} = cmsgpack.unpack(ARGV[{at}])"
    if kind == "rest":
        return f"local {name}_at = {at}"
    statement = f"local {name} = tonumber(ARGV[{at}])"
    if kind == "ms":
        clock = f"local clock = redis.call('TIME'); {name} = clock[1] * 1000 + math.floor(clock[2] / 1000)"
        statement += f"; if {name} == 0 then {clock} end"
    return statement
