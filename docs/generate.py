"""Writes the generated parts of docs/: a task's lifecycle from `schema.TASK_MOVES`, the keys from `gcs/keys.py`, what
of Ray's API is there from the tests (`compatibility.py`).

`make docs` runs it; tests/integration/test_docs.py fails when a generated part is stale. What makes a move is said
here, and a move without a reason, or a reason without a move, is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from redray.gcs import keys, schema

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))  # the tests load this file from elsewhere

import compatibility  # noqa: E402

SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
_KEY_LINE = re.compile(r'^    "(\w+)": "([^"]+)",  # (\w+): (.+)$', re.MULTILINE)

# What makes each legal move. "" is a task that does not exist yet.
REASONS: dict[tuple[str, str], str] = {
    ("", "WAITING"): "`task_submit`, `actor_create`: an argument is not ready",
    ("", "QUEUED"): "`task_submit`, `actor_create`: ready, for any node; or a call of an actor that is not alive yet",
    ("", "CLAIMED"): "`task_submit`: its node keeps it, behind another one; or a call, given to its actor's node",
    ("", "RUNNING"): "`task_submit`: its node keeps it and has started it",
    ("", "FAILED"): "`task_submit`: a call of an actor that is dead",
    ("WAITING", "QUEUED"): "the last argument became ready: `task_finish`, `object_put`, or a `wake:` chore",
    ("WAITING", "FINISHED"): "cancelled while it was to compute a sibling value again: the first value stays",
    ("WAITING", "CANCELLED"): "`task_cancel`, or the end of its job",
    ("QUEUED", "CLAIMED"): "`task_claim`, `task_finish` (which claims too); of a call: `actor_started`",
    ("QUEUED", "WAITING"): "`task_claim` finds that an argument was lost meanwhile, and is being computed again",
    ("QUEUED", "FINISHED"): "as from WAITING",
    ("QUEUED", "FAILED"): "a call whose actor died first (a `parked:` chore); `task_refuse`: it can never start",
    ("QUEUED", "CANCELLED"): "`task_cancel`, or the end of its job",
    ("CLAIMED", "RUNNING"): "`task_running`, for what has run 50 ms; shorter tasks are never called RUNNING",
    ("CLAIMED", "QUEUED"): "`task_finish` with HANDED_BACK, RETRY or CRASHED, or `node_reap`",
    ("CLAIMED", "WAITING"): "the same, and an argument was lost meanwhile and is being computed again",
    ("CLAIMED", "FINISHED"): "`task_finish` with VALUE",
    ("CLAIMED", "FAILED"): "`task_finish` with ERROR, or CRASHED without retries; `node_reap` without retries",
    ("CLAIMED", "CANCELLED"): "`task_finish` with CANCELLED: of a claimed task only its node can say so",
    ("RUNNING", "QUEUED"): "as from CLAIMED",
    ("RUNNING", "WAITING"): "as from CLAIMED",
    ("RUNNING", "FINISHED"): "as from CLAIMED",
    ("RUNNING", "FAILED"): "as from CLAIMED",
    ("RUNNING", "CANCELLED"): "as from CLAIMED",
    ("FINISHED", "QUEUED"): "the last copy of a value was lost: it is computed again; or an actor restarts",
    ("FINISHED", "WAITING"): "the same, and an argument has to be computed again first",
    ("FINISHED", "FAILED"): "the last copy of the value was lost and cannot be computed again: ObjectLostError",
}


def moves() -> list[tuple[str, str]]:
    found = [(state, to) for state, targets in schema.TASK_MOVES.items() for to in targets]
    wrong = set(found) ^ set(REASONS)
    if wrong:
        raise ValueError(f"schema.TASK_MOVES and REASONS in docs/generate.py differ in {sorted(wrong)}.")
    return found


def diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {state or '[*]'} --> {to}" for state, to in moves()]
    lines += [f"    {state} --> [*]" for state in ("FINISHED", "FAILED", "CANCELLED")]
    return "\n".join([*lines, "```"])


def table_of_moves() -> str:
    rows = [f"| {state or '(new)'} | {to} | {REASONS[state, to]} |" for state, to in moves()]
    return "\n".join(["| from | to | what makes the move |", "|---|---|---|", *rows])


def table_of_keys() -> str:
    described = {prefix: (kind, text) for _, prefix, kind, text in _KEY_LINE.findall(Path(keys.__file__).read_text())}
    rows = []
    for prefix in (*keys.FAMILIES.values(), *keys.SINGLETONS.values()):
        if prefix not in described:
            raise ValueError(f"gcs/keys.py does not say '# type: what it is; when it goes' of {prefix}.")
        kind, text = described[prefix]
        what, _, end = text.partition("; ")
        rows.append(f"| `{prefix}{'ID' if prefix.endswith(':') else ''}` | {kind} | {what} | {end or '-'} |")
    return "\n".join(["| key, after `{redray}:` | type | what | when it goes |", "|---|---|---|---|", *rows])


def list_of_guides() -> str:
    """Those for beginners first, then the topics by name."""
    first = ["getting-started", "migrating-from-ray", "tasks", "actors", "objects"]
    pages = sorted((DOCS / "guides").glob("*.md"), key=lambda page: ((*first, page.stem).index(page.stem), page.stem))
    titles = [(page.name, page.read_text().partition("\n")[0].removeprefix("# ")) for page in pages]
    return "\n".join(f"* [{title}](guides/{name})" for name, title in titles)


GENERATED: dict[str, Callable[[], str]] = {
    "diagram": diagram,
    "moves": table_of_moves,
    "keys": table_of_keys,
    "guides": list_of_guides,
    "summary": compatibility.summary,
    "features": compatibility.features_table,
    "numbers": compatibility.numbers_table,
}


def rendered(text: str) -> str:
    """The page with its generated parts made anew."""
    return SECTION.sub(lambda match: f"{match[1]}{GENERATED[match[2]]()}\n{match[3]}", text)


def main() -> None:
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        fresh = rendered(text)
        if fresh != text:
            page.write_text(fresh)


if __name__ == "__main__":
    main()
