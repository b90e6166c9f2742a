"""`redray why ID`: what a task, an actor or an object waits for."""

from __future__ import annotations

import contextlib

import click

from redray.cli.options import cluster_options, find_cluster
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector
from redray.gcs.reasons import Reasons


@click.command("why", short_help="Explain what a task, actor or object waits for.")
@click.argument("id")
@cluster_options
def command(id: str, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Explain why a task, an actor or an object is not done: the chain of reasons, each below what it explains.

    ID is hexadecimal, as `ref.hex()`, `redray list` and error messages show it.
    """
    with contextlib.closing(Connection.open(find_cluster(address, redis_password_file, temp_dir))) as connection:
        try:
            reasons = list(Reasons(Inspector(connection)).of(id))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    for reason in reasons:
        click.echo("  " * reason.depth + reason.sentence)
    return 0
