"""`redray run`: runs a program written for Ray, unchanged."""

from __future__ import annotations

import click

from redray.cli.program import Program


class _TheRestIsThePrograms(click.Command):
    """Options behind `-m module`, as behind a program's name, are the program's own."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["-m"]:
            args[2:2] = ["--"]
        return super().parse_args(context, args)


@click.command(
    "run",
    cls=_TheRestIsThePrograms,
    context_settings={"allow_interspersed_args": False},
    short_help="Run a program written for Ray.",
)
@click.option("-m", "module", metavar="MODULE", help="Run a module, as 'python -m' does.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[--] PROGRAM.PY [ARGUMENT]...")
def command(module: str | None, program: tuple[str, ...]) -> Program:
    """Run a Python program as 'python PROGRAM.PY' would, with 'import ray' meaning redray.

    The program's file is not touched. In it, in what it imports, and in the workers of its job, 'ray' and its
    submodules are redray's, also where Ray is installed.
    """
    if module is not None:
        return Program(module, program, is_module=True)
    if not program:
        raise click.UsageError("Which program? Name its file, or a module behind -m")
    return Program(program[0], program[1:])
