"""The command line: one file per command, or per group of small ones; `COMMANDS` is the list.

An error is one sentence on stderr. The exit code is 2 for a command that was written wrong, 1 for one that failed.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from redray.cli.program import CannotRunError, Program
from redray.exceptions import RayError
from redray.version import __version__

COMMANDS = {
    "start": "start",
    "stop": "stop",
    "status": "status",
    "worker": "worker",
    "list": "listing",
    "why": "why",
    "doctor": "doctor",
    "run": "run",
    "get": "state:get",
    "summary": "state:summary",
    "memory": "state:memory",
    "logs": "tools:logs",
    "timeline": "tools:timeline",
    "kill-actor": "tools:kill_actor",
    "microbenchmark": "tools:microbenchmark",
    "job": "job",
}


class _Commands(click.Group):
    """Imports a command's module only when that command is asked for: `redray --version` need not load a node."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        found = importlib.import_module(f"redray.cli.{module}")
        command: click.Command = getattr(found, attribute or "command")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="redray", message="%(prog)s %(version)s")
def cli() -> None:
    """Run Python functions and classes on many cores and machines, scheduled by Redis.

    A program needs none of these commands: redray.init() starts what it needs. They make a cluster that several
    programs, or machines, share.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        code: Any = cli.main(args=arguments, prog_name="redray", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "redray"
        message = " ".join(error.format_message().split())  # click lists choices on lines of their own
        return _fail(f"{message.rstrip('.')}. See '{command} --help'.", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("interrupted.", 130)
    except (RayError, OSError) as error:
        return _fail(str(error), 1)
    if isinstance(code, Program):
        return _run(code)  # here, because click would make its own of what a program raises
    return code if isinstance(code, int) else 0


def _run(program: Program) -> int:
    try:
        return program.run()
    except CannotRunError as error:
        return _fail(str(error), error.code)


def _fail(sentence: str, code: int) -> int:
    click.echo(f"redray: {sentence}", err=True)
    return code
