"""`redray get`, `redray summary` and `redray memory`: rows and counts of the state API."""

from __future__ import annotations

import json
from typing import Any

import click

from redray.cli.options import cluster_options, find_cluster
from redray.gcs.address import Address

_KINDS = ["actors", "jobs", "nodes", "objects", "placement-groups", "tasks", "workers"]


@click.command("get", short_help="Show all that is known of one actor, task, object, node, ...")
@click.argument("what", type=click.Choice(_KINDS), metavar="|".join(_KINDS))
@click.argument("id")
@cluster_options
def get(what: str, id: str, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Show all that is known of one row of a table, as JSON."""
    from redray.util.state.api import select

    url = find_cluster(address, redis_password_file, temp_dir).url()
    rows = select(what.replace("-", "_"), url, None, 1, 30, True, only=[id])
    if not rows:
        raise click.ClickException(f"the cluster knows no such {what.replace('-', ' ').rstrip('s')}: {id}.")
    click.echo(json.dumps(rows[0].asdict(), indent=2, default=str))
    return 0


@click.command("summary", short_help="Count tasks, actors or objects by name and state.")
@click.argument("what", type=click.Choice(["tasks", "actors", "objects"]))
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def summary(what: str, form: str, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Count tasks by function, actors by class, or objects, and by state."""
    from redray.cli.listing import print_table
    from redray.util import state

    url = find_cluster(address, redis_password_file, temp_dir).url()
    found: dict[str, Any] = getattr(state, f"summarize_{what}")(url)["cluster"]
    if form == "json":
        click.echo(json.dumps(found, indent=2))
        return 0
    counts = "task_state_counts" if what == "objects" else "state_counts"
    rows = [
        {"name": name, "type": group.get("type", what[:-1]), "total": sum(group[counts].values()), **group[counts]}
        for name, group in sorted(found["summary"].items())
    ]
    states = sorted({key for row in rows for key in row} - {"name", "type", "total"})
    print_table([{key: row.get(key, 0) for key in ("name", "type", "total", *states)} for row in rows])
    if not rows:
        click.echo(f"no {what}")
    return 0


@click.command("memory", short_help="Show which values take room, and where.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show at most so many.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def memory(limit: int, form: str, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Show the values that are referenced, the largest first."""
    from redray.cli.listing import print_table
    from redray.util.state import list_objects
    from redray.util.state.common import MAX_LIMIT

    found = list_objects(find_cluster(address, redis_password_file, temp_dir).url(), limit=MAX_LIMIT)
    found.sort(key=lambda row: -row.object_size)
    rows = [row.asdict() for row in found[:limit]]
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return 0
    columns = ("object_id", "object_size", "task_status", "reference_type", "type", "pid", "ip")
    print_table([{column: row[column] for column in columns} for row in rows])
    total = sum(row.object_size for row in found)
    click.echo(f"{len(found)} values, {total / 2**20:.1f} MiB together")
    return 0
