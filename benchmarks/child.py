"""One process that times the chosen rows on one system and reports each as a line of JSON.

Lines: {"versions": ...}, then {"start": row} and {"row": row, "value" or "error": ...} for each row, at last
{"end": true}. The parent knows from the last `start` which row it hangs or dies in.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata

from benchmarks.measure import Plan

Timed = Callable[[], float]
APIS = ("redray", "ray")


@contextmanager
def opened(system: str, plan: Plan) -> Iterator[dict[str, Timed]]:
    """The rows this system can run, while whatever they need is up."""
    if system in APIS:
        from benchmarks.workloads import WORKLOADS

        ray = import_module(system)
        ray.init(num_cpus=plan.cpus, include_dashboard=False, log_to_driver=False)
        try:
            yield {name: lambda run=run: run(ray, plan) for name, run in WORKLOADS.items()}  # type: ignore[misc]
        finally:
            ray.shutdown()
    elif system == "floor":
        from benchmarks import floor

        with floor.running(plan) as rows:
            yield rows
    else:
        from benchmarks import peers

        with peers.PEERS[system](plan) as rows:
            yield rows


def versions(system: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (system, "numpy", "hiredis", "redis"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def time_row(name: str, rows: dict[str, Timed]) -> dict[str, object]:
    try:
        return {"row": name, "value": rows[name]()}
    except Exception as error:  # whatever a system raises is that row's result; the next rows still run
        return {"row": name, "error": f"{type(error).__name__}: {error}"[:2000]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.child")
    parser.add_argument("system")
    parser.add_argument("--rows", required=True, help="names, separated by commas")
    parser.add_argument("--report", type=int, required=True, help="file descriptor for the lines of JSON")
    parser.add_argument("--plan", default="{}", help="fields of Plan as JSON")
    options = parser.parse_args()
    # Processes the system under test starts must not hold the pipe open: the parent would wait for them.
    os.set_inheritable(options.report, False)

    def report(line: dict[str, object]) -> None:
        os.write(options.report, json.dumps(line).encode() + b"\n")

    report({"versions": versions(options.system)})
    with opened(options.system, Plan(**json.loads(options.plan))) as rows:
        for name in options.rows.split(","):
            report({"start": name})
            report(time_row(name, rows))
        report({"end": True})


if __name__ == "__main__":
    main()
