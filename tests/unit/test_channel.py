"""What a process sends again when its node is gone, and what it says about it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from redray import messages
from redray.channel import ChannelLost, NodeChannel, Unacknowledged
from redray.gcs import objects, tasks

DRIVER = "aaaaaaaaaaaaaaaa"
NODE, OTHER = "0" * 32, "1" * 32


class FakeNode:
    """The node's end of the socket. It has said Welcome already."""

    def __init__(self, calls: Unacknowledged, id: str = NODE, last: int = 0) -> None:
        ours, self.socket = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as the system allows
        self.socket.sendall(messages.frame(messages.Welcome(id, last, "", 0, {})))
        self.channel = NodeChannel(calls, self.hello, "", ours, threading.RLock())
        self._in = bytearray()

    @staticmethod
    def hello(last: int) -> messages.Hello:
        return messages.Hello(messages.VERSION, "driver", DRIVER, DRIVER, 7, last)

    def heard(self) -> list[messages.Call]:
        """What has come until now."""
        self.socket.setblocking(False)
        while True:
            try:
                self._in += self.socket.recv(1 << 20)
            except BlockingIOError:
                break
        decoded = [messages.decode_to_node(body) for body in messages.split(self._in)]
        return [message for message in decoded if isinstance(message, messages.Call)]

    def die(self) -> None:
        self.socket.close()

    def close(self) -> None:
        self.channel.close()
        self.socket.close()


@pytest.fixture
def calls() -> Unacknowledged:
    return Unacknowledged()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def node_of(stack: ExitStack, calls: Unacknowledged, id: str = NODE, last: int = 0) -> FakeNode:
    node = FakeNode(calls, id, last)
    stack.callback(node.close)
    return node


def letters(calls: list[messages.Call]) -> list[str]:
    return [call.args[0].decode() for call in calls if call.verb == "task_submit"]


def submit(node: FakeNode, *packed: bytes) -> None:
    node.channel.call("", tasks.submit("", packed))
    node.channel.flush()


def test_what_a_node_heard_is_sent_again_as_lost(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    submit(node, b"one", b"two")
    node.channel.call("", objects.release(["ab"]))
    node.channel.flush()
    assert letters(node.heard()) == [""]
    again = calls.again(0)
    assert [call.verb for call in again] == ["task_submit", "object_release"]
    assert letters(again) == ["LL"]
    assert again[0].args[1:] == [b"one", b"two"]


def test_what_redis_has_is_not_sent_again(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    submit(node, b"one")
    submit(node, b"two")
    assert [call.args[1] for call in calls.again(1)] == [b"two"]


def test_what_never_left_this_process_is_not_lost(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    submit(node, b"one")
    node.die()
    with pytest.raises(ChannelLost):
        submit(node, b"two")
    node.channel.close()
    assert letters(calls.again(0)) == ["L", ""]


def test_a_frame_that_was_sent_in_part_is_not_lost(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    submit(node, b"one")
    submit(node, b"x" * 4_000_000)
    assert node.channel.wants_to_write
    assert letters(calls.again(0)) == ["L", ""]


def test_a_frame_whose_end_was_sent_later_is_lost(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    submit(node, b"x" * 4_000_000)
    while node.channel.wants_to_write:
        node.heard()
        node.channel.flush()
    assert letters(calls.again(0)) == ["L"]


def test_a_send_that_was_interrupted_may_have_sent_everything(stack: ExitStack, calls: Unacknowledged) -> None:
    node = node_of(stack, calls)
    node.channel.call("", tasks.submit("", [b"one"]))
    node.channel._sending = True  # Ctrl-C came between the system call and what counts its bytes
    node.channel.close()
    assert letters(calls.again(0)) == ["L"]


def test_the_same_node_hears_it_as_before(stack: ExitStack, calls: Unacknowledged) -> None:
    """After an interrupted send: it knows itself what it has taken."""
    submit(node_of(stack, calls), b"one")
    back = node_of(stack, calls)
    back.channel.flush()
    assert letters(back.heard()) == [""]


def test_another_node_hears_that_it_may_have_begun(stack: ExitStack, calls: Unacknowledged) -> None:
    submit(node_of(stack, calls), b"one")
    other = node_of(stack, calls, OTHER)
    submit(other, b"two")
    assert letters(other.heard()) == ["L", ""]
    assert letters(calls.again(0)) == ["L", "L"], "and when that one dies, too"


def test_what_went_straight_to_redis_is_not_lost(stack: ExitStack, calls: Unacknowledged) -> None:
    submit(node_of(stack, calls), b"one")
    calls.add("", tasks.submit("", [b"two"]), False)
    assert letters(calls.again(0)) == ["L", ""]
