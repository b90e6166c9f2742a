"""`redray logs`, `redray timeline`, `redray kill-actor` and `redray microbenchmark`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import click

from redray.cli.options import cluster_options, find_cluster
from redray.gcs.address import Address
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector
from redray.gcs.keys import Keys
from redray.log_lines import Line, Style


@click.command("logs", short_help="Show what the workers of a job have printed.")
@click.argument("job", required=False)
@click.option("--pid", help="Only of this process.")
@click.option("--name", help="Only of this function or actor class.")
@click.option("--tail", type=click.IntRange(1), default=1000, show_default=True, help="Only so many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@cluster_options
def logs(
    job: str | None,
    pid: str | None,
    name: str | None,
    tail: int,
    follow: bool,
    address: Address | None,
    redis_password_file: str | None,
    temp_dir: str,
) -> int:
    """Show what the workers of a job have printed lately. JOB is its id, or the start of it; default: every job.

    Of a job that was submitted, `redray job logs` shows what the command itself printed.
    """
    with contextlib.closing(Connection.open(find_cluster(address, redis_password_file, temp_dir))) as connection:
        streams = _streams(connection, job)
        lines: list[str] = []
        while True:
            for stream in streams:
                lines += _read(connection, stream, pid, name)
            for line in lines[-tail:]:
                click.echo(line, nl=False)
            if not follow:
                return 0
            lines.clear()
            time.sleep(0.5)


def _streams(connection: Connection, job: str | None) -> list[list[str]]:
    """[key, position] of the jobs that are meant."""
    known = [row["id"] for row in Inspector(connection).jobs()]
    meant = [id for id in known if id.startswith(job or "")]
    if job and not meant:
        raise click.ClickException(f"the cluster knows no job {job}: see 'redray list jobs'.")
    return [[Keys().logs(id), "-"] for id in meant]


def _read(connection: Connection, stream: list[str], pid: str | None, name: str | None) -> list[str]:
    shown = []
    style = Style()
    while True:
        start = stream[1] if stream[1] == "-" else f"({stream[1]}"
        entries = connection.call("XRANGE", stream[0], start, "+", "COUNT", 500)
        for position, fields in entries:
            texts = [field.decode(errors="replace") for field in fields]
            entry = dict(zip(texts[::2], texts[1::2], strict=True))
            stream[1] = position.decode()
            if (pid or entry["pid"]) == entry["pid"] and (name or entry["name"]) == entry["name"]:
                for text in entry["text"].split("\n"):
                    shown.append(style.show(Line(entry["name"], entry["pid"], entry["host"], entry["stream"], text)))
        if len(entries) < 500:
            return shown


@click.command("timeline", short_help="Write what ran lately as a trace for Perfetto.")
@click.argument("file", default="redray-timeline.json", type=click.Path(dir_okay=False, writable=True))
@cluster_options
def timeline(file: str, address: Address | None, redis_password_file: str | None, temp_dir: str) -> int:
    """Write what ran lately as a trace that https://ui.perfetto.dev and chrome://tracing open."""
    from redray.chrome_trace import chrome_events

    with contextlib.closing(Connection.open(find_cluster(address, redis_password_file, temp_dir))) as connection:
        events = chrome_events(Inspector(connection).history())
    with open(file, "w", encoding="utf-8") as out:
        json.dump(events, out)
    click.echo(f"Wrote {sum(event['ph'] == 'X' for event in events)} tasks and calls to {file}.")
    return 0


@click.command("kill-actor", short_help="Kill a named actor.")
@click.argument("name")
@click.option("--namespace", required=True, help="The namespace it was named in.")
@click.option("--restart", is_flag=True, help="Let it be restarted, within its max_restarts.")
@cluster_options
def kill_actor(
    name: str, namespace: str, restart: bool, address: Address | None, redis_password_file: str | None, temp_dir: str
) -> int:
    """Kill a named actor at once: what runs in it is lost."""
    import redray

    redray.init(find_cluster(address, redis_password_file, temp_dir).url(), namespace=namespace, log_to_driver=False)
    try:
        redray.kill(redray.get_actor(name), no_restart=not restart)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    finally:
        redray.shutdown()
    click.echo(f"Killed the actor {name!r} of the namespace {namespace!r}.")
    return 0


@click.command("microbenchmark", short_help="Measure how many calls per second this machine makes.")
@click.option("--seconds", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="For each of them.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def microbenchmark(seconds: float, form: str) -> int:
    """Measure puts, gets, tasks and actor calls, in a cluster of its own on this machine."""
    import redray

    redray.init("local", log_to_driver=False)
    try:
        rates = {name: _rate(work, count, seconds) for name, (work, count) in _works(redray).items()}
    finally:
        redray.shutdown()
    if form == "json":
        click.echo(json.dumps(rates, indent=2))
    else:
        for name, rate in rates.items():
            click.echo(f"{name:36} {rate:12,.0f} per second")
    return 0


def _works(ray: Any) -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> what to repeat, and how many operations that is."""

    def nothing() -> None:
        pass

    class Actor:
        def nothing(self) -> None:
            pass

    task, actor = ray.remote(nothing), ray.remote(Actor).remote()
    value = ray.put(0)
    return {
        "single client get calls": (lambda: ray.get(value), 1),
        "single client put calls": (lambda: ray.put(0), 1),
        "single client tasks sync": (lambda: ray.get(task.remote()), 1),
        "single client tasks async": (lambda: ray.get([task.remote() for _ in range(1000)]), 1000),
        "1:1 actor calls sync": (lambda: ray.get(actor.nothing.remote()), 1),
        "1:1 actor calls async": (lambda: ray.get([actor.nothing.remote() for _ in range(1000)]), 1000),
    }


def _rate(work: Callable[[], Any], count: int, seconds: float) -> float:
    work()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        work()
        done += count
    return done / (time.perf_counter() - begun)
