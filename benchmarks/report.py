"""From measured values to medians, ratios, a verdict, a table and a JSON document. Pure, except for printing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from benchmarks.goals import Row, reached, times_as_good

FORMAT = 1
HEADINGS = ("workload", "unit", "redray", "ray", "x ray", "best other", "floor", "of floor", "goal", "reached")
VERDICTS = {True: "yes", False: "NO", None: "?"}


@dataclass
class Results:
    """What each system did in each row: one value per round, and the errors of the rounds that gave none."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    errors: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, system: str, row: str, value: float) -> None:
        self.values.setdefault((system, row), []).append(value)

    def fail(self, system: str, row: str, error: str) -> None:
        self.errors.setdefault((system, row), []).append(error)

    def medians(self, row: str) -> dict[str, float]:
        return {system: statistics.median(values) for (system, name), values in self.values.items() if name == row}

    def failed(self, system: str, row: str) -> bool:
        return (system, row) in self.errors


def verdict(row: Row, results: Results, spine: bool = False) -> str:
    """yes, NO, ? (a peer it is compared with was not measured), failed, or - (no goal, or redray was not run)."""
    if results.failed("redray", row.name):
        return "failed"
    if "redray" not in results.medians(row.name) or not (row.spine if spine else row.goals):
        return "-"
    return VERDICTS[reached(row, results.medians(row.name), spine)]


def cells(row: Row, results: Results, spine: bool = False) -> list[str]:
    medians = results.medians(row.name)
    ours, ray, floor = (medians.get(system) for system in ("redray", "ray", "floor"))
    others = {system: value for system, value in medians.items() if system not in ("redray", "ray", "floor")}
    best = max(others, key=lambda system: times_as_good(row, others[system], 1), default=None)

    def shown(system: str) -> str:
        # A median over the rounds that went well must not hide that others did not.
        failed = results.failed(system, row.name)
        if system in medians:
            return number(medians[system]) + " (!)" * failed
        return "failed" if failed else "-"

    return [
        row.title,
        row.unit,
        shown("redray"),
        shown("ray"),
        "-" if ours is None or ray is None else f"{times_as_good(row, ours, ray):.3g}x",
        "-" if best is None else f"{best} {number(others[best])}",
        "-" if floor is None else number(floor),
        "-" if ours is None or floor is None else f"{times_as_good(row, ours, floor):.0%}",
        row.goal_text(spine),
        verdict(row, results, spine),
    ]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def show(rows: Sequence[Row], results: Results, spine: bool = False) -> None:
    table = [cells(row, results, spine) for row in rows]
    if find_spec("rich"):
        _show_rich(table)
    else:
        print("\n".join(plain([list(HEADINGS), *table])))
    for line in error_lines(results):
        print(line)


def plain(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _show_rich(table: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    output = Table(*HEADINGS, box=box.SIMPLE)
    styles = {"yes": "green", "NO": "bold red", "failed": "bold red"}
    for line in table:
        output.add_row(*line, style=styles.get(line[-1], ""))
    console = Console()
    # A file or a pipe gets whole lines: a row cut or folded at 80 columns cannot be compared with another run's.
    console.print(output) if console.is_terminal else Console(width=200).print(output)


def error_lines(results: Results) -> list[str]:
    """One line per system and error: a system that does not come up says so once, not once per row."""
    hit: dict[tuple[str, str], list[str]] = {}
    for (system, row), errors in results.errors.items():
        hit.setdefault((system, errors[-1]), []).append(f"{row} ({len(errors)}x)" if len(errors) > 1 else row)
    return [f"{system} failed in {', '.join(rows)}: {error}" for (system, error), rows in hit.items()]


def document(
    rows: Sequence[Row], results: Results, facts: Mapping[str, object], spine: bool = False
) -> dict[str, object]:
    """The run as JSON: `facts` (machine, versions, options) beside one entry per row."""
    return {"format": FORMAT, **facts, "rows": [_entry(row, results, spine) for row in rows]}


def _entry(row: Row, results: Results, spine: bool) -> dict[str, object]:
    medians = results.medians(row.name)
    ours = medians.get("redray")
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "goal": row.goal_text(spine),
        "values": {system: values for (system, name), values in results.values.items() if name == row.name},
        "medians": medians,
        "errors": {system: errors for (system, name), errors in results.errors.items() if name == row.name},
        # How many times as good as each peer redray is: above 1 redray wins, whichever direction is the good one.
        "ratios": {
            system: times_as_good(row, ours, theirs)
            for system, theirs in medians.items()
            if ours is not None and system != "redray"
        },
        "reached": verdict(row, results, spine),
    }
