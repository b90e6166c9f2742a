"""Progress bars as the driver draws them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from redray import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    yield
    assert not progress._bars, "a test left a bar"


def update(n: int, closed: bool = False, id: str = "a", total: int | None = 4) -> str:
    return progress.pack({"id": id, "desc": "fit", "n": n, "total": total, "unit": "it", "closed": closed})


def test_without_a_terminal_a_bar_is_a_line_now_and_then() -> None:
    out = io.StringIO()
    for n in (0, 1, 2, 3):
        progress.show_update(update(n), out)
    progress.show_update(update(4, closed=True), out)
    first, last = out.getvalue().splitlines()
    assert first.startswith("fit:   0%|") and "0/4" in first
    assert last.startswith("fit: 100%|" + "#" * 30 + "| 4/4 [")


def test_without_a_total() -> None:
    out = io.StringIO()
    progress.show_update(update(7, closed=True, total=None), out)
    assert out.getvalue().startswith("fit: 7it [")


def test_on_a_terminal_bars_are_drawn_again_below_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress.show_update(update(1))
    progress.show_update(update(1, id="b"))
    progress.write(terminal, "hello\n")
    assert terminal.getvalue().split("\x1b[1A\x1b[2K")[-1].startswith("hello\nfit:  25%|"), "two bars below the text"
    progress.show_update(update(4, closed=True))
    progress.show_update(update(4, closed=True, id="b"))
    progress.write(terminal, "bye\n")
    assert terminal.getvalue().endswith("4/4" + terminal.getvalue().rpartition("4/4")[2])
    assert terminal.getvalue().endswith("bye\n")


def test_a_line_that_only_looks_like_an_update() -> None:
    out = io.StringIO()
    assert progress.is_update(progress.MAGIC + "nonsense")
    progress.show_update(progress.MAGIC + "nonsense", out)
    progress.show_update(progress.MAGIC + "[1]", out)
    assert out.getvalue() == ""
