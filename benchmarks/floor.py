"""The floor: the bare hops of redray's design in plain Python, without semantics: what none that has them can beat.

A driver sends to a node over a unix socket, the node hands the work to a forked worker at once and records in Redis
what happened in the same turn of its loop; a result reaches the driver through its inbox in Redis. There are no refs,
no retries, no numbers to check: it loses work on any fault and is a yardstick, never a base to build on.

Each kind of frame travels its own way:
* TASK: recorded when it starts and when it finishes;
* LINK: a task that waits for the one before it: Redis hands it out in the reply to that one's finish; START is the
  first of such a chain;
* CALL: an actor call on the same node: call and result are recorded together, in one script.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import hiredis

from benchmarks.measure import Plan
from benchmarks.workloads import BATCH

TASK, LINK, START, CALL = range(4)
HEADER = struct.Struct("<IIB")  # length of the body, number, kind
CHUNK = 1 << 18
PREFETCH = 64
ROWS = ("tasks_sync", "tasks_async", "chain", "actor_sync", "actor_async")
FRAMES_AT_ONCE = 8192

Frame = tuple[int, int, bytes]  # number, kind, body

# ARGV: how many started, how many links, how many finished; then (number, kind, body) of each. Kinds are those below.
# The inbox is a plain list popped by its reader, which loses what was popped when a connection dies: faster than an
# inbox that cannot lose, as a floor should be. Task keys wrap around, so that a long run measures the hops and not a
# growing keyspace.
RECORD = """
local at, results, following = 4, {}, {}
local function key(number) return 't:' .. number % 65536 end
for _ = 1, tonumber(ARGV[1]) do
  redis.call('HSET', key(ARGV[at]), 'state', 'RUNNING', 'node', 'n1', 'spec', ARGV[at + 2])
  at = at + 3
end
for _ = 1, tonumber(ARGV[2]) do
  redis.call('RPUSH', 'links', cmsgpack.pack({tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]}))
  at = at + 3
end
for _ = 1, tonumber(ARGV[3]) do
  local number, kind = ARGV[at], tonumber(ARGV[at + 1])
  redis.call('HSET', key(number), 'state', 'DONE', 'result', ARGV[at + 2])
  local link = (kind == 1 or kind == 2) and redis.call('LPOP', 'links')
  if link then
    following[#following + 1] = cmsgpack.unpack(link)
  else
    results[#results + 1] = struct.pack('<IIB', #ARGV[at + 2], tonumber(number), kind) .. ARGV[at + 2]
  end
  at = at + 3
end
if #results > 0 then redis.call('RPUSH', 'inbox', table.concat(results)) end
return following
"""


class Connection:
    """A raw socket to Redis with hiredis' packer and reader."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.sock.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):  # Redis makes the file a moment before it listens
                time.sleep(0.002)
        self.reader = hiredis.Reader()

    def send(self, *command: str | bytes | int) -> None:
        self.sock.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]

    def feed(self) -> None:
        self.reader.feed(self.sock.recv(CHUNK))

    def replies(self) -> Iterator[list[list[object]]]:
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, Exception):
                raise reply
            yield reply

    def call(self, *command: str | bytes | int) -> object:
        self.send(*command)
        while True:
            for reply in self.replies():
                return reply
            self.feed()


def pack(number: int, kind: int, body: bytes) -> bytes:
    return HEADER.pack(len(body), number, kind) + body


def cut_frames(buffer: bytearray) -> list[Frame]:
    """Take the whole frames off the front of `buffer`."""
    out, at = [], 0
    while len(buffer) - at >= HEADER.size:
        length, number, kind = HEADER.unpack_from(buffer, at)
        end = at + HEADER.size + length
        if len(buffer) < end:
            break
        out.append((number, kind, bytes(buffer[at + HEADER.size : end])))
        at = end
    del buffer[:at]
    return out


def work(sock: socket.socket) -> NoReturn:
    buffer = bytearray()
    while data := sock.recv(CHUNK):
        buffer += data
        out = bytearray()
        for number, kind, body in cut_frames(buffer):
            pickle.loads(body)  # function id, args, kwargs: decoded as a real worker must
            out += pack(number, kind, pickle.dumps(b"ok", 5))
        sock.sendall(out)
    os._exit(0)


