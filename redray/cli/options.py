"""Options that several commands share, and what they mean together."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import click

from redray import strategies
from redray.gcs.address import Address
from redray.local_cluster import default_temp_dir, find_local_cluster, with_password

Function = TypeVar("Function", bound=Callable[..., Any])

_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic for mypy alone, not when it runs
    """An option's value, made from its text by a function whose ValueError is what the user reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, context)


def parse_ip(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address.") from None
    if address.is_unspecified:
        raise ValueError(f"others cannot reach {text}: give the address of one interface.")
    return str(address)


def parse_bytes(text: str) -> int:
    """`2000000000`, `2G` or `2GiB`; K, M, G and T are powers of 1024."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:I?B)?", text.upper(), re.ASCII)
    if not match or not int(match[1]):
        raise ValueError(f"{text!r} is not a number of bytes, such as 2000000000 or 2G.")
    return int(match[1]) * _BYTES[match[2]]


def parse_resources(text: str) -> dict[str, float]:
    """`{"name": quantity}`. CPUs and GPUs have options of their own, as in the API."""
    resources = parse_json(text)
    for name, quantity in resources.items():
        if name in ("CPU", "GPU"):
            raise ValueError(f"{name} has an option of its own: --num-{name.lower()}s.")
        number = isinstance(quantity, (int, float)) and not isinstance(quantity, bool)
        if not number or not math.isfinite(quantity) or quantity < 0:
            raise ValueError(f"the quantity of {name!r} must be a number of at least 0, not {quantity!r}.")
        if not re.fullmatch(r"[^\s:,|]+", name):
            raise ValueError(f"{name!r} cannot name a resource: leave out spaces, commas, colons and bars.")
    return resources


def parse_labels(text: str) -> dict[str, str]:
    """`zone=a,disk=ssd`, or a JSON object."""
    labels = parse_json(text) if text.lstrip().startswith("{") else _parse_pairs(text)
    for name, label in labels.items():
        if not isinstance(label, str):
            raise ValueError(f"the label {name!r} must be text, not {label!r}.")
    strategies.check_label_syntax(labels)
    return labels


def _parse_pairs(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise ValueError(f"{pair!r} is no label, such as zone=a.")
        found[name.strip()] = value.strip()
    return found


def parse_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"""{text!r} is not a JSON object, such as '{{"name": 1}}'.""")
    return found


def _together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


ADDRESS = Parsed("address", Address.parse)

temp_dir_option = click.option(
    "--temp-dir",
    type=click.Path(file_okay=False),
    default=default_temp_dir,
    show_default="$REDRAY_TEMP_DIR, else /tmp/redray-UID",
    help="Directory for sockets, logs and the record of what runs here.",
)

password_file_option = click.option(
    "--redis-password-file",
    type=click.Path(exists=True, dir_okay=False, readable=True),
    help="File with Redis' password.  [default: $REDRAY_REDIS_PASSWORD_FILE; else $REDRAY_REDIS_PASSWORD itself]",
)

node_options = _together(
    click.option(
        "--num-cpus", type=click.FloatRange(min=0), metavar="N", help="CPUs that tasks may use.  [default: all]"
    ),
    click.option(
        "--num-gpus", type=click.FloatRange(min=0), metavar="N", help="GPUs that tasks may use.  [default: all]"
    ),
    click.option(
        "--resources", type=Parsed("json", parse_resources), default="{}", help="""Further resources: '{"disk": 2}'."""
    ),
    click.option(
        "--labels", type=Parsed("labels", parse_labels), default="", help="Labels of this node: zone=a,disk=ssd."
    ),
    click.option(
        "--memory",
        type=Parsed("bytes", parse_bytes),
        help="Memory that tasks and actors may ask for: bytes, or such as 2G.  [default: all but the object store]",
    ),
    click.option(
        "--object-store-memory",
        type=Parsed("bytes", parse_bytes),
        help="Shared memory for large objects: bytes, or such as 2G.",
    ),
    click.option(
        "--object-spilling-directory",
        multiple=True,
        metavar="DIR",
        help="Where objects go that memory has no room for, or a URL for fsspec; several to use several disks.  "
        "[default: $REDRAY_OBJECT_SPILLING_DIRECTORY; else in --temp-dir]",
    ),
    click.option(
        "--node-ip-address", type=Parsed("ip", parse_ip), help="Address of this machine that the others can reach."
    ),
    click.option(
        "--metrics-export-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve metrics for Prometheus here, 0 for any free port.  [default: nowhere]",
    ),
    click.option("--disable-usage-stats", is_flag=True, hidden=True, expose_value=False),  # redray collects none
)

cluster_options = _together(
    click.option(
        "--address",
        type=ADDRESS,
        envvar="REDRAY_ADDRESS",
        help="The cluster's Redis.  [default: $REDRAY_ADDRESS, or the cluster started on this machine]",
    ),
    password_file_option,
    temp_dir_option,
)


def find_cluster(address: Address | None, password_file: str | None, temp_dir: str) -> Address:
    """What the options of `cluster_options` mean, with the password."""
    if address is None:
        cluster = find_local_cluster(temp_dir)
        if cluster is None:
            raise click.ClickException(
                "no cluster was started on this machine: name one with --address, or run 'redray start --head'."
            )
        address = Address.parse(cluster.address)
    return log_in(address, password_file, temp_dir)


def log_in(address: Address, password_file: str | None, temp_dir: str) -> Address:
    try:
        return with_password(address, temp_dir, password_file)
    except OSError as error:
        raise click.ClickException(f"cannot read the password file {error.filename}: {error.strerror}.") from error


def own_address(redis: Address) -> str:
    """The address of this machine on the way to Redis, which the other nodes can most likely reach too."""
    if redis.scheme == "unix":
        return "127.0.0.1"
    try:
        family, _, _, _, target = socket.getaddrinfo(redis.host, redis.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # A datagram socket: this looks up the route and sends nothing.
            return str(probe.getsockname()[0])
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"cannot reach Redis at {redis}: {reason}. Check the address.") from error
