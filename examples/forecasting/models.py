"""Ten small forecasting models in numpy.

A model is a function `fit(history, period) -> forecast`: `history` holds the past, oldest first, `period` the steps in
a season (1 for none), and `forecast(steps)` returns the next `steps` values. Nothing but `history` reaches a model.
Sources: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice" (3rd edition), chapters 5, 8 and 9;
Assimakopoulos and Nikolopoulos (2000) for theta, in the form shown by Hyndman and Billah (2003).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Forecast = Callable[[int], Array]
Model = Callable[[Array, int], Forecast]


def naive(history: Array, period: int) -> Forecast:
    """The last value, for ever."""
    return lambda steps: np.full(steps, history[-1])


def seasonal_naive(history: Array, period: int) -> Forecast:
    """The last season, again and again."""
    return lambda steps: np.resize(history[-period:], steps)


def drift(history: Array, period: int) -> Forecast:
    """The line through the first and the last value."""
    slope = (history[-1] - history[0]) / (len(history) - 1)
    return lambda steps: history[-1] + slope * _ahead(steps)


def trend_and_season(history: Array, period: int) -> Forecast:
    """A straight line plus one constant per season, by least squares."""
    times = np.arange(len(history))
    weights = np.linalg.lstsq(_calendar(times, period), history)[0]
    return lambda steps: _calendar(len(history) + np.arange(steps), period) @ weights


def ses(history: Array, period: int) -> Forecast:
    """Simple exponential smoothing: a level, no trend, no season."""
    return _smoothing(history, 1, alphas=np.linspace(0.05, 1.0, 20), betas=[0.0], gammas=[0.0], dampings=[0.0])


def holt(history: Array, period: int) -> Forecast:
    """Exponential smoothing with a trend that may fade."""
    return _smoothing(history, 1, _LEVELS, betas=[0.05, 0.15, 0.3, 0.6, 0.9], gammas=[0.0], dampings=[0.8, 0.9, 1.0])


def holt_winters(history: Array, period: int) -> Forecast:
    """Exponential smoothing with a trend and an additive season."""
    return _smoothing(history, period, _LEVELS, betas=[0.05, 0.2], gammas=[0.05, 0.2, 0.5], dampings=[0.9, 1.0])


def theta(history: Array, period: int) -> Forecast:
    """Simple exponential smoothing plus half the slope of the trend line, after taking the season out."""
    times = np.arange(len(history))
    weights = np.linalg.lstsq(_calendar(times, period), history)[0]
    slope, season = weights[0], weights[1:] - weights[1:].mean()
    level = ses(history - season[times % period], 1)
    return lambda steps: level(steps) + slope / 2 * _ahead(steps) + season[(len(history) + np.arange(steps)) % period]


def ar(history: Array, period: int) -> Forecast:
    """Autoregression with a constant by least squares; its order has the lowest AIC."""
    longest = min(period + 2, len(history) // 4)
    # Every order is fitted to the same targets: AIC compares nothing else fairly.
    targets = history[longest:]
    lags = np.column_stack([np.ones(len(targets)), *(history[longest - k : -k] for k in range(1, longest + 1))])
    fits = [np.linalg.lstsq(lags[:, : order + 1], targets)[0] for order in range(1, longest + 1)]
    weights = min(fits, key=lambda fit: _aic(targets - lags[:, : len(fit)] @ fit, len(fit)))

    def forecast(steps: int) -> Array:
        past = list(history[-longest:])
        for _ in range(steps):
            past.append(float(weights[0] + weights[1:] @ past[: -len(weights) : -1]))
        return np.array(past[longest:])

    return forecast


def ar_of_changes(history: Array, period: int) -> Forecast:
    """`ar` on the steps from value to value, summed up again."""
    changes = ar(np.diff(history), period)
    return lambda steps: history[-1] + np.cumsum(changes(steps))


MODELS: dict[str, Model] = {
    model.__name__: model
    for model in (naive, drift, ses, holt, theta, ar, ar_of_changes, seasonal_naive, trend_and_season, holt_winters)
}
SEASONAL = frozenset({"seasonal_naive", "holt_winters"})


def candidates(period: int) -> list[str]:
    """Names of the models worth trying: without a season the seasonal ones repeat others."""
    return [name for name in MODELS if period > 1 or name not in SEASONAL]


_LEVELS = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0])


def _smoothing(
    history: Array, period: int, alphas: Array, betas: list[float], gammas: list[float], dampings: list[float]
) -> Forecast:
    """Additive exponential smoothing with the parameters that had the smallest squared one-step error.

    All combinations run side by side: each line of the loop below is one numpy operation over all of them.
    """
    alpha, beta, gamma, damping = np.array(list(product(alphas, betas, gammas, dampings))).T
    gain, keep = alpha * beta, gamma * (1 - alpha)
    first_level, first_slope, first_season = _start(history, period)
    level = np.full(len(alpha), first_level)
    slope = np.full(len(alpha), first_slope)
    season = np.tile(first_season[:, None], len(alpha))
    loss = np.zeros(len(alpha))
    for time, value in enumerate(history):
        now = season[time % period]
        slope = damping * slope
        level = level + slope
        error = value - level - now
        level += alpha * error
        slope += gain * error
        now += keep * error
        loss += error * error
    best = int(np.argmin(loss))
    return _continue(level[best], slope[best], season[:, best], damping[best], len(history))


def _start(history: Array, period: int) -> tuple[float, float, Array]:
    """Level before the first value, slope and season, from the first two seasons (or the first few values)."""
    if period == 1:
        slope = float(np.diff(history[:5]).mean())
        return float(history[0]) - slope, slope, np.zeros(1)
    first, second = history[:period], history[period : 2 * period]
    slope = float(second.mean() - first.mean()) / period
    line = first.mean() + slope * (np.arange(2 * period) - (period - 1) / 2)
    season = (history[: 2 * period] - line).reshape(2, period).mean(axis=0)
    return float(line[0]) - slope, slope, season


def _continue(level: float, slope: float, season: Array, damping: float, past: int) -> Forecast:
    def forecast(steps: int) -> Array:
        trend = slope * np.cumsum(damping ** _ahead(steps))
        return level + trend + season[(past + np.arange(steps)) % len(season)]

    return forecast


def _calendar(times: npt.NDArray[np.int64], period: int) -> Array:
    """Columns: the time, then one indicator per season."""
    return np.column_stack([times, times[:, None] % period == np.arange(period)]).astype(np.float64)


def _ahead(steps: int) -> Array:
    return np.arange(1, steps + 1, dtype=np.float64)


def _aic(residuals: Array, parameters: int) -> float:
    # The tiny constant keeps a perfect fit (a straight line in the data) finite.
    return float(len(residuals) * np.log(np.mean(residuals**2) + 1e-300) + 2 * parameters)
