"""Which lines a driver shows of what its workers print. No clock: times are arguments."""

from __future__ import annotations

from redray.log_lines import MOST_GROUPS, WINDOW_S, Deduplicator, Line, Options, Style


def line(text: str, pid: int = 1, host: str = "", name: str = "f", stream: str = "stdout") -> Line:
    return Line(name, str(pid), host, stream, text)


def lines(options: Options = Options(), style: Style = Style()) -> Deduplicator:  # noqa: B008  (immutable)
    return Deduplicator(options, style)


def test_the_prefix() -> None:
    style = Style(own_host="10.0.0.1")
    assert style.show(line("hello", 7)) == "(f pid=7) hello\n"
    assert style.show(line("hello", 7, "10.0.0.1")) == "(f pid=7) hello\n"
    assert style.show(line("hello", 7, "10.0.0.2")) == "(f pid=7, ip=10.0.0.2) hello\n"
    assert style.show(Line("scheduler", "", "", "stderr", "Warning: ...")) == "Warning: ...\n"


def test_colours() -> None:
    assert Style(coloured=True).show(line("hello", 7)) == "\x1b[36m(f pid=7)\x1b[0m hello\n"
    by_process = Style(by_process=True)
    assert by_process.show(line("hello", 7)) != by_process.show(line("hello", 8)).replace("pid=8", "pid=7")


def test_like_lines_of_other_processes_are_counted() -> None:
    shown = lines()
    assert shown.take(line("step done", 1), 0.0) == "(f pid=1) step done\n"
    assert [shown.take(line("step done", pid), 1.0) for pid in (2, 3)] == ["", ""]
    assert shown.due() == WINDOW_S
    assert list(shown.overdue(WINDOW_S - 0.1)) == []
    ((stream, text),) = shown.overdue(WINDOW_S)
    assert (stream, text.startswith("(f pid=3) step done [repeated 2x across cluster] (")) == ("stdout", True)
    assert shown.take(line("step done", 4), 6.0) == ""
    shown.take(line("step done", 5), 6.0)
    assert list(shown.rest()) == [("stdout", "(f pid=5) step done [repeated 2x across cluster]\n")], "explained once"
    assert shown.due() is None


def test_one_line_that_was_held_back_is_shown_as_it_is() -> None:
    shown = lines()
    shown.take(line("ready", 1), 0.0)
    shown.take(line("ready", 2, stream="stderr"), 0.0)
    assert list(shown.overdue(WINDOW_S)) == [("stderr", "(f pid=2) ready\n")]


def test_what_one_process_prints_again_is_shown_again() -> None:
    shown = lines()
    assert [shown.take(line("tick"), 0.0) for _ in range(3)] == ["(f pid=1) tick\n"] * 3


def test_numbers_and_paths_do_not_make_lines_different() -> None:
    shown = lines()
    shown.take(line("loaded /data/1 in 0.3s", 1), 0.0)
    assert shown.take(line("loaded /data/2 in 0.5s", 2), 0.0) == ""
    assert shown.take(line("saved /data/2 in 0.5s", 2), 0.0) != ""


def test_the_window_begins_anew_when_it_is_over() -> None:
    shown = lines()
    shown.take(line("x", 1), 0.0)
    assert list(shown.overdue(WINDOW_S)) == []
    assert shown.take(line("x", 2), WINDOW_S) == "(f pid=2) x\n"


def test_switches() -> None:
    off = lines(Options.of({"RAY_DEDUP_LOGS": "0"}))
    assert [off.take(line("x", pid), 0.0) for pid in (1, 2)] == ["(f pid=1) x\n", "(f pid=2) x\n"]
    assert Options.of({"REDRAY_DEDUP_LOGS": "0", "RAY_DEDUP_LOGS": "1"}).window_s == 0
    assert Options.of({"RAY_DEDUP_LOGS_AGG_WINDOW_S": "0.5"}).window_s == 0.5
    assert Options.of({"RAY_COLOR_PREFIX": "1"}).colour_by_process
    picky = lines(Options.of({"RAY_DEDUP_LOGS_ALLOW_REGEX": "keep", "RAY_DEDUP_LOGS_SKIP_REGEX": "drop"}))
    assert [picky.take(line("keep it", pid), 0.0) for pid in (1, 2)] == ["(f pid=1) keep it\n", "(f pid=2) keep it\n"]
    assert picky.take(line("drop it"), 0.0) == ""


def test_many_different_lines_are_not_remembered_without_end() -> None:
    shown = lines()
    words = [f"{'abcdefghij'[n % 10]}{chr(97 + n // 10 % 26)}{chr(97 + n // 260 % 26)}{chr(97 + n // 6760)}"
             for n in range(MOST_GROUPS)]  # fmt: skip
    assert len(set(words)) == MOST_GROUPS
    for word in words:
        shown.take(line(word, 1), 0.0)
    assert [shown.take(line("one more", pid), 0.0) for pid in (1, 2)] == [
        "(f pid=1) one more\n",
        "(f pid=2) one more\n",
    ]
