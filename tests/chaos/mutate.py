"""`python -m tests.chaos.mutate [text]`: plant each bug of `mutants.py` (whose name has the text) in a copy of the
repository, and see that its tests fail. The exit code is 1 if one survives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.mutants import MUTANTS, Mutant

REPOSITORY = Path(__file__).parents[2]
COPIED = ("redray", "lua", "tests", "setup.cfg", "pyproject.toml", "examples", "docs", "README.md")
TIMEOUT_S = 300
_FAILED = 1  # pytest's exit code when a test failed; others mean that none ran


def main(wanted: str = "") -> int:
    survivors = []
    with tempfile.TemporaryDirectory(prefix="redray-mutants-") as directory:
        copy = Path(directory)
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        chosen = [mutant for mutant in MUTANTS if wanted in mutant.name]
        for mutant in chosen:
            began = time.monotonic()
            is_caught, by = try_out(copy, mutant)
            verdict = f"{'caught  ' if is_caught else 'SURVIVED'} {time.monotonic() - began:5.1f} s"
            print(f"{verdict}  {mutant.name}: {by}", flush=True)
            if not is_caught:
                survivors.append(mutant)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} planted bugs caught")
    return 1 if survivors or not chosen else 0


def try_out(copy: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether its tests fail with the bug in place, and the first that does or why none did."""
    file = copy / mutant.file
    healthy = file.read_text()
    assert healthy.count(mutant.old) == 1, f"{mutant.file} has {healthy.count(mutant.old)} places for: {mutant.name}"
    file.write_text(healthy.replace(mutant.old, mutant.new))
    try:
        tests = [test for test in mutant.tests if (copy / test).exists()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["HYPOTHESIS_PROFILE"] = "quick"
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return False, f"its tests did not end within {TIMEOUT_S} s"
    finally:
        file.write_text(healthy)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode == _FAILED:
        return True, failed[0].split(" - ")[0].partition(" ")[2] if failed else "a test failed"
    return False, f"pytest ended with {done.returncode}: {done.stdout.strip().splitlines()[-1:]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
