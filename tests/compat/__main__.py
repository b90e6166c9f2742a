"""`make compat`: runs each program under redray and, where Ray is installed, under Ray, and compares what they print.

RAY_PYTHON names the interpreter of another environment that has Ray. Without any Ray, the output is compared with what
Ray printed when it was recorded. `--record` records it anew; names choose some of the programs.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tests.compat.runner import PROGRAMS, Ran, expected_of, ray_python, under_ray, under_redray


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", help="programs to run; default: all")
    parser.add_argument("--record", action="store_true", help="keep what Ray prints as what is expected")
    options = parser.parse_args()
    unknown = set(options.names) - {program.stem for program in PROGRAMS}
    python = ray_python()
    if unknown:
        parser.error(f"there is no program {' or '.join(sorted(unknown))}")
    if options.record and python is None:
        parser.error("Ray is not installed: name an interpreter that has it in $RAY_PYTHON")
    print(f"compared with {'Ray of ' + python if python else 'the recorded output of Ray'}\n")
    print(f"{'program':<20}{'redray':>9}{'Ray':>9}  output")
    chosen = [program for program in PROGRAMS if not options.names or program.stem in options.names]
    verdicts = [_compare(program, python, options.record) for program in chosen]
    print(f"\n{verdicts.count(True)} of {len(verdicts)} programs print the same.")
    return 0 if all(verdicts) else 1


def _compare(program: Path, python: str | None, record: bool) -> bool:
    ours = under_redray(program)
    theirs = under_ray(program, python) if python else None
    if record and theirs is not None and theirs.code == 0:
        expected_of(program).write_text(theirs.stdout)
    expected = theirs.stdout if theirs is not None else expected_of(program).read_text()
    well = ours.code == 0 and (theirs is None or theirs.code == 0)
    same = well and ours.stdout == expected
    times = f"{ours.seconds:>7.1f} s" + (f"{theirs.seconds:>7.1f} s" if theirs is not None else f"{'-':>9}")
    print(f"{program.stem:<20}{times}  {'the same' if same else 'DIFFERS'}", flush=True)
    if not same:
        _explain("redray", ours)
        if theirs is not None:
            _explain("Ray", theirs)
        lines = difflib.unified_diff(expected.splitlines(), ours.stdout.splitlines(), "Ray", "redray", lineterm="", n=1)
        print("\n".join(f"    {line}" for line in lines))
    return same


def _explain(who: str, ran: Ran) -> None:
    if ran.code == 0:
        return
    how = "did not end in time" if ran.code is None else f"ended with {ran.code}"
    print(f"    under {who} it {how}:")
    print("\n".join(f"    | {line}" for line in ran.stderr.splitlines()[-15:]))


if __name__ == "__main__":
    sys.exit(main())
