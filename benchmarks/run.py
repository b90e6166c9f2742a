"""Times redray, Ray and cheaper peers in one sitting, a round of each after the other, and prints how they compare.

`python -m benchmarks.run --ray /path/to/python/with/ray --rows 'tasks_*' --rounds 5 --json result.json`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.floor import ROWS as FLOOR_ROWS
from benchmarks.goals import Row
from benchmarks.launch import ROOT, time_fresh, time_rows
from benchmarks.measure import Plan
from benchmarks.peers import OFFERS
from benchmarks.workloads import FRESH_ROWS, ROWS, WORKLOADS

SYSTEMS = ("redray", "ray", "floor", *OFFERS)
# The module a system cannot run without; what is not named here needs the standard library and numpy only.
NEEDS = {"redray": "redray", "ray": "ray", "floor": "hiredis", "mpire": "mpire"}
FRESH = tuple(row.name for row in FRESH_ROWS)


@dataclass(frozen=True)
class System:
    name: str
    python: str

    def offers(self, row: Row) -> bool:
        if self.name == "floor":
            return row.name in FLOOR_ROWS
        return row.name in OFFERS.get(self.name, (*WORKLOADS, *FRESH))

    def missing(self) -> str | None:
        """Why this system cannot be timed, in one sentence, or None."""
        module = NEEDS.get(self.name, "numpy")
        probe = f"import sys, importlib.util; sys.exit(importlib.util.find_spec({module!r}) is None)"
        try:
            code = subprocess.run([self.python, "-c", probe], cwd=ROOT, timeout=60).returncode
        except OSError as error:
            return f"{self.name} is skipped: {self.python} cannot be run ({error.strerror})."
        if not code:
            return None
        hint = " Name a Python that has it by --ray or $REDRAY_BENCH_RAY." if self.name == "ray" else ""
        return f"{self.name} is skipped: {module} is not installed for {self.python}.{hint}"


def matching(patterns: Sequence[str]) -> list[Row]:
    """Rows whose name fits one of the shell patterns, in the table's order."""
    return [row for row in ROWS.values() if any(fnmatchcase(row.name, pattern) for pattern in patterns)]


def present(options: argparse.Namespace, rows: Sequence[Row]) -> list[System]:
    """The systems that can be timed here; of each of the others, one line says why not."""
    asked = [System(name, options.ray if name == "ray" else sys.executable) for name in options.systems]
    useful = [system for system in asked if any(map(system.offers, rows))]
    reasons = {system: system.missing() for system in useful}
    for reason in filter(None, reasons.values()):
        print(reason, flush=True)
    return [system for system in useful if reasons[system] is None]


def time_round(system: System, rows: Sequence[Row], plan: Plan, results: report.Results) -> dict[str, str]:
    chosen = [row for row in rows if system.offers(row)]
    versions = time_rows(system.python, system.name, [row for row in chosen if row.name not in FRESH], plan, results)
    # Fresh starts come second: by then the byte code of everything they import has been written.
    time_fresh(system.python, system.name, [row.name for row in chosen if row.name in FRESH], plan, results)
    return versions


def machine() -> dict[str, object]:
    facts: dict[str, object] = {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": os.getloadavg()[0],
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        facts["processor"] = models[0] if models else "unknown"
    return facts


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError:
        return "not found"


def facts(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "machine": machine(),
        "versions": {"redis-server": output_of("redis-server", "--version")},
        "rounds": options.rounds,
        "goals": options.goals,
        "plan": asdict(plan),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--rows", nargs="+", default=["*"], metavar="PATTERN", help="names or shell patterns of rows (see --list)")
    add("--rounds", type=int, default=3, help="rounds of every system; the table shows medians (default 3)")
    add("--ray", metavar="PYTHON", default=os.environ.get("REDRAY_BENCH_RAY", sys.executable),
        help="a Python that has Ray (default $REDRAY_BENCH_RAY, else this one)")  # fmt: skip
    add("--systems", default=",".join(SYSTEMS), help="what to time, separated by commas (default all)")
    add("--json", type=Path, metavar="FILE", help="write everything measured, with machine and versions")
    add("--seconds", type=float, default=1.0, help="measuring time per row and round (default 1)")
    add("--cpus", type=int, default=2, help="CPUs each system is told to have (default 2)")
    add("--queued", type=int, default=10_000, help="tasks in the row `queued` (the goal speaks of 1,000,000)")
    add("--goals", choices=("full", "spine"), default="full", help="judge by all goals or by the first release's")
    add("--check", action="store_true", help="exit with 1 when a row misses its goal or fails on redray")
    add("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args(arguments)
    options.systems = options.systems.split(",")
    unknown = set(options.systems) - set(SYSTEMS)
    if unknown:
        parser.error(f"unknown systems: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    if not matching(options.rows):
        parser.error(f"no row is called {' or '.join(options.rows)}; --list names them")
    if min(options.rounds, options.seconds, options.cpus, options.queued) <= 0:
        parser.error("--rounds, --seconds, --cpus and --queued must be positive")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    rows, spine = matching(options.rows), options.goals == "spine"
    if options.list:
        print("\n".join(report.plain([[row.name, row.title, row.goal_text(spine)] for row in rows])))
        return 0
    plan, results = Plan(options.seconds, options.cpus, options.queued), report.Results()
    about = facts(options, plan)
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is not idle (load {os.getloadavg()[0]:.1f}): expect numbers that wander.")
    systems = present(options, rows)
    for turn in range(options.rounds):
        for system in systems:
            print(f"round {turn + 1} of {options.rounds}: {system.name}", flush=True)
            about["versions"] |= {system.name: time_round(system, rows, plan, results)}
    report.show(rows, results, spine)
    if options.json:
        options.json.write_text(json.dumps(report.document(rows, results, about, spine), indent=1) + "\n")
    missed = any(report.verdict(row, results, spine) in ("NO", "failed") for row in rows)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