class Node:
    """One loop between the driver, the workers and Redis: it decides locally and records in the same turn."""

    def __init__(self, driver: socket.socket, workers: list[socket.socket], path: str) -> None:
        self.driver, self.workers = driver, workers
        self.redis = Connection(path)
        self.sha = self.redis.call("SCRIPT", "LOAD", RECORD)
        self.inbound = {sock: bytearray() for sock in (driver, *workers)}
        self.outbound = {sock: bytearray() for sock in workers}
        self.busy = dict.fromkeys(workers, 0)
        self.pending: deque[Frame] = deque()
        self.started: list[Frame] = []
        self.links: list[Frame] = []
        self.finished: list[Frame] = []
        self.in_flight = 0

    def run(self) -> NoReturn:
        poll = select.epoll()
        by_fd = {sock.fileno(): sock for sock in (self.driver, self.redis.sock, *self.workers)}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        while True:
            for fd, _events in poll.poll():
                self.read(by_fd[fd])
            self.dispatch()
            self.record()

    def read(self, sock: socket.socket) -> None:
        if sock is self.redis.sock:
            self.redis.feed()
            for following in self.redis.replies():
                self.in_flight -= 1
                self.pending.extend((number, kind, body) for number, kind, body in following)  # type: ignore[misc]
            return
        data = sock.recv(CHUNK)
        if not data:
            os._exit(0)
        buffer = self.inbound[sock]
        buffer += data
        if sock is self.driver:
            for frame in cut_frames(buffer):
                (self.links if frame[1] == LINK else self.pending).append(frame)
        else:
            frames = cut_frames(buffer)
            self.busy[sock] -= len(frames)
            self.finished += frames

    def dispatch(self) -> None:
        """Hand out what is pending, all of one kind: the driver waits for a batch before it sends another kind."""
        while self.pending:
            actor_call = self.pending[0][1] == CALL
            worker = self.workers[0] if actor_call else min(self.workers, key=self.busy.__getitem__)
            share = len(self.pending) if actor_call else -(-len(self.pending) // len(self.workers))
            room = min(PREFETCH - self.busy[worker], share)
            if room <= 0:
                break
            for _ in range(room):
                frame = self.pending.popleft()
                self.outbound[worker] += pack(*frame)
                if not actor_call:
                    self.started.append(frame)
            self.busy[worker] += room
        for worker, out in self.outbound.items():
            if out:
                worker.sendall(out)
                out.clear()

    def record(self) -> None:
        batches = (self.started, self.links, self.finished)
        if self.in_flight >= 2 or not any(batches):
            return
        counts = [len(batch) for batch in batches]
        fields = [field for batch in batches for frame in batch for field in frame]
        self.redis.send("EVALSHA", self.sha, 0, *counts, *fields)  # type: ignore[arg-type]
        self.in_flight += 1
        for batch in batches:
            batch.clear()


class Driver:
    def __init__(self, node: socket.socket, path: str) -> None:
        self.node, self.redis = node, Connection(path)
        self.last = 0
        self.batch = bytearray()
        self.results: dict[int, bytes] = {}

    def remote(self, kind: int = TASK) -> int:
        self.last += 1
        self.batch += pack(self.last, kind, pickle.dumps((b"f" * 16, (), {}), 5))
        if len(self.batch) > FRAMES_AT_ONCE and kind != LINK:
            self.flush()
        return self.last

    def flush(self) -> None:
        if self.batch:
            self.node.sendall(self.batch)
            self.batch.clear()

    def get(self, numbers: list[int]) -> list[object]:
        self.flush()
        for number in numbers:
            while number not in self.results:
                self.receive()
        return [pickle.loads(self.results.pop(number)) for number in numbers]

    def receive(self) -> None:
        reply = self.redis.call("BLPOP", "inbox", 0)
        self.results.update((number, body) for number, _kind, body in cut_frames(bytearray(reply[1])))  # type: ignore[index]

    def chain(self, depth: int) -> None:
        """`depth` tasks, each after the one before. The first goes last: Redis must know its followers when it ends."""
        last = [self.remote(LINK) for _ in range(depth - 1)][-1]
        self.remote(START)
        self.get([last])


def _fork(children: list[int], body: Callable[[], NoReturn]) -> None:
    pid = os.fork()
    if not pid:
        try:
            body()
        except BrokenPipeError:
            os._exit(0)  # the driver has gone, and with it the reason to be here
        finally:
            os._exit(1)
    children.append(pid)


@contextmanager
def _redis(folder: str) -> Iterator[str]:
    path = os.path.join(folder, "redis.sock")
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not Path(path).exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start; is another program of that name on PATH?")
            time.sleep(0.005)
        yield path
    finally:
        server.kill()
        server.wait()


@contextmanager
def running(plan: Plan) -> Iterator[dict[str, Callable[[], float]]]:
    children: list[int] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = stack.enter_context(_redis(folder))
        pairs = [socket.socketpair() for _ in range(plan.cpus + 1)]
        for _mine, theirs in pairs[1:]:
            _fork(children, lambda theirs=theirs: work(theirs))  # type: ignore[misc]
        _fork(children, lambda: Node(pairs[0][1], [mine for mine, _ in pairs[1:]], path).run())
        driver = Driver(pairs[0][0], path)

        def several(count: int, kind: int) -> None:
            driver.get([driver.remote(kind) for _ in range(count)])

        try:
            yield {
                "tasks_sync": lambda: plan.rate(lambda: several(1, TASK)),
                "tasks_async": lambda: plan.rate(lambda: several(BATCH, TASK), BATCH),
                "chain": lambda: plan.rate(lambda: driver.chain(100), 100),
                "actor_sync": lambda: plan.rate(lambda: several(1, CALL)),
                "actor_async": lambda: plan.rate(lambda: several(BATCH, CALL), BATCH),
            }
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
