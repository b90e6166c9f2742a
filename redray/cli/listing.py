"""`redray list nodes|jobs|actors|tasks|objects`: one table of the cluster."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import click

from redray.cli.options import Parsed, cluster_options, find_cluster
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector, Row

_READERS: dict[str, Callable[[Inspector, int], list[Row]]] = {
    "nodes": Inspector.nodes,
    "jobs": Inspector.jobs,
    "actors": Inspector.actors,
    "tasks": Inspector.tasks,
    "objects": Inspector.objects,
}
_MANY = 100_000  # rows read at most where a filter chooses among them


def parse_filter(text: str) -> tuple[str, bool, str]:
    """`state=RUNNING` or `state!=RUNNING` -> field, whether it must be equal, value."""
    field, separator, wanted = text.partition("=")
    if not separator or not field.rstrip("!"):
        raise ValueError(f"{text!r} is not a filter, such as state=RUNNING or state!=RUNNING.")
    return field.rstrip("!"), not field.endswith("!"), wanted


@click.command("list", short_help="Show nodes, jobs, actors, tasks or objects.")
@click.argument("what", type=click.Choice(list(_READERS)))
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Show at most so many.")
@click.option(
    "--filter",
    "filters",
    type=Parsed("field=value", parse_filter),
    multiple=True,
    help="Only rows that match; also field!=value.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def command(
    what: str,
    limit: int,
    filters: tuple[tuple[str, bool, str], ...],
    form: str,
    address: Address | None,
    redis_password_file: str | None,
    temp_dir: str,
) -> int:
    """Show one table of the cluster: nodes, jobs, actors, tasks or objects."""
    with contextlib.closing(Connection.open(find_cluster(address, redis_password_file, temp_dir))) as connection:
        rows = _READERS[what](Inspector(connection), _MANY if filters else limit + 1)
    for field, equal, wanted in filters:
        if rows and field not in rows[0]:
            raise click.UsageError(f"{what} have no field {field!r}, only {', '.join(rows[0])}")
        rows = [row for row in rows if (str(row[field]) == wanted) is equal]
    if form == "json":
        click.echo(json.dumps(rows[:limit], indent=2))
        return 0
    print_table(rows[:limit])
    if len(rows) > limit:
        click.echo(f"... and more: these are {limit}, see --limit and --filter.")
    elif not rows:
        click.echo(f"no {what}")
    return 0


def print_table(rows: list[Row]) -> None:
    """Plain columns as wide as their content: to read, to grep, to cut."""
    if not rows:
        return
    titles = list(rows[0])
    lines = [titles, *([_cell(row[title]) for title in titles] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return (
            ",".join(f"{name}:{part if isinstance(part, str) else round(part, 4)}" for name, part in value.items())
            or "-"
        )
    return str(value).replace("\n", " ") or "-"
