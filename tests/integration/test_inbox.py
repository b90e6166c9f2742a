"""An inbox loses nothing: what was not dealt with comes again, whatever became of the connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redray.gcs.client import Connection
from redray.gcs.inbox import InboxLink
from redray.gcs.keys import Keys
from tests.helpers import wait_until

INBOX = Keys().inbox("ab" * 8)


def write(redis: Connection, *numbers: int) -> list[str]:
    """An entry each, filled up to whole pairs of field and value as the scripts do."""
    return [
        redis.call("XADD", INBOX, "*", "value", f"id{number}", b"\xff%d" % number, "").decode() for number in numbers
    ]


@pytest.fixture
def inbox(redis: Connection) -> Iterator[InboxLink]:
    link = InboxLink(redis.address, INBOX, "test")
    assert link.connect()
    yield link
    link.close()


def receive(inbox: InboxLink, count: int) -> list[tuple[str, str, bytes]]:
    """What one `receive` gives, once that is `count` messages: what was not committed comes again with the rest."""
    found: list[tuple[str, str, bytes]] = []

    def came() -> bool:
        inbox.connect()
        inbox.prepare()
        found[:] = inbox.receive()
        return len(found) >= count

    wait_until(came, what=f"{count} messages")
    return found


def expected(*numbers: int) -> list[tuple[str, str, bytes]]:
    return [("value", f"id{number}", b"\xff%d" % number) for number in numbers]


def break_connection(redis: Connection, inbox: InboxLink) -> None:
    for line in redis.call("CLIENT", "LIST").decode().splitlines():
        if "name=test " in line:
            redis.call("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    wait_until(lambda: inbox.receive() == [] and inbox.fileno() < 0, what="the link to notice")


def test_messages_come_in_order_and_once(redis: Connection, inbox: InboxLink) -> None:
    write(redis, 1, 2)
    assert receive(inbox, 2) == expected(1, 2)
    inbox.commit()
    write(redis, 3)
    assert receive(inbox, 1) == expected(3)


def test_what_was_read_and_not_dealt_with_comes_again(redis: Connection, inbox: InboxLink) -> None:
    write(redis, 1)
    assert receive(inbox, 1) == expected(1)
    inbox.commit()
    write(redis, 2, 3)
    assert receive(inbox, 2) == expected(2, 3)
    assert receive(inbox, 2) == expected(2, 3), "an interrupt came before the commit"
    inbox.commit()
    write(redis, 4)
    assert receive(inbox, 1) == expected(4)


def test_a_broken_connection_loses_nothing(redis: Connection, inbox: InboxLink) -> None:
    write(redis, 1, 2)
    assert receive(inbox, 2) == expected(1, 2)
    break_connection(redis, inbox)
    assert receive(inbox, 2) == expected(1, 2)
    inbox.commit()
    write(redis, 3)
    break_connection(redis, inbox)
    assert receive(inbox, 1) == expected(3)


def test_the_position_is_told_once_and_only_of_what_was_dealt_with(redis: Connection, inbox: InboxLink) -> None:
    write(redis, 1, 2)
    receive(inbox, 2)
    assert inbox.take_seen() == "", "nothing was dealt with"
    inbox.commit()
    write(redis, 3)
    assert redis.call("XTRIM", INBOX, "MINID", inbox.take_seen()) == 2
    assert inbox.take_seen() == "", "it was told"
    assert receive(inbox, 1) == expected(3)
