"""`redray status`: what the cluster has, what it uses, and what waits."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from redray.cli.options import cluster_options, find_cluster
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector
from redray.gcs.schema import JobState, NodeState
from redray.local_cluster import find_local_cluster
from redray.resources import missing
from redray.where import may_admit


@click.command("status", short_help="Show nodes, resources and waiting work.")
@click.option("-v", "--verbose", is_flag=True, help="Also each node by itself.")
@click.option("--local", is_flag=True, help="Only say whether this machine's nodes take work; exit code 1 if not.")
@cluster_options
def command(verbose: bool, local: bool, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Show the nodes of the cluster, its resources, and the work that waits for them."""
    with contextlib.closing(Connection.open(find_cluster(address, redis_password_file, temp_dir))) as connection:
        inspector = Inspector(connection)
        if local:
            return _check_local(inspector, temp_dir)
        _show(inspector, str(connection.address), verbose)
    return 0


def _check_local(inspector: Inspector, temp_dir: str) -> int:
    cluster = find_local_cluster(temp_dir)
    here = {str(process.pid) for process in cluster.alive() if process.role == "node"} if cluster else set()
    alive = [row["id"] for row in inspector.nodes() if row["state"] == NodeState.ALIVE and row["pid"] in here]
    if not alive:
        raise click.ClickException("no node of this machine is known to the cluster as alive.")
    click.echo(f"alive: {' '.join(alive)}")
    return 0


def _show(inspector: Inspector, address: str, verbose: bool) -> None:
    nodes = inspector.nodes()
    alive = [row for row in nodes if row["state"] == NodeState.ALIVE]
    others = {state: sum(row["state"] == state for row in nodes) for state in (NodeState.DRAINING, NodeState.DEAD)}
    click.echo(f"Redis    {address}")
    click.echo(f"nodes    {len(alive)} alive" + "".join(f", {n} {state.lower()}" for state, n in others.items() if n))
    click.echo(f"jobs     {sum(row['state'] == JobState.RUNNING for row in inspector.jobs())} running")
    click.echo(f"actors   {inspector.living_actors()} alive or starting")
    click.echo("\nin use")
    for line in _usage(alive):
        click.echo(f"    {line}")
    click.echo("\nwaiting for resources")
    waiting = inspector.queued()
    for kind, count in sorted(waiting.items(), key=lambda item: -item[1]):
        demand, _, where = kind.partition("|")
        there = f" on {where}" if where else ""
        click.echo(f"    {count} x {demand.replace(',', ' ')}{there}{_impossible(demand, where, alive)}")
    if not waiting:
        click.echo("    nothing")
    if verbose:
        for row in nodes:
            click.echo(f"\nnode {row['id']}  {row['state']}  {row['address']}  pid {row['pid']}")
            for line in _usage([row]):
                click.echo(f"    {line}")


def _usage(rows: list[dict[str, Any]]) -> list[str]:
    """`1.5 of 4 CPU` per resource, summed over nodes."""
    total: dict[str, float] = {}
    used: dict[str, float] = {}
    for row in rows:
        for name, quantity in row["resources"].items():
            if name.startswith("node:"):
                continue  # every node has one of itself, so that tasks can ask for it
            total[name] = total.get(name, 0) + quantity
            used[name] = used.get(name, 0) + quantity - row["free"].get(name, 0)
    lines = [f"{_number(name, used[name])} of {_number(name, total[name])} {name}" for name in sorted(total)]
    return lines or ["nothing"]


def _number(name: str, quantity: float) -> str:
    if "memory" in name:
        return f"{quantity / 2**30:.2f} GiB"
    return f"{round(quantity, 4):g}"


def _impossible(demand: str, where: str, alive: list[dict[str, Any]]) -> str:
    there = [row["resources"] for row in alive if may_admit(where, row["labels"])]
    if alive and not there:
        return "   (no node has such labels: add one)"
    return "   (no node is that large: add one)" if missing(demand, there) else ""
