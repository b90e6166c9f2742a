"""`init` and `shutdown`: which cluster is meant, and what is refused."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import redray
from redray import startup
from tests.unit.fake_session import FakeSession, empty_slot


class Bootstrap(SimpleNamespace):
    """In place of `redray.bootstrap`: remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(asked=[], local_cluster=None, sessions=[])

    def _session(self) -> FakeSession:
        self.sessions.append(FakeSession())
        return self.sessions[-1]  # type: ignore[no-any-return]

    def start_embedded(self, **given: Any) -> FakeSession:
        self.asked.append(("start", given))
        return self._session()

    def connect(self, **given: Any) -> FakeSession:
        self.asked.append((given["address"], given))
        return self._session()

    def find_local_cluster(self) -> str | None:
        return self.local_cluster  # type: ignore[no-any-return]


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bootstrap]:
    fake = Bootstrap()
    monkeypatch.setattr(redray, "bootstrap", fake, raising=False)
    monkeypatch.setitem(sys.modules, "redray.bootstrap", fake)  # type: ignore[arg-type]
    for name in ("REDRAY_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with empty_slot():
        yield fake


REDIS = "redis://10.0.0.1:6379"


@pytest.mark.parametrize(
    "address, environment, on_this_machine, expected",
    [
        (None, {}, None, "start"),
        (None, {}, REDIS, REDIS),
        (None, {"REDRAY_ADDRESS": "host:1"}, REDIS, "host:1"),
        (None, {"RAY_ADDRESS": "host:2"}, REDIS, "host:2"),
        (None, {"REDRAY_ADDRESS": "host:1", "RAY_ADDRESS": "host:2"}, None, "host:1"),
        (None, {"RAY_ADDRESS": "local"}, REDIS, "start"),
        (None, {"RAY_ADDRESS": "auto"}, REDIS, REDIS),
        ("auto", {}, REDIS, REDIS),
        ("auto", {"RAY_ADDRESS": "host:2"}, None, "host:2"),
        ("local", {"RAY_ADDRESS": "host:2"}, REDIS, "start"),
        (REDIS, {"RAY_ADDRESS": "host:2"}, None, REDIS),
        ("unix:///run/redis.sock", {}, None, "unix:///run/redis.sock"),
        ("ray://host:10001", {}, None, "redis://host:10001"),
    ],
)
def test_which_cluster_is_meant(
    bootstrap: Bootstrap,
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    environment: dict[str, str],
    on_this_machine: str | None,
    expected: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bootstrap.local_cluster = on_this_machine
    redray.init(address)
    ((found, _),) = bootstrap.asked
    assert found == expected


@pytest.mark.parametrize("where", ["address", "RAY_ADDRESS"])
def test_auto_without_a_cluster_is_a_connection_error(
    bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "RAY_ADDRESS":
        monkeypatch.setenv(where, "auto")
    with pytest.raises(ConnectionError, match="redray start"):
        redray.init("auto" if where == "address" else None)
    assert not redray.is_initialized()


def test_what_a_new_cluster_is_told(bootstrap: Bootstrap) -> None:
    redray.init(num_cpus=2, num_gpus=0, resources={"disk": 1}, namespace="n", log_to_driver=False, _temp_dir="/t")
    ((_, given),) = bootstrap.asked
    assert given["num_cpus"] == 2 and given["resources"] == {"disk": 1}
    assert (given["namespace"], given["log_to_driver"], given["temp_dir"]) == ("n", False, "/t")


@pytest.mark.parametrize(
    "given",
    [{"num_cpus": 1}, {"num_gpus": 0}, {"resources": {"a": 1}}, {"labels": {"a": "b"}}, {"object_store_memory": 10**8}],
)
def test_095_a_cluster_that_exists_has_its_own_nodes(bootstrap: Bootstrap, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))) as caught:
        redray.init("redis://user:secret@host:1", **given)
    assert "secret" not in str(caught.value)
    assert not bootstrap.asked


def test_094_twice_is_an_error_unless_ignored(bootstrap: Bootstrap) -> None:
    redray.init()
    with pytest.raises(RuntimeError, match=r"Maybe you called ray\.init twice by accident\?"):
        redray.init()
    assert redray.init(ignore_reinit_error=True)["address"] == "fake://"
    assert len(bootstrap.asked) == 1


def test_unknown_arguments_are_named(bootstrap: Bootstrap) -> None:
    with pytest.raises(RuntimeError, match="foo"):
        redray.init(foo=3)
    with pytest.raises(RuntimeError, match="_foo"):
        redray.init(_foo=3)


def test_internals_of_ray_are_ignored_audibly(bootstrap: Bootstrap, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "redray"):
        redray.init(_system_config={"a": 1}, _node_ip_address="1.2.3.4", include_dashboard=False)
    assert caplog.messages == [
        "init() ignores _node_ip_address, _system_config, include_dashboard: redray has no counterpart."
    ]
    caplog.clear()
    redray.shutdown()
    with caplog.at_level(logging.DEBUG, "redray"):
        redray.init(num_cpus=1, dashboard_host="127.0.0.1", object_store_memory=10**8)
    assert not caplog.messages


@pytest.mark.parametrize(
    "given, error",
    [
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": "2"}, TypeError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"labels": {"a": 1}}, TypeError),
        ({"object_store_memory": 0}, ValueError),
        ({"namespace": ""}, ValueError),
        ({"namespace": 3}, TypeError),
        ({"runtime_env": "x"}, TypeError),
    ],
)
def test_arguments_are_checked_before_anything_starts(
    bootstrap: Bootstrap, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        redray.init(**given)
    with pytest.raises(TypeError):
        redray.init(3)  # type: ignore[arg-type]
    assert not bootstrap.asked


def test_a_job_config_says_the_same_as_the_arguments(bootstrap: Bootstrap) -> None:
    config = SimpleNamespace(ray_namespace="theirs", runtime_env={"env_vars": {"A": "1"}})
    with pytest.raises(ValueError, match="namespace"):
        redray.init(job_config=config, namespace="ours")
    redray.init(job_config=config)
    assert bootstrap.asked[0][1]["namespace"] == "theirs"
    assert bootstrap.asked[0][1]["runtime_env"] == {"env_vars": {"A": "1"}}


def test_the_context_is_a_mapping_and_ends_the_session(bootstrap: Bootstrap) -> None:
    with redray.init() as context:
        assert context["address"] == context.address_info["address"] == "fake://"
        assert set(context) == {"address", "dashboard_url"} and len(context) == 2
        assert context.dashboard_url == ""
        assert redray.is_initialized()
    assert not redray.is_initialized() and bootstrap.sessions[0].closed


def test_shutdown_can_be_repeated_and_init_comes_again(bootstrap: Bootstrap) -> None:
    redray.shutdown()
    redray.init()
    redray.shutdown()
    redray.shutdown()
    redray.init()
    assert len(bootstrap.asked) == 2


def test_a_session_that_fails_to_close_is_gone_all_the_same(bootstrap: Bootstrap) -> None:
    redray.init()

    def fail() -> None:
        raise OSError("no answer")

    bootstrap.sessions[0].close = fail
    with pytest.raises(OSError, match="no answer"):
        redray.shutdown()
    assert not redray.is_initialized()


def test_a_worker_keeps_its_session(bootstrap: Bootstrap) -> None:
    redray.init()
    bootstrap.sessions[0].kind = "worker"
    redray.shutdown()
    assert redray.is_initialized()
    bootstrap.sessions[0].kind = "driver"


def test_two_threads_that_submit_first_begin_one_session(bootstrap: Bootstrap) -> None:
    @redray.remote
    def task() -> None: ...

    both = threading.Barrier(2)

    def submit() -> None:
        both.wait()
        task.remote()

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bootstrap.asked) == 1
    assert len(bootstrap.sessions[0].calls) == 2


def test_only_some_functions_begin_a_session(bootstrap: Bootstrap) -> None:
    for ask in (redray.nodes, redray.cluster_resources, redray.available_resources, redray.timeline):
        with pytest.raises(redray.exceptions.RaySystemError, match="init"):
            ask()
    assert not bootstrap.asked
    redray.get_gpu_ids()
    assert len(bootstrap.asked) == 1


def test_logging_is_set_up_on_request_only(bootstrap: Bootstrap) -> None:
    logger = logging.getLogger("redray")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        redray.init()
        assert (logger.handlers, logger.level, logger.propagate) == before
        redray.shutdown()
        redray.init(logging_level="debug", logging_format="%(message)s")
        assert logger.level == logging.DEBUG and len(logger.handlers) == len(before[0]) + 1
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


def test_an_address_is_shown_without_its_password() -> None:
    assert startup._without_password("redis://user:secret@host:1") == "redis://***@host:1"
    assert startup._without_password("host:1") == "host:1"
