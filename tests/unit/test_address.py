from __future__ import annotations

import pytest

from redray.gcs.address import Address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://example.org", "redis://example.org:6379"),
        ("example.org:7000", "redis://example.org:7000"),
        ("example.org", "redis://example.org:6379"),
        ("redis://example.org:1/5", "redis://example.org:1/5"),
        ("redis://example.org?db=5", "redis://example.org:6379/5"),
        ("redis://:secret@example.org:1", "redis://:secret@example.org:1"),
        ("rediss://me:p%40ss%3A@example.org:1/2", "rediss://me:p%40ss%3A@example.org:1/2"),
        ("rediss://h:1?ssl_ca_certs=%2Fca.pem", "rediss://h:1?ssl_ca_certs=%2Fca.pem"),
        ("redis://[::1]:6380", "redis://[::1]:6380"),
        ("[::1]:6380", "redis://[::1]:6380"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix://:secret@/run/redis.sock?db=3", "unix://:secret@/run/redis.sock?db=3"),
    ],
)
def test_an_address_round_trips(text: str, url: str) -> None:
    address = Address.parse(text)
    assert address.url() == url
    assert Address.parse(address.url()) == address


@pytest.mark.parametrize("text", ["redis://me:secret@example.org:1", "unix://:secret@/run/redis.sock"])
def test_no_text_of_an_address_shows_its_password(text: str) -> None:
    address = Address.parse(text)
    assert address.password == "secret"
    for shown in (str(address), repr(address), f"{address}", f"{[address]}"):
        assert "secret" not in shown and "***" in shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://example.org", "unknown scheme"),
        ("redis://", "host is missing"),
        ("", "host is missing"),
        ("two words", "host is missing"),
        ("redis://h:port", "port or the host"),
        ("redis://h:99999", "port or the host"),
        ("redis://h:0", "port is 0"),
        ("redis://h/name", "database is a number"),
        ("redis://h/-1", "database is a number"),
        ("redis://h?colour=red", "unknown option 'colour'"),
        ("unix://relative/path", "absolute path"),
        ("unix://", "absolute path"),
        ("redis://me:secret@h:port", "port or the host"),
        ("ftp://me:secret@h", "unknown scheme"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence_without_the_password(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="is not a Redis address") as caught:
        Address.parse(text)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


def test_only_text_is_an_address() -> None:
    with pytest.raises(TypeError, match="not int"):
        Address.parse(6379)  # type: ignore[arg-type]
