"""The benchmark harness: what it computes, and what it makes of systems that fail. No time is asserted anywhere."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import floor, launch, peers, processes, report, run, workloads
from benchmarks.goals import AtLeast, AtMost, Row, Times, reached, times_as_good
from benchmarks.measure import Plan

FAST = Plan(seconds=1e-9, cpus=1, queued=20)
RATE = Row("rate", "a rate", "/s", (Times(8, "ray"), Times(1, "pool")), capped=True, spine=(Times(3, "ray"),))
DURATION = Row("duration", "a duration", "s", (AtMost(0.3), Times(15, "ray")), higher_is_better=False)


# ---- goals --------------------------------------------------------------------------------------------------
def test_a_ratio_above_one_means_we_win_in_both_directions() -> None:
    assert times_as_good(RATE, 200, 100) == 2
    assert times_as_good(DURATION, 0.5, 1.0) == 2


@pytest.mark.parametrize(
    ("row", "medians", "expected"),
    [
        (RATE, {"redray": 800, "ray": 100, "pool": 800}, True),
        (RATE, {"redray": 799, "ray": 100, "pool": 1}, False),
        (RATE, {"redray": 800, "ray": 100, "pool": 801}, False),
        (RATE, {"redray": 800, "ray": 100}, None),  # the pool was not measured, so nobody knows
        (RATE, {"redray": 700, "ray": 100}, False),  # one missed goal is enough
        (RATE, {"redray": 700, "ray": 100, "pool": 1, "floor": 1000}, True),  # 70 % of the floor will do
        (RATE, {"redray": 690, "ray": 100, "pool": 1, "floor": 1000}, False),
        (replace(RATE, capped=False), {"redray": 700, "ray": 100, "pool": 1, "floor": 1000}, False),
        (DURATION, {"redray": 0.3, "ray": 4.5}, True),
        (DURATION, {"redray": 0.31, "ray": 9.0}, False),
        (DURATION, {"redray": 0.3, "ray": 4.4}, False),
        (replace(RATE, goals=(AtLeast(5),)), {"redray": 5}, True),
        (replace(RATE, goals=(AtLeast(5),)), {"redray": 4.9}, False),
        (RATE, {"ray": 100}, None),
        (replace(RATE, goals=()), {"redray": 1}, None),
    ],
)
def test_reached(row: Row, medians: dict[str, float], expected: bool | None) -> None:
    assert reached(row, medians) is expected


def test_the_spine_has_its_own_smaller_goals() -> None:
    assert reached(RATE, {"redray": 300, "ray": 100}, spine=True) is True
    # The floor is no excuse there: three times Ray is well below it.
    assert reached(RATE, {"redray": 290, "ray": 100, "floor": 300}, spine=True) is False


# ---- results and the report ---------------------------------------------------------------------------------
def measured(row: Row, **values: list[float]) -> report.Results:
    results = report.Results()
    for system, each in values.items():
        for value in each:
            results.add(system, row.name, value)
    return results


def test_medians_are_taken_over_rounds_per_system() -> None:
    results = measured(RATE, redray=[1, 100, 3], ray=[10, 20])
    results.add("redray", "another row", 7)
    assert results.medians("rate") == {"redray": 3, "ray": 15}


def test_a_row_that_failed_once_is_failed_and_its_median_is_marked() -> None:
    results = measured(RATE, redray=[800, 900], ray=[100], pool=[1])
    assert report.verdict(RATE, results) == "yes"
    results.fail("redray", "rate", "WorkerCrashedError: gone")
    assert report.verdict(RATE, results) == "failed"
    assert report.cells(RATE, results)[2] == "850 (!)"


def test_a_failing_peer_does_not_hide_the_row() -> None:
    results = measured(RATE, redray=[800])
    results.fail("ray", "rate", "boom")
    line = dict(zip(report.HEADINGS, report.cells(RATE, results), strict=True))
    assert (line["redray"], line["ray"], line["x ray"], line["reached"]) == ("800", "failed", "-", "?")


def test_a_line_shows_ratio_floor_and_the_best_of_the_others() -> None:
    results = measured(RATE, redray=[400], ray=[100], floor=[1000], pool=[300], mpire=[500])
    line = dict(zip(report.HEADINGS, report.cells(RATE, results), strict=True))
    assert (line["x ray"], line["of floor"], line["best other"], line["reached"]) == ("4x", "40%", "mpire 500", "NO")
    shorter = measured(DURATION, pool=[0.4], mpire=[0.2])
    assert report.cells(DURATION, shorter)[5] == "mpire 0.2"


def test_without_redray_there_is_no_verdict() -> None:
    assert report.verdict(RATE, measured(RATE, ray=[100])) == "-"


def test_an_error_shared_by_rows_is_told_once() -> None:
    results = report.Results()
    for row in ("one", "two"):
        results.fail("ray", row, "it does not come up")
    results.fail("ray", "two", "it does not come up")
    assert report.error_lines(results) == ["ray failed in one, two (2x): it does not come up"]


def test_the_plain_table_keeps_columns_aligned() -> None:
    assert report.plain([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]


def test_json_holds_values_medians_ratios_and_errors() -> None:
    results = measured(DURATION, redray=[0.1, 0.3, 0.2], ray=[5.0])
    results.fail("mpire", "duration", "boom")
    whole = json.loads(json.dumps(report.document([DURATION], results, {"machine": {"cpus": 2}})))
    assert whole["format"] == report.FORMAT
    assert whole["machine"] == {"cpus": 2}
    (entry,) = whole["rows"]
    assert entry["values"] == {"redray": [0.1, 0.3, 0.2], "ray": [5.0]}
    assert entry["medians"] == {"redray": 0.2, "ray": 5.0}
    assert entry["ratios"] == {"ray": 25.0}
    assert entry["errors"] == {"mpire": ["boom"]}
    assert (entry["goal"], entry["reached"]) == ("<= 0.3, >= 15x ray", "yes")


# ---- workloads on a module that does everything at once -----------------------------------------------------
class Ref:
    def __init__(self, value: object) -> None:
        self.value = value


class Remote:
    """A function or method that runs when it is called."""

    def __init__(self, call: Callable[..., Any], num_returns: int = 1) -> None:
        self.call, self.num_returns = call, num_returns

    def options(self, num_returns: int) -> Remote:
        return Remote(self.call, num_returns)

    def remote(self, *args: object) -> Any:
        value = self.call(*(arg.value if isinstance(arg, Ref) else arg for arg in args))
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        return Ref(value) if self.num_returns == 1 else [Ref(each) for each in value]


class ActorHandle:
    def __init__(self, instance: object) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Remote:
        return Remote(getattr(self._instance, name))


class RemoteClass:
    def __init__(self, cls: type) -> None:
        self.cls = cls

    def remote(self) -> ActorHandle:
        return ActorHandle(self.cls())


class Group:
    def wait(self, timeout_seconds: float) -> bool:
        return True


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("eager_ray")
    module.remote = lambda target: RemoteClass(target) if isinstance(target, type) else Remote(target)
    module.put = Ref
    module.get = lambda ref: [each.value for each in ref] if isinstance(ref, list) else ref.value
    module.wait = lambda refs: (refs[:1], refs[1:])
    module.kill = lambda actor: None
    util: Any = ModuleType("eager_ray.util")
    util.placement_group = lambda bundles: Group()
    util.remove_placement_group = lambda group: None
    monkeypatch.setitem(sys.modules, "eager_ray", module)
    monkeypatch.setitem(sys.modules, "eager_ray.util", util)
    # What is tested is that the workloads run through, so small ones will do.
    monkeypatch.setattr(workloads, "BATCH", 8)
    monkeypatch.setattr(workloads, "MANY", 8)
    for name in ("NUMBERS_IN_80_MB", "NUMBERS_IN_100_MB"):
        monkeypatch.setattr(workloads, name, 20 * 512)
    return module  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_each_workload_runs_on_the_common_api(eager: ModuleType, name: str) -> None:
    assert workloads.WORKLOADS[name](eager, FAST) > 0


def test_each_row_has_a_goal_a_title_and_a_workload() -> None:
    assert list(workloads.ROWS) == [*run.FRESH, *workloads.WORKLOADS]
    for row in workloads.ROWS.values():
        assert row.goals and row.unit and row.title
        assert row.floor == (row.name in floor.ROWS)
        judged_by = {goal.peer for goal in row.goals if isinstance(goal, Times)} - {"ray"}
        assert all(row.name in peers.OFFERS[peer] for peer in judged_by)


def test_a_rate_counts_units_and_leaves_the_warm_up_out() -> None:
    calls: list[int] = []
    assert Plan(seconds=1e-9).rate(lambda: calls.append(1), units=1e12) > 1e12
    assert len(calls) == 2


# ---- child processes: a package called `ray` that fails in chosen ways --------------------------------------
FAKE = """
import os, subprocess, sys, threading

