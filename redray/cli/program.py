"""Running somebody's program in this process, as if Python had been started with it.

What the program can see of its start is as with `python program.py`: `sys.argv`, `sys.path[0]`, `__main__`, the
traceback of an error, the exit code. A test compares the two.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import NamedTuple

from redray import ray_alias


class CannotRunError(Exception):
    """There is no such program. `code` is the exit code that Python has for it."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


class Program(NamedTuple):
    """What to run, and the arguments behind it."""

    target: str
    arguments: Sequence[str]
    is_module: bool = False

    def run(self) -> int:
        """Run it as `__main__` and return the exit code. SystemExit and KeyboardInterrupt pass through, for the
        interpreter to end with.

        Raises:
            CannotRunError: the program is not there.
        """
        ray_alias.install()
        try:
            main, code = _main_module(self)
            sys.modules["__main__"] = main
            if code is None:
                code = compile(_source(self.target), main.__file__ or self.target, "exec", dont_inherit=True)
            exec(code, main.__dict__)
        except (SystemExit, CannotRunError):
            raise
        except BaseException as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next  # our own frames: the program's author has no use for them
            sys.excepthook(type(error), error.with_traceback(trace), trace)
            if isinstance(error, KeyboardInterrupt):
                sys.excepthook = lambda *_: None  # it is printed; Python shall end by the signal, as shells expect
                raise
            return 1
        return 0


def _main_module(program: Program) -> tuple[ModuleType, CodeType | None]:
    """The new `__main__`, and its code; None: still to be compiled."""
    target = program.target
    if program.is_module:
        _begin_path_with(os.getcwd())
        spec = _spec_of_module(target)
        return _from_spec(spec, spec.origin or target, program.arguments)
    if not _is_source(target):
        _begin_path_with(os.path.abspath(target))
        found = PathFinder.find_spec("__main__", [os.path.abspath(target)])
        if found is None:
            raise CannotRunError(f"can't find '__main__' module in {target!r}")
        return _from_spec(found, target, program.arguments)
    _begin_path_with(os.path.dirname(os.path.realpath(target)))
    sys.argv[:] = [target, *program.arguments]
    path = os.path.join(os.getcwd(), target)  # not made shorter: Python does not either
    return _new_main(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path)), None


def _new_main(**attributes: object) -> ModuleType:
    main = ModuleType("__main__")
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    main.__dict__.update(__builtins__=builtins, **attributes)
    return main


def _begin_path_with(directory: str) -> None:
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = directory  # in place of this command's own


def _is_source(path: str) -> bool:
    """False: a directory or a zip archive."""
    if os.path.isdir(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) != b"PK\3\4"
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        raise CannotRunError(f"can't open file {os.path.abspath(path)!r}: {reason}", 2) from None


def _source(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _spec_of_module(name: str) -> ModuleSpec:
    """Of the module, or of the `__main__` in a package. What a package's own `__init__` raises passes through."""
    wanted = name
    try:
        spec = importlib.util.find_spec(wanted)
        if spec is not None and spec.submodule_search_locations is not None:
            wanted = f"{name}.__main__"
            spec = importlib.util.find_spec(wanted)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{wanted}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        raise CannotRunError(f"No module named {wanted}")
    return spec


def _from_spec(spec: ModuleSpec, name: str, arguments: Sequence[str]) -> tuple[ModuleType, CodeType]:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if code is None:
        raise CannotRunError(f"No code object available for {spec.name}")
    sys.argv[:] = [name, *arguments]
    main = _new_main(
        __spec__=spec,
        __loader__=spec.loader,
        __package__=spec.parent,
        __file__=spec.origin,
        __cached__=spec.cached,
    )
    return main, code
