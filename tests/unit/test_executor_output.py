"""Lines out of a worker's pipe, and the marks it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from redray.worker import output
from redray.worker.marks import Marks
from redray.worker.output import MAX_LINE, TAIL_LINES, LineReader


class Pipe:
    def __init__(self) -> None:
        read, self.write_end = os.pipe()
        self.reader = LineReader(read)

    def write(self, data: bytes) -> list[str]:
        os.write(self.write_end, data)
        return self.reader.read()

    def end(self) -> list[str]:
        os.close(self.write_end)
        self.write_end = -1
        return self.reader.drain()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    if made.write_end >= 0:
        os.close(made.write_end)
    made.reader.close()


def test_lines_are_cut_wherever_the_reads_are(pipe: Pipe) -> None:
    assert pipe.reader.read() == []
    assert pipe.write(b"one\ntw") == ["one"]
    assert pipe.write("o\r\n\nthrée".encode()[:-1]) == ["two", ""]
    assert pipe.write(b"e\n") == ["thrée"]
    assert not pipe.reader.at_end


def test_a_character_split_between_reads_is_whole(pipe: Pipe) -> None:
    first, second = "ü\n".encode()[:1], "ü\n".encode()[1:]
    assert pipe.write(first) == []
    assert pipe.write(second) == ["ü"]


def test_bytes_that_are_no_text_are_shown_as_such(pipe: Pipe) -> None:
    assert pipe.write(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_the_end_gives_the_last_partial_line(pipe: Pipe) -> None:
    assert pipe.write(b"a\nb") == ["a"]
    assert pipe.end() == ["b"]
    assert pipe.reader.at_end
    assert pipe.reader.read() == []


def test_a_long_line_comes_in_pieces(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    lines: list[str] = []
    for _ in range(5):
        lines += pipe.write(b"x" * (MAX_LINE // 2))
    lines += pipe.end()
    assert [len(line) for line in lines] == [MAX_LINE, MAX_LINE, MAX_LINE // 2]


def test_the_tail_is_bounded(pipe: Pipe) -> None:
    pipe.write(b"".join(b"%d\n" % number for number in range(100)))
    assert list(pipe.reader.tail) == [str(number) for number in range(100 - TAIL_LINES, 100)]


def test_the_tail_begins_after_the_last_task_that_ended(pipe: Pipe) -> None:
    end = output._END_OF_TASK + b"\n"
    assert pipe.write(b"of the first\n" + end + b"of the second\nnot finished" + end + b"of the third\n") == [
        "of the first", "of the second", "not finished", "of the third",
    ]  # fmt: skip
    assert list(pipe.reader.tail) == ["of the third"]


def test_drain_does_not_wait_for_others_that_hold_the_pipe(pipe: Pipe) -> None:
    os.write(pipe.write_end, b"last words\nunfinished")
    assert pipe.reader.drain() == ["last words", "unfinished"]
    assert not pipe.reader.at_end


# ---- marks -----------------------------------------------------------------------------------------------------------
def test_marks_do_not_touch_each_other() -> None:
    marks = Marks(3)
    first, second = marks.mark(0), marks.mark(1)
    first.start(1)
    second.start(2)
    second.revoke(4)
    second.cancel("cc" * 12, 3)
    assert (first.started(), first.cancelled(), first.has_cancel()) == (1, None, False)
    assert (second.started(), second.cancelled(), second.has_cancel()) == (2, ("cc" * 12, 3), True)
    assert (first.revoked(), second.revoked()) == (0, 4)
    assert marks.mark(2).started() == 0


def test_slots_run_out_and_come_back_clean() -> None:
    marks = Marks(2)
    one, two = marks.take(), marks.take()
    assert marks.take() is None
    assert one is not None and two is not None
    marks.mark(one).start(7)
    marks.mark(one).revoke(7)
    marks.give(one)
    assert marks.take() == one
    assert (marks.mark(one).started(), marks.mark(one).revoked()) == (0, 0)
