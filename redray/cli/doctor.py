"""`redray doctor`: whether everything in Redis adds up."""

from __future__ import annotations

import contextlib
import time

import click

from redray.cli.options import cluster_options, find_cluster
from redray.gcs.address import Address
from redray.gcs.audit import audit
from redray.gcs.client import Connection
from redray.gcs.keys import DEFAULT_TAG, Keys

_LOOKS = 3  # at a cluster at work: what only one of them finds was on its way
_BETWEEN_S = 1.0

_ADVICE = """\
Each line is a contradiction in the cluster's records, and a bug in redray: please report it, with the output of this
command and the logs of the nodes. Work goes on. If a task named above never ends, `redray why ID` says what it waits
for; cancelling it, or restarting the node named, lets its arguments and resources go."""


@click.command("doctor", short_help="Check that everything in Redis adds up.")
@click.option("--at-rest", is_flag=True, help="Also report work, values and actors that are left: nothing should be.")
@cluster_options
def command(at_rest: bool, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Check the whole state of the cluster: every task in one place, references and resources accounted for, no key
    without an owner. Changes nothing, and is safe on a cluster at work. The exit code is 1 if something does not
    add up."""
    where = find_cluster(address, redis_password_file, temp_dir)
    with contextlib.closing(Connection.open(where)) as connection:
        findings = _lasting_findings(connection, at_rest)
    for finding in findings:
        click.echo(finding)
    if findings:
        click.echo(_ADVICE, err=True)
        return 1
    click.echo("everything adds up")
    return 0


def _lasting_findings(connection: Connection, at_rest: bool) -> list[str]:
    keys = Keys(DEFAULT_TAG)
    findings = set(audit(connection, keys, at_rest))
    for _ in range(_LOOKS - 1):
        if not findings:
            break
        time.sleep(_BETWEEN_S)  # one look is not atomic: believe what every look finds
        findings &= set(audit(connection, keys, at_rest))
    return sorted(findings)