class Remote:
    def __init__(self, call): self.call = call
    def remote(self, *args):
        value = self.call(*args)
        return Actor(value) if isinstance(self.call, type) else value

class Actor:
    def __init__(self, instance): self.instance = instance
    def __getattr__(self, name): return Remote(getattr(self.instance, name))

def init(**options):
    if os.environ.get("FAKE_INIT") == "fails":
        raise RuntimeError("no room for a cluster")
    command = [sys.executable, "-c", "import threading; threading.Event().wait(60)"]
    daemon = subprocess.Popen(command, start_new_session=True)  # what a cluster would leave behind
    with open(os.environ["FAKE_PIDS"], "a") as pids:
        print(daemon.pid, file=pids)

def shutdown():
    if os.environ.get("FAKE_SHUTDOWN") == "fails":
        raise RuntimeError("the cluster does not let go")
def remote(target): return Remote(target)
def get(value): return value
def put(value): raise ValueError("no room for an object")
def wait(refs):
    print("the store is on fire", flush=True)
    os._exit(3)
def kill(actor): threading.Event().wait(60)
"""


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`import ray` finds the fake in child processes; yields the file with the pids of what it left behind."""
    (tmp_path / "ray.py").write_text(FAKE)
    pids = tmp_path / "pids"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAKE_PIDS", str(pids))
    monkeypatch.setattr(launch, "LEFTOVER_TIMEOUT", 0.2)
    yield pids
    if pids.exists():
        alive = [pid for pid in pids.read_text().split() if is_running(int(pid))]
        assert not alive, "a process that a benchmark started outlived it"


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    # A zombie has ended; whoever adopted it has just not looked yet.
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def rows(*names: str) -> list[Row]:
    return [replace(workloads.ROWS[name], timeout=2) for name in names]


