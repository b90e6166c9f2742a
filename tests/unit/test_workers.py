"""The ledger: what is held, lent and free, and which GPUs."""

from __future__ import annotations

import pytest

from redray.spec import TaskHead, pack, unpack_head
from redray.worker.workers import Attempt, Ledger, Worker, split_started


def worker(ledger: Ledger | None = None, demand: str = "") -> Worker:
    made = Worker("w")
    if ledger is not None:
        ledger.occupy(made, demand)
    return made


class TestLedger:
    def test_occupies_and_vacates(self) -> None:
        ledger = Ledger({"CPU": 2, "memory": 1.5})
        held = worker(ledger, "CPU:1,memory:0.5")
        assert ledger.free_text() == "CPU:1,memory:1"
        ledger.vacate(held)
        assert ledger.free_text() == "CPU:2,memory:1.5"
        ledger.vacate(held)
        assert ledger.free_text() == "CPU:2,memory:1.5"

    def test_fits(self) -> None:
        ledger = Ledger({"CPU": 2})
        assert ledger.fits("-")
        assert ledger.fits("CPU:2")
        assert not ledger.fits("CPU:2.0001")
        assert not ledger.fits("CPU:1,special:1")
        worker(ledger, "CPU:1.5")
        assert not ledger.fits("CPU:1")
        assert ledger.could_ever_fit("CPU:2")
        assert not ledger.could_ever_fit("special:1")

    def test_the_empty_demand_is_held_too(self) -> None:
        ledger = Ledger({"CPU": 1})
        held = worker(ledger, "-")
        assert held.holds == "-"
        ledger.vacate(held)
        assert held.holds == ""

    def test_an_overdraft_is_shown_as_nothing(self) -> None:
        ledger = Ledger({"CPU": 1})
        first = worker(ledger, "CPU:1")
        ledger.block(first)
        worker(ledger, "CPU:1")
        ledger.unblock(first)
        assert ledger.free_text() == "-"
        assert not ledger.fits("CPU:0.1")

    @pytest.mark.parametrize("steps", ["bu", "bbu", "buu", "u", "bv", "buv", "bvu"])
    def test_lent_cpus_come_back_once(self, steps: str) -> None:
        ledger = Ledger({"CPU": 4})
        held = worker(ledger, "CPU:3")
        for step in steps:
            {"b": ledger.block, "u": ledger.unblock, "v": ledger.vacate}[step](held)
        ledger.vacate(held)
        assert ledger.free == ledger.total
        assert not held.blocked

    def test_blocked_before_it_held_anything(self) -> None:
        ledger = Ledger({"CPU": 1})
        idle = worker()
        ledger.block(idle)
        ledger.occupy(idle, "CPU:1")
        ledger.unblock(idle)
        assert ledger.free["CPU"] == 0

    def test_exchanges_its_demand(self) -> None:
        ledger = Ledger({"CPU": 2})
        held = worker(ledger, "CPU:2")
        ledger.block(held)
        ledger.exchange(held, "CPU:1")
        assert (held.holds, ledger.free_text(), held.blocked) == ("CPU:1", "CPU:1", False)


class TestGpus:
    def test_whole(self) -> None:
        ledger = Ledger({"GPU": 3})
        assert worker(ledger, "GPU:2").gpus == [(0, 10_000), (1, 10_000)]
        assert worker(ledger, "GPU:1").gpus == [(2, 10_000)]
        assert not ledger.fits("GPU:0.1")

    def test_a_fraction_goes_where_least_is_left(self) -> None:
        ledger = Ledger({"GPU": 2})
        assert [worker(ledger, demand).gpus[0][0] for demand in ("GPU:0.5", "GPU:0.2", "GPU:0.4", "GPU:0.3")] == [
            0,
            0,
            1,
            0,
        ]

    def test_one_and_a_half(self) -> None:
        ledger = Ledger({"GPU": 2})
        assert worker(ledger, "GPU:1.5").gpus == [(0, 10_000), (1, 5_000)]
        assert ledger.claimable_text() == "GPU:0.5"

    def test_pieces_are_not_a_whole(self) -> None:
        ledger = Ledger({"GPU": 2})
        small = [worker(ledger, "GPU:0.6") for _ in range(2)]
        assert small[0].gpus != small[1].gpus
        assert ledger.free_text() == "GPU:0.8"
        assert ledger.claimable_text() == "GPU:0.4"
        assert not ledger.fits("GPU:0.8")
        ledger.vacate(small[0])
        assert ledger.fits("GPU:1")

    def test_the_same_ones_after_an_exchange(self) -> None:
        ledger = Ledger({"CPU": 1, "GPU": 2})
        first, second = worker(ledger, "GPU:1"), worker(ledger, "CPU:1,GPU:1")
        ledger.vacate(first)
        ledger.exchange(second, "GPU:1")
        assert second.gpus == [(1, 10_000)]
        ledger.exchange(second, "GPU:2")
        assert second.gpus == [(0, 10_000), (1, 10_000)]
        ledger.vacate(second)
        assert ledger.claimable_text() == "CPU:1,GPU:2"


class TestSplitStarted:
    def sent(self) -> Worker:
        made = worker()
        for serial, name in enumerate("abc", 4):
            spec = pack(TaskHead(name, 0, "j", "f", "CPU:1", 1, 0, [], [], 0, 0, "", "f"), b"")
            made.sent[name] = Attempt(spec, unpack_head(spec), 2, {})
            made.sent[name].serial = serial
        return made

    @pytest.mark.parametrize(
        ("mark", "started"), [(0, ""), (3, ""), (4, "a"), (5, "ab"), (6, "abc"), (7, "abc")]
    )  # 7: a run that was taken back, and came after these
    def test_up_to_the_mark(self, mark: int, started: str) -> None:
        began, unstarted = split_started(self.sent(), mark)
        assert "".join(attempt.task for attempt in began) == started
        assert [attempt.task for attempt in began + unstarted] == list("abc")
