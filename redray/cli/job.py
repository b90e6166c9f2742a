"""`redray job submit|status|logs|stop|delete|list`: commands that run in the cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from redray.cli.options import Parsed, cluster_options, find_cluster, parse_bytes, parse_json, parse_resources
from redray.gcs.address import Address

if TYPE_CHECKING:
    from redray.job_submission import JobDetails, JobSubmissionClient

POLL_S = 0.2


@click.group("job", short_help="Submit commands to the cluster, and ask for them.")
def command() -> None:
    """Run commands in the cluster, as jobs that go on when whoever submitted them has left."""


def _with_client(function: Callable[..., Any]) -> Any:
    """Gives the function a client of the cluster that its options name."""

    def called(address: Address | None, redis_password_file: str | None, temp_dir: str, **options: Any) -> Any:
        from redray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(find_cluster(address, redis_password_file, temp_dir).url())
        try:
            return function(client, **options)
        except (RuntimeError, ValueError) as error:
            raise click.ClickException(str(error)) from error

    called.__doc__ = function.__doc__
    return cluster_options(called)


@command.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("entrypoint", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--submission-id", help="Its name.  [default: a random one]")
@click.option("--runtime-env-json", type=Parsed("json", parse_json), help="Its runtime environment.")
@click.option("--runtime-env", type=click.File(), help="A JSON file with its runtime environment.")
@click.option("--working-dir", help="Directory it runs in, uploaded with it.")
@click.option("--metadata-json", type=Parsed("json", parse_json), help="Text to remember with it.")
@click.option("--entrypoint-num-cpus", type=click.FloatRange(min=0), help="CPUs that the command itself holds.")
@click.option("--entrypoint-num-gpus", type=click.FloatRange(min=0), help="GPUs that the command itself holds.")
@click.option("--entrypoint-memory", type=Parsed("bytes", parse_bytes), help="Memory that the command itself holds.")
@click.option("--entrypoint-resources", type=Parsed("json", parse_resources), help="Further resources it holds.")
@click.option("--no-wait", is_flag=True, help="Return at once, instead of showing what it prints until it ends.")
@_with_client
def submit(
    client: JobSubmissionClient,
    entrypoint: tuple[str, ...],
    runtime_env: Any,
    runtime_env_json: Any,
    working_dir: str | None,
    metadata_json: Any,
    no_wait: bool,
    **options: Any,
) -> int:
    """Run a command in the cluster: redray job submit -- python train.py --epochs 3"""
    environment = {**(json.load(runtime_env) if runtime_env else {}), **(runtime_env_json or {})}
    if working_dir:
        environment["working_dir"] = working_dir
    text = entrypoint[0] if len(entrypoint) == 1 else shlex.join(entrypoint)
    id = client.submit_job(entrypoint=text, runtime_env=environment or None, metadata=metadata_json, **options)
    click.echo(f"Job '{id}' submitted successfully.")
    if no_wait:
        click.echo(f"    redray job status {id}\n    redray job logs {id}\n    redray job stop {id}")
        return 0
    return _follow(client, id)


@command.command("status")
@click.argument("id")
@_with_client
def status(client: JobSubmissionClient, id: str) -> int:
    """Say how a job stands. The exit code is 1 if it failed."""
    return _say_status(client, id)


@command.command("logs")
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@_with_client
def logs(client: JobSubmissionClient, id: str, follow: bool) -> int:
    """Show what a job has printed."""
    if follow:
        return _follow(client, id)
    click.echo(client.get_job_logs(id), nl=False)
    return 0


@command.command("stop")
@click.argument("id")
@click.option("--no-wait", is_flag=True, help="Return at once, instead of when it has ended.")
@_with_client
def stop(client: JobSubmissionClient, id: str, no_wait: bool) -> int:
    """End a job: SIGTERM to the command and its children, SIGKILL 3 seconds later."""
    if not client.stop_job(id):
        click.echo(f"Job '{id}' has ended already.")
    while not no_wait and not client.get_job_status(id).is_terminal():
        time.sleep(POLL_S)
    _say_status(client, id)
    return 0


@command.command("delete")
@click.argument("id")
@_with_client
def delete(client: JobSubmissionClient, id: str) -> int:
    """Forget a job that has ended, and what it printed."""
    client.delete_job(id)
    click.echo(f"Job '{id}' deleted.")
    return 0


@command.command("list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@_with_client
def list_(client: JobSubmissionClient, form: str) -> int:
    """Show the jobs that were submitted, the oldest first."""
    from redray.cli.listing import print_table

    jobs = client.list_jobs()
    if form == "json":
        click.echo(json.dumps([dataclasses.asdict(job) for job in jobs], indent=2))
        return 0
    print_table([_row(job) for job in jobs])
    if not jobs:
        click.echo("no jobs")
    return 0


def _row(job: JobDetails) -> dict[str, Any]:
    times = {
        name: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1000)) if at else ""
        for name, at in (("started", job.start_time), ("ended", job.end_time))
    }
    return {"id": job.submission_id, "status": str(job.status), **times, "entrypoint": job.entrypoint}


def _follow(client: JobSubmissionClient, id: str) -> int:
    async def show() -> None:
        async for text in client.tail_job_logs(id):
            click.echo(text, nl=False)

    asyncio.run(show())
    return _say_status(client, id)


def _say_status(client: JobSubmissionClient, id: str) -> int:
    found = client.get_job_info(id)
    click.echo(f"Status for job '{id}': {found.status}")
    if found.message:
        click.echo(f"Status message: {found.message}")
    return 1 if found.status == "FAILED" else 0
