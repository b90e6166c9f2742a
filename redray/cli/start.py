"""`redray start`: a cluster's first machine (--head), or one more (--address)."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import threading
from typing import Any

import click
import msgspec

from redray.cli.node import launch
from redray.cli.options import (
    ADDRESS,
    log_in,
    node_options,
    password_file_option,
    temp_dir_option,
)
from redray.cli.stop import end
from redray.gcs.address import DEFAULT_PORT, Address
from redray.local_cluster import (
    PASSWORD_FILE,
    Process,
    find_local_cluster,
    forget,
    locked,
    make_private_directory,
    record,
    without_password,
    write_private,
)

_STOP_PATIENCE = 16.0  # seconds that running tasks have when a blocking start is ended


@click.command("start", short_help="Start Redis and a node here, or join a cluster.")
@click.option("--head", is_flag=True, help="Begin a cluster: start Redis, unless --redis names one, and a node.")
@click.option("--address", type=ADDRESS, help="Join the cluster whose Redis is at HOST:PORT (or a URL).")
@click.option("--redis", type=ADDRESS, help="With --head: use this Redis instead of starting one.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help=f"With --head: where Redis listens, 0 for any free port.  [default: {DEFAULT_PORT}]",
)
@node_options
@password_file_option
@temp_dir_option
@click.option("--block", is_flag=True, help="Stay in the foreground, and end what was started when this command ends.")
def command(
    head: bool,
    address: Address | None,
    redis: Address | None,
    port: int | None,
    redis_password_file: str | None,
    temp_dir: str,
    block: bool,
    **node: Any,
) -> int:
    """Start redray on this machine and leave it running in the background.

    Without --node-ip-address a new cluster listens on the loopback interface alone. With it, whoever has the password
    of its Redis can run code in it, so guard that: it is generated, and kept in a file that only you can read.
    """
    _check(head, address, redis, port)
    make_private_directory(temp_dir)
    started: list[Process] = []
    with locked(temp_dir):
        if head:
            _refuse_a_second(temp_dir)
        try:
            if head:
                login = _begin(redis, port, node["node_ip_address"], redis_password_file, temp_dir, started)
            else:
                assert address is not None
                login = log_in(address, redis_password_file, temp_dir)
            os.environ.pop("REDRAY_REDIS_PASSWORD", None)  # The node, and its tasks, inherit what is here.
            process = launch(login, temp_dir, node, head)
            started.append(process)
            record(login, temp_dir, process)
        except BaseException:
            end(started, 0)  # Half a cluster helps nobody, and would block the next attempt.
            if head:
                forget(temp_dir)
            raise
    _say(login, head, temp_dir)
    return _stay(started) if block else 0


def _check(head: bool, address: Address | None, redis: Address | None, port: int | None) -> None:
    if head == (address is not None):
        raise click.UsageError("Give either --head, to begin a cluster, or --address HOST:PORT, to join one")
    if not head and (redis is not None or port is not None):
        raise click.UsageError("--redis and --port describe a new cluster: they need --head")
    if redis is not None and port is not None:
        raise click.UsageError("--port is for the Redis that --head starts, but --redis names one that runs already")


def _refuse_a_second(temp_dir: str) -> None:
    running = find_local_cluster(temp_dir)
    if running is not None:
        raise click.ClickException(
            f"a cluster runs here already, at {running.address}: join it with 'redray start --address', end it with "
            "'redray stop', or name another directory with --temp-dir."
        )


def _begin(
    redis: Address | None,
    port: int | None,
    host: str | None,
    password_file: str | None,
    temp_dir: str,
    started: list[Process],
) -> Address:
    """The Redis of a new cluster: the given one, or one that is started here."""
    host = host or "127.0.0.1"
    login = log_in(redis or _free_address(host, DEFAULT_PORT if port is None else port), password_file, temp_dir)
    if redis is None:
        from redray.gcs.server import EmbeddedServer

        login = msgspec.structs.replace(login, password=login.password or secrets.token_hex(32))
        directory = make_private_directory(os.path.join(temp_dir, "redis"))
        server = EmbeddedServer.start_tcp(login.host, login.port, login.password, directory, appendonly=False)
        started.append(Process.of("redis", server.pid))
        record(login, temp_dir, started[0])
    write_private(os.path.join(temp_dir, PASSWORD_FILE), login.password)
    return login


def _free_address(host: str, port: int) -> Address:
    """Refuse a port that is taken, before Redis says so in its log; choose one for 0."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {host}:{port}: {error.strerror}. Give another --port (0 finds a free one) or "
                "--node-ip-address."
            ) from error
        return Address(host=host, port=probe.getsockname()[1])


def _say(login: Address, head: bool, temp_dir: str) -> None:
    public = without_password(login)
    short = public.removeprefix("redis://")
    click.echo(
        f"redray runtime started. {'Its' if head else 'This machine joined the cluster whose'} Redis is at {short}.\n"
    )
    if head and login.scheme == "redis" and _is_loopback(login.host):
        click.echo(
            "Only this machine can join: to let others in, begin with --node-ip-address and an address they reach."
        )
    elif head:
        click.echo("To add a machine, run there")
        click.echo(f"    redray start --address {short}")
        if login.password:
            click.echo(f"with the password from {os.path.join(temp_dir, PASSWORD_FILE)} in $REDRAY_REDIS_PASSWORD.")
    click.echo("To use it from Python on this machine")
    click.echo('    import redray\n    redray.init(address="auto")')
    click.echo("To look at it\n    redray status")
    click.echo("To end what runs on this machine\n    redray stop")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stay(started: list[Process]) -> int:
    """Wait for a signal, or for one of the processes to end by itself."""
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in signals]
    try:
        while not asked.wait(0.5):
            dead = [process for process in started if not process.is_alive()]
            if dead:
                raise click.ClickException(
                    f"the {dead[0].role} process {dead[0].pid} has ended by itself: see the logs."
                )
    finally:
        end(started, _STOP_PATIENCE)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)  # a caller in this process would be deaf to Ctrl-C for good
    return 0
