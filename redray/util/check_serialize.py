"""Why a value cannot be sent: a report that follows it down to the parts at fault."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from redray.store import byvalue

_MOST_SHOWN = 100  # characters of a value's repr


class FailureTuple:
    """A part that cannot be pickled and has no part to blame.

    Attributes:
        obj: the part.
        name: what it is called where it stands: a variable, an attribute, an index.
        parent: what it is a part of; the value itself when it has no parts.
        path: how one gets there, from the value that was asked about.
    """

    def __init__(self, obj: Any, name: str, parent: Any, path: str) -> None:
        self.obj = obj
        self.name = name
        self.parent = parent
        self.path = path

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [path={self.path}, obj={_shown(self.obj)}, parent={_shown(self.parent)}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether a value can be sent to another process, and if not, which parts of it cannot.

    Args:
        base_obj: the value, such as an argument, a function or a class.
        name: what the report calls it.
        depth: how many steps down to look.
        print_file: where the report goes; None: standard output.

    Returns:
        (it can be sent, the parts at fault).
    """
    file = print_file or sys.stdout
    title = name or getattr(base_obj, "__name__", None) or type(base_obj).__name__
    rule = "=" * min(80, len(f"Checking Serializability of {_shown(base_obj)}")) + "\n"
    file.write(f"{rule}Checking Serializability of {_shown(base_obj)}\n{rule}")
    failures: list[FailureTuple] = []
    error = byvalue.failure(base_obj)
    if error is not None:
        file.write(f"!!! FAIL serialization: {error}\n")
        _follow(base_obj, title, base_obj, title, depth, file, failures, set())
        _conclude(failures, file, rule)
    return error is None, set(failures)


def _follow(
    value: Any, name: str, parent: Any, path: str, depth: int, file: TextIO, found: list[FailureTuple], seen: set[int]
) -> None:
    """Go on to the parts that fail; where there is none, or no depth left, the value itself is at fault."""
    seen.add(id(value))
    before = len(found)
    for step, part in byvalue.parts(value) if depth > 0 else ():
        error = byvalue.failure(part) if id(part) not in seen else None
        if error is not None:
            indent = "    " * path.count(" -> ") + "    "
            file.write(f"{indent}Serializing '{step.lstrip('.')}' {_shown(part)}...\n{indent}!!! FAIL: {error}\n")
            part_name = step.lstrip(".")
            _follow(part, part_name, value, f"{path} -> {part_name}", depth - 1, file, found, seen)
    if len(found) == before:
        found.append(FailureTuple(value, name, parent, path))


def _conclude(failures: list[FailureTuple], file: TextIO, rule: str) -> None:
    file.write(f"{rule}Variable:\n\n")
    for failure in failures:
        file.write(f"\t{failure!r}\n")
    file.write(
        "\nwas found to be non-serializable. Make it inside of the task or actor instead, or leave it out of what is"
        f" sent; redray.util.register_serializer() says how to send values of its class.\n{rule}"
    )


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # user code: a report must not fail because of it
        text = f"<{type(value).__name__}, whose __repr__ raised {type(error).__name__}>"
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."
