"""Virtual time, dice, and ordered ways between simulated processes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from tests.unit.simulated_cluster import Cluster


class World:
    """The clock, the dice, and a record of what happened that no process could keep."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self.mail: dict[str, Pipe] = {}
        self.cluster = Cluster(self.post)
        self.nodes: list[Any] = []
        self.starts: Counter[str] = Counter()  # task -> how often user code began
        self.crashes: Counter[str] = Counter()  # task -> how many of its attempts were lost by a death
        self.cancelled: set[str] = set()
        self.died_actors: set[str] = set()  # a process of theirs has died, for whatever reason
        self.heard: list[tuple[str, str, str, int]] = []  # (process, actor, caller, sequence) as calls began
        self._ids = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def post(self, to: str, kind: str, id: str, data: bytes) -> None:
        if to in self.mail:
            self.mail[to].send((kind, id, data))

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:016x}"

    def later(self, delay: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + max(0, int(delay)), self._order, what))

    def run(self, is_over: Callable[[], bool], limit_ms: int) -> bool:
        """True when it was over before the limit."""
        while self._events and self.now < limit_ms:
            self.now, _, what = heapq.heappop(self._events)
            what()
            if is_over():
                return True
        return False


class Pipe:
    """An ordered way between two processes. `cut` loses what is on it."""

    def __init__(self, world: World, deliver: Callable[[Any], None], slowest_ms: int = 6) -> None:
        self._world, self._deliver, self._slowest = world, deliver, slowest_ms
        self._last = 0
        self._life = 0
        self.on_it = 0

    def send(self, message: Any) -> None:
        life = self._life
        slow = 20 if self._world.random.random() < 0.03 else 1
        self._last = max(self._last, self._world.now + self._world.random.randint(0, self._slowest) * slow)
        self.on_it += 1

        def arrive() -> None:
            if life == self._life:
                self.on_it -= 1
                self._deliver(message)

        self._world.later(self._last - self._world.now, arrive)

    def cut(self) -> None:
        self._life += 1
        self.on_it = 0
