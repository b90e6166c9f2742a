"""An honest comparison: models are chosen on validation windows and judged once, on values nobody has seen.

    |--------------------- history ---------------------|--- held out ---|
    |----- fit -----|-- validate --|
    |------ fit ------|-- validate --|
    |------------- fit ------------ ...  |-- validate --|                    a rolling origin, `ORIGINS` times

Parameters are fitted anew at each origin, from the values before it only.
"""

from __future__ import annotations

import numpy as np

from forecasting.data import Series, history
from forecasting.models import MODELS, Forecast

ORIGINS = 12
"""How many validation windows, each `horizon` long and one step after the other, end before the held-out one."""


def validate(record: np.void, model: str) -> float:
    """Mean absolute error of `model` over the validation windows, in units of `scale`."""
    values, horizon = history(record), int(record["horizon"])
    last = len(values) - 2 * horizon
    origins = range(last, last - ORIGINS, -1)
    errors = [error(fit(record, model, origin), values[origin : origin + horizon]) for origin in origins]
    return float(np.mean(errors)) / scale(record)


def hold_out(record: np.void, model: str) -> float:
    """Mean absolute error of `model`, fitted to all but the held-out window, on that window, in units of `scale`."""
    values, horizon = history(record), int(record["horizon"])
    return error(fit(record, model, len(values) - horizon), values[-horizon:]) / scale(record)


def fit(record: np.void, model: str, end: int | None = None) -> Forecast:
    """`model` fitted to the values before `end`, or to all of them."""
    return MODELS[model](history(record)[:end], int(record["period"]))


def error(forecast: Forecast, actual: Series) -> float:
    """Mean absolute error of a forecast of as many steps as `actual` has."""
    return float(np.mean(np.abs(forecast(len(actual)) - actual)))


def scale(record: np.void) -> float:
    """Mean absolute one-step change before the held-out window: errors in this unit compare across series."""
    return float(np.mean(np.abs(np.diff(history(record)[: -int(record["horizon"])]))))
