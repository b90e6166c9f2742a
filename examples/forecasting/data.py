"""Real series, read offline from the installed statsmodels package and cut into windows.

Long series are cut into windows of equal length. A window's last `horizon` values are its held-out test, and windows
of one series end at least `horizon` steps apart: no value is held out twice, so the windows of a series count as
separate forecasting problems. Every window is forecast from its own past only.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST = 120
"""Most values a window may hold: the width of `Panel`'s value field."""

# One record per window in one contiguous array: it is put once, and every task on a node reads that one copy.
RECORD = np.dtype(
    [
        ("name", "U48"),
        ("source", "U16"),
        ("period", np.int64),  # steps in a season, 1 for none
        ("horizon", np.int64),  # steps to forecast
        ("length", np.int64),  # how many of `values` are in use
        ("values", np.float64, (LONGEST,)),
    ]
)
Panel = npt.NDArray[np.void]
Series = npt.NDArray[np.float64]


class Cut(NamedTuple):
    """How the series of one source become windows. Lengths are in steps of the source (months, quarters, years)."""

    period: int
    horizon: int
    length: int
    step: int


CUTS = {
    "fertility": Cut(period=1, horizon=5, length=60, step=60),  # births per woman by country, yearly: one window each
    "macrodata": Cut(period=4, horizon=4, length=80, step=12),  # the United States' economy, quarterly
    "elnino": Cut(period=12, horizon=12, length=120, step=12),  # sea surface temperature, monthly
    "co2": Cut(period=12, horizon=12, length=120, step=12),  # carbon dioxide over Mauna Loa, monthly
    "elec_equip": Cut(period=12, horizon=12, length=120, step=12),  # turnover of an industry in the EU, monthly
    "danish_data": Cut(period=4, horizon=4, length=80, step=80),  # money and prices in Denmark, quarterly
    "sunspots": Cut(period=1, horizon=5, length=100, step=10),  # sunspot activity since 1700, yearly
    "nile": Cut(period=1, horizon=5, length=60, step=10),  # flow of the Nile, yearly
}


def load(most: int | None = None) -> Panel:
    """All windows, or `most` of them picked evenly across the sources; an array of `RECORD`."""
    records = [
        (f"{name} to {end}" if many else name, source, cut.period, cut.horizon, len(window), _padded(window))
        for source, cut in CUTS.items()
        for name, values in _series(source)
        for end, window, many in _windows(values, cut)
    ]
    panel = np.array(records, dtype=RECORD)
    if most is None or most >= len(panel):
        return panel
    picked: Panel = panel[np.linspace(0, len(panel) - 1, most).round().astype(int)]
    return picked


def history(record: np.void) -> Series:
    """The values of one window, oldest first."""
    values: Series = record["values"][: record["length"]]
    return values


def _windows(values: Series, cut: Cut) -> Iterator[tuple[int, Series, bool]]:
    """(position of its end, values, whether there are several) of each window, counted back from the newest value."""
    length = min(cut.length, len(values))
    ends = range(len(values), length - 1, -cut.step)
    for end in ends:
        window = values[end - length : end]
        # A window without any movement before its test has nothing to be forecast or scaled by.
        if np.ptp(window[: -cut.horizon]) > 0:
            yield end, window, len(ends) > 1


def _padded(window: Series) -> Series:
    return np.pad(window, (0, LONGEST - len(window)), constant_values=np.nan)


def _series(source: str) -> Iterator[tuple[str, Series]]:
    """(name, values) of each series in one of statsmodels' data sets."""
    # Imported here: only the driver reads data, so a worker need not have statsmodels.
    frame = import_module(f"statsmodels.datasets.{source}").load_pandas().data
    if source == "fertility":
        years = frame.set_index("Country Name").loc[:, "1960":"2011"].dropna()
        yield from ((str(country), row.to_numpy(np.float64)) for country, row in years.iterrows())
    elif source == "co2":
        # A gap takes the value before it: interpolating would let the past see the future.
        yield "co2", frame["co2"].resample("MS").mean().ffill().to_numpy(np.float64)
    elif source == "elnino":
        yield "elnino", frame.drop(columns="YEAR").to_numpy(np.float64).ravel()
    else:
        columns = frame.columns.difference(["year", "quarter", "period", "YEAR"], sort=False)
        for column in columns:
            yield (source if len(columns) == 1 else f"{source} {column}"), frame[column].to_numpy(np.float64)
