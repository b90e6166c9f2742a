"""What a process hears: answers from its channel, news of values from its inbox; and how its threads wait.

Of the threads that wait, one reads for all (`_wait_until`); the others sleep until it tells them.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from redray import messages
from redray.arrivals import FETCH, Arrival, Located
from redray.channel import ChannelLost
from redray.critical import shield
from redray.exceptions import GetTimeoutError, RaySystemError, system_error
from redray.gcs import objects
from redray.gcs.address import Address
from redray.gcs.keys import Keys
from redray.gcs.schema import Message
from redray.ids import HANDLE_INDEX, ActorID, JobID, WorkerID
from redray.refs import ObjectRef
from redray.sending import FIRST, SLICE, STREAM, Sending
from redray.store import serialization

ACKNOWLEDGE_EVERY = 1_000  # entries of the inbox
_NO_VALUES = (HANDLE_INDEX.to_bytes(4, "big"), STREAM)  # indexes of what is counted, and has no value

SOON_S = 0.02  # in which a value that is ready comes


class Hearing(Sending):
    """Reads the channel and the inbox while somebody waits for something."""

    def __init__(self, kind: str, worker: WorkerID, address: Address, keys: Keys, job: JobID, namespace: str) -> None:
        super().__init__(kind, worker, address, keys, job, namespace)
        self._lagged = False  # the inbox overflowed once: from then on everything wanted is asked for
        # Where pending calls are bounded: first return of a call -> its actor, and a ref, because its end must be heard
        # of even if nobody wants the value.
        self._limited: dict[bytes, tuple[ActorID, list[ObjectRef[Any]]]] = {}
        self._pending_calls: dict[bytes, int] = {}
        self._request = 0
        self._answers: dict[int, messages.Reply] = {}
        self._locating: dict[int, list[bytes]] = {}
        self._replies: dict[int, Any] = {}
        self._futures: dict[bytes, list[tuple[ObjectRef[Any], Future[Any]]]] = {}
        self._reading = threading.Lock()
        self._news = threading.Condition(threading.Lock())
        self._followers = 0

    # ---- waiting -----------------------------------------------------------------------------------------------------
    def _want(self, missing: Iterable[bytes]) -> None:
        """Ask for values that will not come by themselves: those of others, and all once the inbox has overflowed."""
        self._check_known(missing)
        with self._lock:
            own = self.worker_id
            ask = []
            for ref in missing:
                if ref not in self._asked and (
                    self._lagged
                    or ref[:8] != own
                    or (ref[:12] + FIRST not in self._outstanding and ref not in self._outstanding)
                ):
                    ask.append(ref[:])
            self._asked.update(ask)
            self._flush_batch()
            for first in range(0, len(ask), SLICE):
                self._call(objects.wait([ref.hex() for ref in ask[first : first + SLICE]]))
            self._flush()

    def _wait_until(
        self,
        done: Callable[[], bool],
        deadline: float | None,
        waits_for: Iterable[bytes] = (),
        fetching: Iterable[bytes] = (),
    ) -> bool:
        """Read, or let another thread read for us, until `done()`. False when the deadline passes first."""
        if done() or (self._comes_soon(waits_for) and self._read_shortly(done, deadline)):
            return True
        blocked = self._begin_block(waits_for)
        try:
            while True:
                is_reader = False
                try:
                    with shield:
                        is_reader = self._reading.acquire(blocking=False)
                    if is_reader:
                        while not done():
                            left = None if deadline is None else deadline - time.monotonic()
                            if left is not None and left <= 0:
                                self._pump(0)
                                return done()
                            self._pump(left)
                            if fetching:
                                self._fetch_local(fetching)
                        return True
                finally:
                    if is_reader:
                        with shield:
                            self._reading.release()
                            self._tell_followers()
                if self._follow(done, deadline):
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return done()
        finally:
            self._end_block(blocked)

    def _follow(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Sleep until the reading thread says that something came, or stops reading."""
        with self._news:
            self._followers += 1
            try:
                if not done() and self._reading.locked():
                    left = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
                    self._news.wait(left)
            finally:
                self._followers -= 1
        return done()

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()

    def _comes_soon(self, waits_for: Iterable[bytes]) -> bool:
        """Whether it may well be there already, so that blocking would be said of a wait that is none."""
        return False

    def _read_shortly(self, done: Callable[[], bool], deadline: float | None) -> bool:
        until = time.monotonic() + SOON_S
        if deadline is not None:
            until = min(until, deadline)
        with shield:
            if not self._reading.acquire(blocking=False):
                return False
        try:
            while not done() and (left := until - time.monotonic()) > 0:
                self._pump(left)
        finally:
            with shield:
                self._reading.release()
                self._tell_followers()
        return done()

    def _begin_block(self, waits_for: Iterable[bytes]) -> bool:
        return False

    def _end_block(self, blocked: bool) -> None:
        pass

    def _listen_a_little(self) -> None:
        """While submitting in a row, take in what has come, so that neither the inbox nor the socket fills up."""
        with shield:
            if self._reading.acquire(blocking=False):
                try:
                    self._pump(0)
                finally:
                    self._reading.release()
                    self._tell_followers()  # else one that began to follow just now would sleep, and nobody read

    # ---- reading -----------------------------------------------------------------------------------------------------
    def _pump(self, timeout: float | None) -> None:
        """One step of reading, by the thread that holds `_reading`:
        wait for something at most `timeout` s, take it in."""
        if self._lost is not None:
            raise self._lost
        if self._inbox.fileno() < 0:
            self._inbox.connect()
            self._check_cluster()
        if self._channel.has_heard:
            with shield:
                self._hear_channel(select.POLLIN)
            return
        poll = select.poll()
        with shield:
            self._inbox.prepare()
        channel, inbox = self._channel.fileno(), self._inbox.fileno()
        poll.register(channel, select.POLLIN | (select.POLLOUT if self._channel.wants_to_write else 0))
        if inbox >= 0:
            poll.register(inbox, select.POLLIN)
        limit = 1.0 if inbox >= 0 else 0.05
        ready = poll.poll((limit if timeout is None else max(0.0, min(timeout, limit))) * 1000)
        with shield:
            for fd, event in ready:
                if fd == channel:
                    self._hear_channel(event)
                else:
                    self._hear_inbox()
        if not ready and (self._batch or self._has_dropped()):
            self._flush()
        if ready:
            self._tell_followers()

    def _hear_channel(self, event: int) -> None:
        if event & select.POLLOUT:
            with self._lock:
                self._send_out()
        if event & ~select.POLLOUT:
            channel = self._channel
            try:
                heard = channel.receive()
            except ChannelLost as error:
                self._reroute(error, channel)
                return
            for message in heard:
                self._hear(message)

    def _hear_inbox(self) -> None:
        messages = self._inbox.receive()
        if messages:
            for kind, id, data in messages:
                self._take_news(kind, id, data)
            self._inbox.commit()
            if self._inbox.unacknowledged > ACKNOWLEDGE_EVERY:  # no call has said so: the inbox would fill up
                with self._lock:
                    self._call(objects.hold([]))
                    self._send_out()

    def _take_news(self, kind: str, id: str, data: bytes) -> None:
        if kind == Message.AGAIN:
            self._catch_up()
            return
        object_id = bytes.fromhex(id)
        self._outstanding.discard(object_id)
        stream = self._streams.get(object_id[:12]) if self._streams else None
        if stream is not None and kind == Message.ITEMS:
            self._hear_up_to(stream, int(data))
        elif stream is not None and object_id != stream.end:
            self._hear_item(stream, object_id)
        if object_id in self._limited:
            self._pending_calls[self._limited.pop(object_id)[0]] -= 1
        if object_id not in self._table:
            if kind == Message.VALUE and object_id[:8] == self.worker_id:
                self._unhandled.dropped(object_id, data, False)
            return
        if kind == Message.VALUE:
            self._arrived[object_id] = data
        elif kind == Message.FETCH:
            self._arrived[object_id] = FETCH
        elif kind == Message.LOCATED:
            size, *nodes = data.decode().split(" ")
            self._arrived[object_id] = Located(int(size), nodes)
        if object_id in self._futures:
            self._fulfil_later(self._futures.pop(object_id))
        if stream is not None:
            stream.resolve()

    def _hear_item(self, stream: Any, object_id: bytes) -> None:
        """See `Streaming`."""

    def _hear_up_to(self, stream: Any, index: int) -> None:
        """See `Streaming`."""

    def _catch_up(self) -> None:
        """The inbox overflowed: ask for everything that has not arrived."""
        self._lagged = True
        self._asked.clear()
        with self._lock:
            self._call(objects.hold([]))  # makes room in the inbox before the answers come
            missing = [id for id in self._table.ids() if id not in self._arrived and id[12:] not in _NO_VALUES]
        self._want(missing)

    def _hear(self, message: Any) -> None:
        kind = type(message)
        if kind is messages.Ack:
            self._calls.acknowledge(message.number)
            for number, outcome, detail in message.failures:
                self._call_failed(number, outcome, detail)
        elif kind is messages.Reply:
            located = self._locating.pop(message.request, None)
            if located is None:
                self._answers[message.request] = message
            else:
                self._take_located(located, message)
        elif kind is messages.CallReply:
            self._replies[message.number] = message.reply
        else:
            self._hear_work(message)

    def _hear_work(self, message: Any) -> None:
        """A driver gets no work."""

    def _call_failed(self, number: int, outcome: str, detail: str) -> None:
        """The first refusal says why; those after it only follow from it."""
        if self._lost is None:
            text = f"Redis refused a call of this process: {detail}"
            if outcome in ("JOB_ENDED", "FENCED", "GAP"):
                text = f"The cluster takes no more calls of this process ({outcome}): its job has ended."
            self._lost = RaySystemError(text)

    def _check_cluster(self) -> None:
        """Called when Redis does not answer. A session whose Redis is its own knows that the cluster is gone."""

    def _fulfil_later(self, due: list[tuple[ObjectRef[Any], Future[Any]]]) -> None:
        """Futures whose value has come: `Values` knows what to do."""

    # ---- questions to the node ---------------------------------------------------------------------------------------
    def _ask_node(
        self,
        make: Callable[[int], messages.AnyMessage],
        deadline: float | None = None,
        waits_for: Iterable[bytes] = (),
    ) -> Any:
        with self._lock:
            self._request += 1
            request = self._request
            self._flush_batch()  # its releases too: what they free may be what an Allocate waits for
            self._post(make(request))
            self._send_out()
        if not self._wait_until(lambda: request in self._answers, deadline, waits_for):
            raise GetTimeoutError("Get timed out: the values are ready, and were not brought to this node in time.")
        answer = self._answers.pop(request)
        if answer.error:
            raise system_error(answer.error, answer.detail)
        return answer.value

    def _await_reply(self, number: int) -> Any:
        self._wait_until(lambda: number in self._replies, None)
        reply = self._replies.pop(number)
        if isinstance(reply, str):
            raise RaySystemError(f"Redis refused a call: {reply}")
        return reply

    def _sync(self) -> None:
        """Until Redis has everything this process said: a read that follows sees it."""
        self._check_usable()
        with self._lock:
            self._flush_batch()
            number = self._call(objects.hold([]), wants_reply=True)
            self._send_out()
        self._await_reply(number)

    def _fetch_local(self, refs: Iterable[bytes]) -> None:
        """Ask the node to bring what has arrived elsewhere; its answers come while we wait."""
        far = []
        for ref in refs:
            arrival = self._arrived.get(ref)
            if isinstance(arrival, Located) and not arrival.asked and not self._is_here(ref, True):
                arrival.asked = True
                far.append(ref)
        if far:
            with self._lock:
                self._request += 1
                self._locating[self._request] = far
                self._post(messages.Locate(self._request, [ref.hex() for ref in far], -1))
                self._send_out()

    def _is_here(self, ref: bytes, local: bool) -> bool:
        arrival = self._arrived.get(ref)
        if arrival is None:
            return False
        if not local or not isinstance(arrival, Located) or arrival.view is not None:
            return True
        welcome = self._channel.welcome
        return welcome is None or welcome.node in arrival.nodes

    def _take_located(self, ids: list[bytes], message: messages.Reply) -> None:
        for id, answer in zip(ids, message.value, strict=True):
            arrival = self._arrived.get(id)
            packed = self.take_answer(id.hex(), answer)
            self._note(arrival, packed)

    def _note(self, arrival: Arrival | None, packed: bytes | memoryview) -> None:
        """A located value has been brought to this node, or an error in its place."""
        if isinstance(arrival, Located):
            welcome = self._channel.welcome
            if isinstance(packed, bytes) or welcome is None:
                arrival.keep(packed)
            else:
                arrival.map(packed, welcome.node)

    def take_answer(self, object: str, answer: Any) -> bytes | memoryview:
        """One element of the answer to Locate, as packed bytes."""
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer[0], str):
            return serialization.pack_system_error(answer[0], answer[1])
        view: memoryview = self._arena().read(object, answer[0], answer[1])
        return view

    def _arena(self) -> Any:
        if self._reader is None:
            from redray.store.reader import Reader

            welcome = self._channel.welcome
            assert welcome is not None
            self._reader = Reader(welcome.arena, welcome.capacity)
        return self._reader
