"""docker-compose.yml keeps its promises: nothing published, nothing privileged, no password in sight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where a volume is mounted -> `volume` or `volume:ro`."""
    found = {}
    for text in service["volumes"]:
        match = re.fullmatch(r"(\$\{[^}]*\}|[^:]+):([^:]+)(:ro)?", text)
        assert match, text
        found[match[2]] = match[1] + (match[3] or "")
    return found


def test_the_services_are_the_documented_ones() -> None:
    assert set(SERVICES) == {"password", "redis", "worker", "driver"}
    assert COMPOSE["version"].startswith("3.")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert int(service["user"].split(":")[0]) > 0, "it runs as root"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True, "nobody would reap a container's orphans"
    assert not {"ports", "privileged", "cap_add", "pid", "devices"} & set(service)
    assert service.get("network_mode") in (None, "none")


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_service_that_makes_the_password_may_write_it(name: str) -> None:
    volume = mounts(SERVICES[name])["/run/redray"]
    assert volume == "${REDRAY_SECRETS:-secrets}" + ("" if name == "password" else ":ro")


@pytest.mark.parametrize("name", ["redis", "worker", "driver"])
def test_the_password_travels_as_a_file(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["REDRAY_REDIS_PASSWORD_FILE"] == "/run/redray/redis_password"
    assert "REDRAY_REDIS_PASSWORD" not in service["environment"]
    assert not re.search(r"requirepass|--pass|:[^@/]*@", str(service.get("command")))


def test_redis_keeps_what_it_acknowledged() -> None:
    settings = (ROOT / "docker/redis-start").read_text()
    for line in ("appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", "requirepass $password"):
        assert re.search(rf"^{re.escape(line)}$", settings, re.MULTILINE), f"{line} is gone"
    assert mounts(SERVICES["redis"])["/data"] == "redis"
    assert settings.index("umask 077") < settings.index("> /tmp/redis.conf")


def test_workers_scale() -> None:
    worker = SERVICES["worker"]
    assert "container_name" not in worker, "docker-compose up --scale worker=3 needs a name for each"
    assert worker["command"][:3] == ["worker", "--redis", "redis:6379"]
    assert worker["shm_size"] == "1gb"
    assert worker["depends_on"]["redis"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["redis", "worker"])
def test_what_stays_up_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_driver_runs_only_when_asked_for() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["driver"]
    program = SERVICES["driver"]["entrypoint"][-1]
    assert (ROOT / program.removeprefix("/opt/redray/")).is_file()


def test_the_images_leave_root_behind() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    final = {match[1]: stage for stage in stages if (match := re.match(r"\S+ AS (\S+)", stage))}
    targets = {service["build"]["target"] for service in SERVICES.values()}
    assert targets <= set(final)
    for target in targets:
        assert re.search(r"^USER 10001:10001$", final[target], re.MULTILINE), f"the image {target} runs as root"


def test_no_secret_goes_into_an_image() -> None:
    allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("**")]
    assert allowed[0] == "*", "the build context must be empty but for what is named"
    assert all(line.startswith("!") and "secret" not in line for line in allowed[1:])
