"""`redray stop`: ends what `redray start` started on this machine, nodes before their Redis."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import click

from redray.cli.options import temp_dir_option
from redray.local_cluster import Process, find_local_cluster, forget, is_private, locked
from redray.store.janitor import sweep

_LAST_RESORT = 5.0  # seconds for the operating system to bury a process after SIGKILL


@click.command("stop", short_help="End what was started on this machine.")
@click.option("--force", is_flag=True, help="Kill at once: running tasks are lost to this node, and retried on others.")
@click.option(
    "--grace-period",
    type=click.FloatRange(min=0),
    default=16.0,
    show_default=True,
    help="Seconds that running tasks have to end before they are killed.",
)
@temp_dir_option
def command(force: bool, grace_period: float, temp_dir: str) -> int:
    """End the nodes and the Redis that 'redray start' and 'redray worker' started on this machine."""
    if not is_private(temp_dir):
        click.echo("Nothing to stop: no cluster was started on this machine.")
        return 0
    with locked(temp_dir):
        cluster = find_local_cluster(temp_dir)
        if cluster is None:
            click.echo("Nothing to stop: no cluster was started on this machine.")
            return 0
        survivors = end(cluster.alive(), 0 if force else grace_period)
        sweep()  # a node that was killed has left its shared memory behind
        if survivors:
            pids = ", ".join(str(process.pid) for process in survivors)
            raise click.ClickException(f"these processes do not end, even when killed: {pids}.")
        forget(temp_dir)
    click.echo(f"Stopped the cluster at {cluster.address}.")
    return 0


def end(processes: Sequence[Process], grace_period: float) -> list[Process]:
    """Nodes first, while they can still say goodbye to Redis. Return what is alive nevertheless."""
    survivors = []
    for role in ("node", "redis"):
        survivors += _end([process for process in processes if process.role == role], grace_period)
    return survivors


def _end(processes: Sequence[Process], grace_period: float) -> list[Process]:
    import psutil

    waiting = []
    for process in processes:
        if process.is_alive():
            waiting.append(psutil.Process(process.pid))
    steps = [(signal.SIGKILL, _LAST_RESORT)]
    if grace_period:
        steps.insert(0, (signal.SIGTERM, grace_period))
    for number, patience in steps:
        for found in waiting:
            try:
                found.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # It ended by itself meanwhile, which is what was asked.
        _, waiting = psutil.wait_procs(waiting, timeout=patience)
    return [process for process in processes if process.is_alive()]
