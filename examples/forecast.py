"""Choose and serve a forecasting model for each of several hundred real series.

The job: every candidate model is backtested on every series (one task each, about 4,000), the best one per series is
judged on values held out until then (one task each, fed by the others' results), a leaderboard actor keeps the
standing, and a pool of actors serves the chosen models to some 2,000 requests. The arithmetic is in forecasting/.

Prints, in this order: the job's size; two progress bars; how long the job took and on how many CPUs; how long a plain
loop over the same work takes on this machine, that both gave the same answers, and the speed-up; a table of the models
and one of the data sets; `the chosen model beats the naive forecast on X of N series (Y %)`; rate and latency of the
requests; where the picture is. The exit code is 1 if the chosen models don't win on most series or the loop disagrees.

    python examples/forecast.py                                  everything, on a cluster of its own
    python examples/forecast.py --series 40 --cpus 1             a small one, one task at a time
    python examples/forecast.py --address redis://HOST:6379      the same job on a running cluster
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import forecasting
import numpy as np
from forecasting import backtest, data, models, report
from forecasting.data import Panel
from forecasting.report import Outcome
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import redray
from redray import cloudpickle

# The nodes of a cluster have numpy but not this folder, so its functions travel by value.
cloudpickle.register_pickle_by_value(forecasting)

AT_ONCE = 64
"""Finished series handed to the leaderboard at a time."""
MOST_ACTORS = 8
"""Size of the serving pool on a cluster with many CPUs."""


@redray.remote
def validate(panel: Panel, index: int, model: str) -> float:
    """Backtest one model on one series."""
    return backtest.validate(panel[index], model)


@redray.remote
def choose(panel: Panel, index: int, *errors: float) -> Outcome:
    """Pick the model with the smallest error on one series, and only then look at the held-out window."""
    return judge(panel, index, errors)


def judge(panel: Panel, index: int, errors: tuple[float, ...]) -> Outcome:
    """What `choose` does; the plain loop calls it too."""
    record = panel[index]
    by_name = dict(zip(models.candidates(int(record["period"])), errors, strict=True))
    best = min(by_name, key=lambda name: by_name[name])
    held_out, naive = backtest.hold_out(record, best), backtest.hold_out(record, "naive")
    return {"index": index, "errors": by_name, "model": best, "held_out": held_out, "naive": naive}


@redray.remote
class Leaderboard:
    """Keeps the outcomes as they come in."""

    def __init__(self) -> None:
        self._outcomes: dict[int, Outcome] = {}

    def add(self, *outcomes: Outcome) -> str:
        """Take in some outcomes; return the standing in a few words."""
        self._outcomes.update((outcome["index"], outcome) for outcome in outcomes)
        (leader, times), *_ = Counter(outcome["model"] for outcome in self._outcomes.values()).most_common(1)
        return f"{leader} leads with {times} of {len(self._outcomes)} series"

    def outcomes(self) -> list[Outcome]:
        """Every outcome, in the order of the series."""
        return [self._outcomes[index] for index in sorted(self._outcomes)]


@redray.remote
class Forecaster:
    """Holds the chosen models of its share of the series, fitted to all values, and answers requests."""

    def __init__(self, panel: Panel, chosen: dict[int, str]) -> None:
        self._forecasts = {index: backtest.fit(panel[index], model) for index, model in chosen.items()}

    def ready(self) -> int:
        """How many models this actor holds."""
        return len(self._forecasts)

    def predict(self, index: int, steps: int) -> list[float]:
        """The next `steps` values of one series."""
        return self._forecasts[index](steps).tolist()


def compete(panel: Panel, shared: redray.ObjectRef, console: Console) -> list[Outcome]:
    """Run the whole competition as tasks; outcomes in the order of the series."""
    board = Leaderboard.remote()
    pending, sizes = [], {}
    for index in range(len(panel)):
        names = models.candidates(int(panel[index]["period"]))
        done = choose.remote(shared, index, *[validate.remote(shared, index, name) for name in names])
        pending.append(done)
        sizes[done] = len(names) + 1
    with progress(console) as bar:
        task = bar.add_task("backtest", total=sum(sizes.values()))
        while pending:
            ready, pending = redray.wait(pending, num_returns=min(AT_ONCE, len(pending)))
            # The outcomes go from the tasks to the leaderboard; this process passes on their refs only.
            standing = board.add.remote(*ready)
            bar.update(task, advance=sum(sizes.pop(ref) for ref in ready), description=redray.get(standing))
    return redray.get(board.outcomes.remote())


def plain_loop(panel: Panel, console: Console) -> list[Outcome]:
    """The same work without redray, one series after another in this process."""
    outcomes = []
    with progress(console) as bar:
        for index in bar.track(range(len(panel)), description="the same in a plain loop"):
            names = models.candidates(int(panel[index]["period"]))
            outcomes.append(judge(panel, index, tuple(backtest.validate(panel[index], name) for name in names)))
    return outcomes


def serve(
    panel: Panel, shared: redray.ObjectRef, outcomes: list[Outcome], requests: int, actors: int
) -> tuple[list[float], float]:
    """Answer random requests from a pool of actors, two at a time for each: (seconds of each one, seconds in all)."""
    pool = []
    for number in range(actors):
        chosen = {outcome["index"]: outcome["model"] for outcome in outcomes[number::actors]}
        pool.append(Forecaster.remote(shared, chosen))
    redray.get([forecaster.ready.remote() for forecaster in pool])

    indices = np.random.default_rng(0).integers(len(panel), size=requests).tolist()
    sent: dict[redray.ObjectRef, float] = {}
    latencies = []
    began = time.perf_counter()
    while indices or sent:
        while indices and len(sent) < 2 * actors:
            index = indices.pop()
            now = time.perf_counter()
            sent[pool[index % actors].predict.remote(index, int(panel[index]["horizon"]))] = now
        (answered,), _ = redray.wait(list(sent), num_returns=1)
        redray.get(answered)
        latencies.append(time.perf_counter() - sent.pop(answered))
    return latencies, time.perf_counter() - began


def progress(console: Console) -> Progress:
    """A progress bar that ends with a count and the time passed."""
    columns = (TextColumn("{task.description:<44}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def same(ours: list[Outcome], theirs: list[Outcome]) -> bool:
    """Whether two runs chose the same models with the same errors."""
    return all(
        a["model"] == b["model"] and np.allclose([a["held_out"], a["naive"]], [b["held_out"], b["naive"]])
        for a, b in zip(ours, theirs, strict=True)
    )


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Choose and serve a forecasting model for each of many real series.")
    parser.add_argument("--series", type=int, help="how many series to take, of 453 (default: all)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cpus", type=int, help="CPUs of the cluster to start (default: this machine's)")
    where.add_argument("--address", help="a running cluster, as redis://HOST:PORT (default: start one)")
    parser.add_argument("--requests", type=int, default=2000, help="prediction requests to answer (default: 2000)")
    parser.add_argument("--plot", type=Path, default=Path("forecast.png"), help="the picture (default: forecast.png)")
    args = parser.parse_args(argv)
    for name in ("series", "cpus", "requests"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return args


def race(panel: Panel, shared: redray.ObjectRef, console: Console) -> tuple[list[Outcome], bool]:
    """The competition on the cluster, then in a plain loop: the outcomes, and whether both had the same."""
    cpus = int(redray.cluster_resources()["CPU"])
    tasks = sum(len(models.candidates(int(period))) + 1 for period in panel["period"])
    console.print(f"{len(panel)} series, {tasks:,} tasks, {panel.nbytes / 1e6:.1f} MB of data put once, {cpus} CPUs")
    began = time.perf_counter()
    outcomes = compete(panel, shared, console)
    halfway = time.perf_counter()
    plain = plain_loop(panel, console)
    ours, theirs = halfway - began, time.perf_counter() - halfway
    agree = same(outcomes, plain)
    console.print(f"redray: {ours:.1f} s on {cpus} CPUs, {tasks / ours:,.0f} tasks a second")
    console.print(
        f"plain loop: {theirs:.1f} s, {'the same' if agree else 'DIFFERENT'} answers; speed-up {theirs / ours:.2f}"
    )
    return outcomes, agree


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 if the chosen models beat the naive forecast on most series."""
    args, console = arguments(argv), Console(highlight=False)
    panel = data.load(args.series)
    redray.init(args.address, num_cpus=args.cpus)
    shared = redray.put(panel)
    outcomes, agree = race(panel, shared, console)

    console.print(report.by_model(outcomes), report.by_source(panel, outcomes))
    won = report.wins(outcomes)
    rate = report.share(won, len(panel)).replace(" (", f" of {len(panel)} series (")
    console.print(f"the chosen model beats the naive forecast on {rate}")

    actors = min(int(redray.cluster_resources()["CPU"]), len(panel), MOST_ACTORS)
    latencies, took = serve(panel, shared, outcomes, args.requests, actors)
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    console.print(
        f"{args.requests:,} requests answered by {actors} actors: {args.requests / took:,.0f} a second, "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    report.plot(panel, outcomes, args.plot)
    console.print(f"picture: {args.plot}")
    return 0 if agree and won * 2 > len(panel) else 1


if __name__ == "__main__":
    sys.exit(main())
