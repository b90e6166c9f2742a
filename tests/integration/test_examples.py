"""Every example prints what its docstring says. The expected numbers are computed here, without redray."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers import PATIENCE, REPOSITORY, STRETCH

EXAMPLES = REPOSITORY / "examples"


def run(folder: Path, name: str, *arguments: str, patience: float = 2 * PATIENCE) -> list[str]:
    """The lines an example prints, run as its reader runs it but in `folder`; it ends well and complains of nothing."""
    environment = {key: value for key, value in os.environ.items() if key not in ("REDRAY_ADDRESS", "RAY_ADDRESS")}
    paths = [*filter(None, [environment.get("PYTHONPATH")]), str(REPOSITORY)]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=patience)
    assert ended.returncode == 0, f"{name} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    assert ended.stderr == "", f"{name} printed on stderr:\n{ended.stderr}"
    return ended.stdout.splitlines()


def numbers(line: str) -> list[float]:
    """The numbers in a line, with or without thousands separators, in the order in which they stand there."""
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?", line)]


def test_every_example_is_tested_and_told_of() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert scripts <= tested
    guide = (REPOSITORY / "docs" / "examples.md").read_text()
    assert scripts == set(re.findall(r"examples/(\w+)\.py", guide))


def test_four_sleepers(tmp_path: Path) -> None:
    (line,) = run(tmp_path, "four_sleepers")
    before, _, seconds = line.removesuffix(" s").rpartition(" in ")
    assert before == "4 tasks of 1 s each: [0, 1, 2, 3]"
    assert 1.0 <= float(seconds) < 1.0 + STRETCH


def check_tiny_tasks(lines: list[str], tasks: int) -> float:
    """Check both lines; return the seconds printed."""
    rate, total = lines
    assert rate.startswith(f"{tasks:,} tasks of 0.1 ms in ")
    assert total == f"the numbers they returned add up to {sum(range(tasks)):,}"
    _, _, took, a_second = numbers(rate)
    assert a_second == pytest.approx(tasks / took, rel=0.06 / took + 0.01)  # `took` is printed to a tenth of a second
    return took


def test_tiny_tasks(tmp_path: Path) -> None:
    # The last batch is a short one.
    check_tiny_tasks(run(tmp_path, "tiny_tasks", "--tasks", "4321", "--batch", "1000"), 4321)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_100_000_tiny_tasks_end_within_20_seconds(tmp_path: Path) -> None:
    took = check_tiny_tasks(run(tmp_path, "tiny_tasks", patience=8 * PATIENCE), 100_000)
    assert took < 20 * STRETCH


def test_put_get(tmp_path: Path) -> None:
    size, sums, got, *rest = run(tmp_path, "put_get")
    assert size == "put 80 MB"
    assert sums == f"4 tasks add it up: {[float(sum(range(10_000_000)))] * 4}"
    assert re.fullmatch(r"got in \d+\.\d ms", got)
    assert rest == ["read-only: True", "as an argument: ndarray", "inside a list: ObjectRef"]


def test_wait_as_ready(tmp_path: Path) -> None:
    *handled, late = run(tmp_path, "wait_as_ready")
    times, tasks = zip(*map(numbers, handled), strict=True)
    assert tasks == (0.4, 0.8, 1.2, 1.6)
    assert list(times) == sorted(times)
    assert all(task <= time < task + STRETCH for time, task in zip(times, tasks, strict=True))
    assert late == "nothing within 0.1 s: 0 ready, 1 pending"


def test_matmul_graph(tmp_path: Path) -> None:
    assert run(tmp_path, "matmul_graph") == [
        "8 turns of 45 degrees:",
        *str(np.eye(2)).splitlines(),
        "times zeros:",
        *str(np.zeros((2, 2))).splitlines(),
        "multiplied by 8 tasks, 4 levels deep",
    ]


def test_counters(tmp_path: Path) -> None:
    assert run(tmp_path, "counters") == [
        f"first counter: {list(range(1, 11))}",
        "all four: [10, 20, 30, 40]",
        "after a task counted too: [11, 22, 33, 44]",
        "processes: 4",
    ]


def test_map_reduce(tmp_path: Path) -> None:
    squares, simple, tree = run(tmp_path, "map_reduce")
    expected = [number**2 for number in range(16)]
    assert squares == f"squares: {expected}"
    total, simple_took, steps = numbers(simple)
    assert (total, steps) == (sum(expected), 15)
    total, tree_took, levels = numbers(tree)
    assert (total, levels) == (sum(expected), math.log2(16))
    assert simple_took >= 15 * 0.1
    assert 4 * 0.1 <= tree_took < simple_took / 2


def test_word_count(tmp_path: Path) -> None:
    first, *lines = run(tmp_path, "word_count")
    words = Counter(re.findall("[a-z]+", "\n".join(topics.values()).lower()))
    assert first == f"{words.total():,} words, {len(words):,} of them different, in {len(topics)} topics"
    top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:10]
    assert lines == [f"{word} {times}" for word, times in top]


def test_parameter_server(tmp_path: Path) -> None:
    *steps, found = run(tmp_path, "parameter_server")
    truth = np.array([2.0, -1.0, 0.5])
    x, y = (np.concatenate(shares) for shares in zip(*points(truth), strict=True))
    weights, expected = np.zeros(3), []
    for step in range(1, 81):
        # The mean of the workers' gradients is the gradient over all points, since their shares are equal.
        weights = weights - 0.05 * 2 * x.T @ (x @ weights - y) / len(x)
        if step % 20 == 0:
            expected.append(f"step {step}: error {np.mean((x @ weights - y) ** 2):.5f}")
    assert steps == expected
    errors = [float(line.split()[-1]) for line in steps]
    assert errors == sorted(set(errors), reverse=True)
    assert found == "found [2.00, -1.00, 0.50], made with [2.00, -1.00, 0.50]"
    assert weights == pytest.approx(truth, abs=0.01)


def points(truth: npt.NDArray[np.float64]) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """The (x, y) of each of the four workers."""
    for seed in range(4):
        random = np.random.default_rng(seed)
        x = random.normal(size=(1000, 3))
        yield x, x @ truth + random.normal(scale=0.1, size=1000)


def check_pi(lines: list[str], each: int) -> float:
    """Check the progress lines; return the estimate, which must be the one of the same seeds."""
    *progress, estimate = lines
    assert all(line.endswith(f" % of {16 * each:,} points") for line in progress)
    shares = [int(line.split()[0]) for line in progress]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    inside = 0
    for seed in range(16):
        random = np.random.default_rng(seed)
        for _ in range(10):
            x, y = random.random((2, each // 10))
            inside += int((np.hypot(x, y) < 1).sum())
    pi = 4 * inside / (16 * each)
    assert estimate == f"pi is about {pi:.6f}"
    return pi


def test_monte_carlo_pi(tmp_path: Path) -> None:
    check_pi(run(tmp_path, "monte_carlo_pi", "--points", "20000"), 20_000)


@pytest.mark.slow
def test_monte_carlo_pi_is_within_0_002(tmp_path: Path) -> None:
    assert check_pi(run(tmp_path, "monte_carlo_pi"), 1_000_000) == pytest.approx(math.pi, abs=0.002)


@pytest.fixture
def forecasting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules beside examples/forecast.py, found as it finds them."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from forecasting import backtest, data, models

    return SimpleNamespace(backtest=backtest, data=data, models=models)


def judged(forecasting: SimpleNamespace, record: np.void) -> tuple[str, bool]:
    """(model with the smallest validation error, whether it beats the naive forecast held out) of one series."""
    backtest = forecasting.backtest
    names = forecasting.models.candidates(int(record["period"]))
    best = min(names, key=lambda name: backtest.validate(record, name))
    return best, backtest.hold_out(record, best) < backtest.hold_out(record, "naive")


def check_forecast(lines: list[str], series: int) -> dict[str, float]:
    """Check what `forecast.py` prints and return numbers of interest."""
    text = "\n".join(lines)
    count, tasks, _, cpus = numbers(lines[0])
    assert count == series
    assert re.search(rf"^redray: [\d.]+ s on {cpus:.0f} CPUs, [\d,]+ tasks a second$", text, re.MULTILINE)
    loop = re.search(r"^plain loop: [\d.]+ s, the same answers; speed-up ([\d.]+)$", text, re.MULTILINE)
    beats = re.search(
        r"^the chosen model beats the naive forecast on (\d+) of (\d+) series \((\d+) %\)$", text, re.MULTILINE
    )
    assert loop is not None and beats is not None, text
    won, of, percent = map(int, beats.groups())
    assert (of, percent) == (series, round(100 * won / series))
    served = re.search(r"^([\d,]+) requests .* p50 ([\d.]+) ms, p99 ([\d.]+) ms$", text, re.MULTILINE)
    assert served is not None, text
    requests, p50, p99 = (float(number.replace(",", "")) for number in served.groups())
    assert 0 < p50 <= p99
    return {"tasks": tasks, "won": won, "requests": requests, "cpus": cpus, "speed-up": float(loop[1])}


@pytest.mark.parametrize("cpus", [1, 2])
def test_forecast(tmp_path: Path, forecasting: SimpleNamespace, cpus: int) -> None:
    lines = run(tmp_path, "forecast", "--series=24", f"--cpus={cpus}", "--requests=60", "--plot=picture.png")
    panel = forecasting.data.load(24)
    best = [judged(forecasting, record) for record in panel]
    tasks = sum(len(forecasting.models.candidates(int(period))) + 1 for period in panel["period"])

    seen = check_forecast(lines, 24)
    assert (seen["tasks"], seen["requests"], seen["cpus"]) == (tasks, 60, cpus)
    assert seen["won"] == sum(won for _, won in best) > 12
    rows = {cells[1]: cells for line in lines if len(cells := [cell.strip() for cell in line.split("│")]) == 7}
    chosen = {name: int(cells[4]) for name, cells in rows.items() if name in forecasting.models.MODELS}
    assert {name: times for name, times in chosen.items() if times} == Counter(name for name, _ in best)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.slow
def test_forecast_with_all_series_takes_well_under_a_minute(tmp_path: Path) -> None:
    seen = check_forecast(run(tmp_path, "forecast", patience=60 * STRETCH), 453)
    assert seen["tasks"] > 4000
    assert seen["won"] / 453 > 0.7


def test_forecast_refuses_a_bad_command_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--series must be at least 1"):
        run(tmp_path, "forecast", "--series=0")
    with pytest.raises(AssertionError, match="--address: not allowed with argument --cpus"):
        run(tmp_path, "forecast", "--cpus=2", "--address=redis://localhost:1")


def test_forecast_never_lets_a_model_see_the_future(forecasting: SimpleNamespace) -> None:
    backtest = forecasting.backtest
    for record in forecasting.data.load(16):
        horizon, length = int(record["horizon"]), int(record["length"])
        changed = record.copy()
        changed["values"][length - horizon : length] = 1e9
        for name in forecasting.models.candidates(int(record["period"])):
            # Choosing knows nothing of the held-out window ...
            assert backtest.validate(changed, name) == backtest.validate(record, name)
            # ... and neither does the forecast that is judged on it.
            forecast = backtest.fit(record, name, length - horizon)(horizon)
            assert (backtest.fit(changed, name, length - horizon)(horizon) == forecast).all()


def test_forecast_holds_no_value_out_twice(forecasting: SimpleNamespace) -> None:
    ends: dict[str, list[int]] = {}
    panel = forecasting.data.load()
    for record in panel:
        name, _, end = str(record["name"]).rpartition(" to ")
        if name:
            ends.setdefault(name, []).append(int(end))
    assert len(ends) > 10
    for name, places in ends.items():
        horizon = int(next(record["horizon"] for record in panel if str(record["name"]).startswith(f"{name} to ")))
        assert (np.diff(sorted(places)) >= horizon).all(), name


LINE = 5.0 + 2.0 * np.arange(48)
SEASON = np.tile([3.0, -1.0, 0.5, -2.5], 12)


@pytest.mark.parametrize(
    ("name", "series", "period"),
    [
        ("naive", np.full(48, 7.0), 1),
        ("ses", np.full(48, 7.0), 1),
        ("drift", LINE, 1),
        ("holt", LINE, 1),
        ("trend_and_season", LINE + SEASON, 4),
        ("seasonal_naive", SEASON, 4),
        ("holt_winters", LINE + SEASON, 4),
        ("ar", 0.9 ** np.arange(48) * 10 + 1, 1),
        ("ar_of_changes", 0.9 ** np.arange(48) * 10 + LINE, 1),
    ],
)
def test_forecast_models_continue_what_they_are_made_for(
    forecasting: SimpleNamespace, name: str, series: npt.NDArray[np.float64], period: int
) -> None:
    forecast = forecasting.models.MODELS[name](series[:-6], period)
    assert forecast(6) == pytest.approx(series[-6:], abs=1e-6)


def test_forecast_theta_takes_half_the_slope(forecasting: SimpleNamespace) -> None:
    # On a line the level (alpha = 1 fits best) is the last value, and theta adds half the slope per step.
    forecast = forecasting.models.theta(LINE, 1)
    assert forecast(3) == pytest.approx(LINE[-1] + 1.0 * np.arange(1, 4))
