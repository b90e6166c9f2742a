"""Each program of programs/ prints under `redray run` what it printed under Ray when that was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.runner import PROGRAMS, expected_of, under_redray, without_chatter


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_prints_what_it_prints_under_ray(program: Path) -> None:
    before = program.read_bytes()
    ran = under_redray(program)
    assert ran.code == 0, ran.stderr
    assert ran.stdout == expected_of(program).read_text()
    assert program.read_bytes() == before


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_is_written_for_ray(program: Path) -> None:
    source = program.read_text()
    assert "import ray" in source and "redray" not in source
    assert expected_of(program).stat().st_size > 0, "record it: python -m tests.compat --record"


def test_nothing_is_expected_of_no_program() -> None:
    recorded = {path.stem for path in expected_of(PROGRAMS[0]).parent.glob("*.txt")}
    assert recorded == {program.stem for program in PROGRAMS}
    assert len(PROGRAMS) >= 12


def test_what_ray_says_beside_the_program_is_left_out() -> None:
    said = (
        "one\n"
        "\x1b[33m(raylet)\x1b[0m A worker died.\n"
        "\x1b[33m(raylet)\x1b[0m Task f failed. Error: User exception:\n"
        "\x1b[36mray::f()\x1b[39m (pid=1)\n"
        '  File "x.py", line 29, in f\n'
        "    raise ValueError(1)\n"
        "ValueError: 1\n"
        "ValueError: of the program\n"
    )
    assert without_chatter(said) == "one\nValueError: of the program\n"