def test_rows_that_raise_crash_or_hang_are_reported_and_the_others_timed(fake_ray: Path) -> None:
    results = report.Results()
    names = ("tasks_sync", "put_small", "wait", "chain", "actor_sync", "tasks_async")
    versions = launch.time_rows(sys.executable, "ray", rows(*names), FAST, results)

    assert {name for system, name in results.values if system == "ray"} == {"tasks_sync", "chain", "tasks_async"}
    assert results.errors["ray", "put_small"] == ["ValueError: no room for an object"]
    assert results.errors["ray", "wait"] == ["the process ended with exit code 3; it last said: the store is on fire"]
    assert results.errors["ray", "actor_sync"][0].startswith("no answer within 2 s")
    assert "python" in versions
    assert len(fake_ray.read_text().split()) == 3  # one process until the crash, one until the hang, one for the rest


def test_a_system_that_does_not_come_up_fails_all_rows_at_once(fake_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_INIT", "fails")
    results = report.Results()
    launch.time_rows(sys.executable, "ray", rows("tasks_sync", "chain"), FAST, results)
    launch.time_fresh(sys.executable, "ray", run.FRESH, FAST, results)
    assert {name for _, name in results.errors} == {"tasks_sync", "chain", *run.FRESH}
    assert all("no room for a cluster" in errors[0] for errors in results.errors.values())
    assert not results.values


def test_a_fresh_start_gives_first_result_and_the_memory_of_all_but_the_driver(fake_ray: Path) -> None:
    results = report.Results()
    launch.time_fresh(sys.executable, "ray", run.FRESH, FAST, results)
    assert not results.errors
    assert results.medians("first_result")["ray"] > 0
    # The daemon in its own session is the only other process: an interpreter, so megabytes and not gigabytes.
    assert 1 < results.medians("idle_memory")["ray"] < 100


def test_a_shutdown_that_fails_is_said_and_costs_no_row(
    fake_ray: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_SHUTDOWN", "fails")
    results = report.Results()
    launch.time_rows(sys.executable, "ray", rows("tasks_sync"), FAST, results)
    assert results.medians("tasks_sync") and not results.errors
    said = capsys.readouterr().out
    assert "after its last row, the process ended with exit code 1" in said
    assert "the cluster does not let go" in said


@pytest.mark.parametrize("system", ["floor", "pool", "memcpy"])
def test_each_cheap_peer_runs_all_rows_it_offers(system: str) -> None:
    results = report.Results()
    offered = [row for row in workloads.ROWS.values() if run.System(system, sys.executable).offers(row)]
    launch.time_rows(sys.executable, system, offered, FAST, results)
    assert not results.errors
    assert {name for _, name in results.values} == {row.name for row in offered} != set()


def test_frames_of_the_floor_are_cut_whole() -> None:
    whole = floor.pack(7, floor.CALL, b"abc") + floor.pack(8, floor.TASK, b"")
    buffer = bytearray(whole + floor.pack(9, floor.TASK, b"later")[:-1])
    assert floor.cut_frames(buffer) == [(7, floor.CALL, b"abc"), (8, floor.TASK, b"")]
    assert floor.cut_frames(buffer) == []
    assert floor.cut_frames(buffer + b"r") == [(9, floor.TASK, b"later")]


def test_memory_of_a_process_that_has_ended_is_nothing() -> None:
    assert processes.proportional_mb({2**22 + 1}) == 0


# ---- the command --------------------------------------------------------------------------------------------
def test_systems_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []

    def time_round(system: run.System, rows: list[Row], plan: Plan, results: report.Results) -> dict[str, str]:
        order.append(system.name)
        results.add(system.name, "wait", {"redray": 14.0, "ray": 1.0}[system.name])
        return {system.name: "1.0"}

    monkeypatch.setattr(run, "time_round", time_round)
    monkeypatch.setattr(run.System, "missing", lambda self: None)
    file = tmp_path / "out.json"
    arguments = ["--rows", "wait", "--rounds", "2", "--json", str(file)]
    assert run.main(arguments) == 0
    assert order == ["redray", "ray", "redray", "ray"]
    assert run.main([*arguments, "--check"]) == 1  # 14 times is not 15 times

    whole = json.loads(file.read_text())
    assert whole["versions"]["ray"] == {"ray": "1.0"}
    assert whole["rows"][0]["values"] == {"redray": [14.0, 14.0], "ray": [1.0, 1.0]}
    assert {"when", "commit", "machine", "rounds", "plan"} <= whole.keys()


def test_a_system_that_is_not_there_is_skipped_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.NEEDS, "ray", "no_such_module")
    why = run.System("ray", sys.executable).missing()
    assert why is not None and why.startswith("ray is skipped: no_such_module is not installed")
    assert "\n" not in why
    why = run.System("ray", "/no/such/python").missing()
    assert why == "ray is skipped: /no/such/python cannot be run (No such file or directory)."


def test_rows_are_chosen_by_pattern_in_the_order_of_the_table() -> None:
    assert [row.name for row in run.matching(["wait", "tasks_*"])] == ["tasks_sync", "tasks_async", "wait"]


@pytest.mark.parametrize("wrong", [["--rows", "nothing_like_it"], ["--systems", "ray,slurm"], ["--rounds", "0"]])
def test_wrong_options_end_with_a_sentence(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run.main(wrong)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err
