"""`redray worker`: one node in the foreground."""

from __future__ import annotations

import os
from typing import Any

import click

from redray.cli.node import make_config
from redray.cli.options import ADDRESS, log_in, node_options, password_file_option, temp_dir_option
from redray.gcs.address import Address
from redray.local_cluster import Process, locked, make_private_directory, record


@click.command("worker", short_help="Run one node in the foreground.")
@click.option(
    "--redis", type=ADDRESS, required=True, envvar="REDRAY_ADDRESS", help="The cluster's Redis: host:port or a URL."
)
@node_options
@password_file_option
@temp_dir_option
def command(redis: Address, redis_password_file: str | None, temp_dir: str, **node: Any) -> int:
    """Run one node in the foreground: what a container or a service manager starts. SIGTERM drains it."""
    from redray.worker.node import main

    make_private_directory(temp_dir)
    config = make_config(log_in(redis, redis_password_file, temp_dir), temp_dir, node)
    os.environ.pop("REDRAY_REDIS_PASSWORD", None)  # Tasks inherit the environment, and have no business with it.
    with locked(temp_dir):
        record(redis, temp_dir, Process.of("node", os.getpid()))
    return int(main(config) or 0)
