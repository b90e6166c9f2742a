"""What the forecast example shows: two tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.table import Table

from forecasting import backtest
from forecasting.data import Panel, history


class Outcome(TypedDict):
    """What became of one series. Errors are in the unit of `backtest.scale`."""

    index: int
    errors: dict[str, float]  # of each model over the validation windows
    model: str  # the one with the smallest of them
    held_out: float  # that model's error on the held-out window
    naive: float  # the naive forecast's error on the held-out window


def wins(outcomes: list[Outcome]) -> int:
    """On how many series the chosen model was strictly better than the naive forecast; a tie is no win."""
    return sum(outcome["held_out"] < outcome["naive"] for outcome in outcomes)


def by_model(outcomes: list[Outcome]) -> Table:
    """One row per model: where it was tried, its median validation error, how often it was chosen and then won."""
    table = Table(title="Models (errors: mean absolute error, 1 = an average step of the series)")
    table.add_column("model")
    for heading in ("tried on", "median error", "chosen for", "beat naive"):
        table.add_column(heading, justify="right")
    errors: dict[str, list[float]] = {}
    for outcome in outcomes:
        for model, error in outcome["errors"].items():
            errors.setdefault(model, []).append(error)
    chosen = {model: [outcome for outcome in outcomes if outcome["model"] == model] for model in errors}
    for model in sorted(errors, key=lambda name: -len(chosen[name])):
        won = share(wins(chosen[model]), len(chosen[model]))
        table.add_row(model, f"{len(errors[model])}", f"{np.median(errors[model]):.2f}", f"{len(chosen[model])}", won)
    return table


def by_source(panel: Panel, outcomes: list[Outcome]) -> Table:
    """One row per data set: the chosen models against the naive forecast on the held-out windows."""
    table = Table(title="Held out: the chosen model against the naive forecast")
    table.add_column("data")
    for heading in ("series", "beat naive", "median error", "naive's"):
        table.add_column(heading, justify="right")
    sources = list(dict.fromkeys(panel["source"].tolist()))
    for source in [*sources, "all"]:
        rows = [outcome for outcome in outcomes if source in ("all", panel[outcome["index"]]["source"])]
        chosen, naive = (np.median([row[key] for row in rows]) for key in ("held_out", "naive"))
        table.add_row(source, f"{len(rows)}", share(wins(rows), len(rows)), f"{chosen:.2f}", f"{naive:.2f}")
    return table


def share(part: int, whole: int) -> str:
    """`3 (75 %)` of 4; a dash of nothing."""
    return f"{part} ({part / whole:.0%})".replace("%", " %") if whole else "-"


def plot(panel: Panel, outcomes: list[Outcome], path: Path) -> None:
    """Draw the first series of up to six data sets with its held-out window and both forecasts of it, as a PNG."""
    # Imported here: it takes longer than all other imports of the example together.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = {str(panel[outcome["index"]]["source"]): outcome for outcome in reversed(outcomes)}
    shown = list(first.values())[-6:][::-1]
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), constrained_layout=True)
    for axis, outcome in zip(axes.flat, shown, strict=False):
        record = panel[outcome["index"]]
        values, horizon = history(record), int(record["horizon"])
        past = len(values) - horizon
        ahead = np.arange(past, len(values))
        axis.plot(values, color="black", linewidth=1, label="what happened")
        axis.axvspan(past - 0.5, len(values) - 0.5, color="0.92")
        for model, colour in ((outcome["model"], "tab:blue"), ("naive", "tab:orange")):
            axis.plot(ahead, backtest.fit(record, model, past)(horizon), color=colour, label=model.replace("_", " "))
        axis.set_title(str(record["name"]), fontsize=10)
        axis.legend(fontsize=8, loc="best", frameon=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    figure.suptitle("Forecasts of the held-out window (grey), made from the values before it")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
