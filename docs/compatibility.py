"""What docs/compatibility.md says of Ray's API: the features, the numbered promises, and where the tests of each are.

`generate.py` draws the page. A feature's state is found, not claimed: it works when the names that it needs can be
imported and its tests exist; a number works when tests of its name (`test_042_...`) exist. What differs on purpose, or
is left out, says why here.
"""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
_NUMBER = re.compile(r"test_(\d{3})_")


class Feature(NamedTuple):
    """`names` are imported ("redray.util.queue.Queue"); `tests` are patterns, "api/test_init" or "api/test_x::*word*".
    `differs`: how, if on purpose. `out`: why it is left out."""

    words: str
    names: str = ""
    tests: str = ""
    differs: str = ""
    out: str = ""


@cache
def tests_in(file: Path) -> tuple[str, ...]:
    return tuple(_TEST.findall(file.read_text()))


def files_of(patterns: str) -> list[str]:
    """The test files, relative to the repository, in which something fits."""
    found = []
    for pattern in patterns.split():
        path, _, function = pattern.partition("::")
        for file in sorted((ROOT / "tests").glob(f"{path}.py")):
            if not function or any(fnmatch(name, f"test_{function}") for name in tests_in(file)):
                found.append(str(file.relative_to(ROOT)))
    return sorted(set(found))


def exists(name: str) -> bool:
    """Whether a dotted name can be imported."""
    module, _, attribute = name.rpartition(".")
    try:
        if module and hasattr(importlib.import_module(module), attribute):
            return True
        importlib.import_module(name)
    except ImportError:
        return bool(module) and "." in module and _attribute_of_class(module, attribute)
    return True


def _attribute_of_class(path: str, attribute: str) -> bool:
    module, _, owner = path.rpartition(".")
    try:
        return hasattr(getattr(importlib.import_module(module), owner, None), attribute)
    except ImportError:
        return False


def state_of(feature: Feature) -> str:
    if feature.out:
        return f"left out: {feature.out}"
    if not all(map(exists, feature.names.split())) or not files_of(feature.tests):
        return "not yet"
    return f"differs on purpose: {feature.differs}" if feature.differs else "works"


def links(files: list[str]) -> str:
    return ", ".join(f"[{Path(file).stem.removeprefix('test_')}](../{file})" for file in files) or "-"


def features_table() -> str:
    from compatibility_rows import FEATURES  # beside this file

    parts = []
    for heading, rows in FEATURES.items():
        lines = [f"### {heading}\n", "| what | state | tests |", "|---|---|---|"]
        for row in rows:
            state = state_of(row)
            tested = "-" if state == "not yet" or row.out else links(files_of(row.tests))
            lines.append(f"| {row.words} | {state} | {tested} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def numbered_tests() -> dict[int, list[str]]:
    found: dict[int, set[str]] = {}
    for file in sorted((ROOT / "tests").glob("**/test_*.py")):
        for name in tests_in(file):
            match = _NUMBER.match(name)
            if match:
                found.setdefault(int(match[1]), set()).add(str(file.relative_to(ROOT)))
    return {number: sorted(files) for number, files in found.items()}


def numbers_table() -> str:
    from compatibility_rows import DIFFERS, NUMBERS

    tested = numbered_tests()
    lines = ["| | what | state | tests |", "|---|---|---|---|"]
    for number, words in NUMBERS.items():
        state = "not yet" if number not in tested else "works"
        if number in DIFFERS and number in tested:
            state = f"differs on purpose: {DIFFERS[number]}"
        lines.append(f"| {number} | {words} | {state} | {links(tested.get(number, []))} |")
    return "\n".join(lines)


def summary() -> str:
    from compatibility_rows import FEATURES, NUMBERS

    states = [state_of(row) for rows in FEATURES.values() for row in rows]
    done = sum(state == "works" or state.startswith("differs") for state in states)
    open_ = states.count("not yet")
    numbers = sum(number in numbered_tests() for number in NUMBERS)
    return (
        f"{done} features are there, {open_} not yet, {len(states) - done - open_} are left out on purpose;"
        f" {numbers} of the {len(NUMBERS)} numbered promises have tests of their own."
    )
