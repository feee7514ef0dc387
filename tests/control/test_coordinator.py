"""The single writer: durable before revealed, nothing given back by a crash, as few writes as there is news."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from coordinator_samples import (
    OTHER,
    POD,
    GatedStore,
    charged,
    coordinator,
    granted,
    serving,
    virtually,
)
from ledger_samples import BUDGET, ManualClock, acquire, budget, report, want
from spendmesh_operator.ledger.coordinator.coordinator import CoordinatorSettings
from spendmesh_operator.ledger.stores.base import MemoryStore
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore
from spendmesh_sidecar.protocol import ReportRequest


def test_a_grant_is_revealed_only_when_it_is_durable() -> None:
    """I3: a sidecar never spends what a crash could forget. Row 1."""

    async def scenario() -> tuple[bool, int]:
        store = GatedStore()
        async with serving(store) as at:
            store.gate.clear()
            store.reached.clear()
            waiting = asyncio.create_task(at.acquire(POD, acquire("r", "n", want(10))))
            await store.reached.wait()
            early = waiting.done()
            store.gate.set()
            return early, granted(await waiting)

    assert asyncio.run(scenario()) == (False, 10)


def test_killing_and_restarting_on_a_file_gives_nothing_back(tmp_path: Path) -> None:
    """Rows 2 and 3: rights stay charged over a restart, and their holder can still settle them."""

    async def scenario() -> tuple[int, int, int, int]:
        first = SQLiteStore(tmp_path / "ledger.sqlite3")
        at = coordinator(first, 1)
        await at.start()
        (lease,) = (await at.acquire(POD, acquire("r", "n", want(600)))).leases
        # No stop(): the process is gone in the middle.
        second = SQLiteStore(tmp_path / "ledger.sqlite3")
        async with serving(second, 2) as again:
            after_crash = charged(again)
            same = await again.acquire(POD, acquire("r", "n", want(600)))
            denied = await again.acquire(OTHER, acquire("o", "m", want(500)))
            await again.report(POD, ReportRequest(nonce="n", reports=(report(lease.id, 250, closed=1),)))
            settled = charged(again)
        await at.stop()
        await first.close()
        await second.close()
        return after_crash, granted(same), len(denied.denials), settled

    assert asyncio.run(scenario()) == (600, 600, 1, 250)


def test_a_process_killed_in_the_middle_has_revealed_nothing_that_its_books_do_not_hold(tmp_path: Path) -> None:
    """Kill -9 while five pods are granted rights; what any of them was told is charged afterwards."""
    path = tmp_path / "ledger.sqlite3"
    command = [sys.executable, str(Path(__file__).with_name("ledger_victim.py")), str(path)]
    told: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            pod, total = line.split()
            told[pod] = int(total)
            if sum(told.values()) == 200:
                victim.kill()

    async def charged_afterwards() -> int:
        store = SQLiteStore(path)
        async with serving(store, 2, amount=10**12) as again:
            found = charged(again)
        await store.close()
        return found

    assert len(told) == 5
    assert asyncio.run(charged_afterwards()) >= sum(told.values()) >= 200


def test_an_idle_store_is_written_at_once_and_a_busy_one_once_per_interval() -> None:
    """Writes do not grow with the number of sidecars."""

    async def scenario() -> tuple[float, int, float]:
        store = MemoryStore()
        loop = asyncio.get_running_loop()
        settings = CoordinatorSettings(commit_interval_seconds=1.0, sweep_seconds=3600.0)
        async with serving(store, settings=settings, amount=10**9) as at:
            await asyncio.sleep(2)
            began, before = loop.time(), store.writes
            await at.acquire(POD, acquire("first", "n", want(1)))
            alone = loop.time() - began
            await asyncio.gather(*(at.acquire(POD, acquire(f"r{n}", "n", want(1))) for n in range(100)))
            return alone, store.writes - before, loop.time() - began

    alone, writes, together = virtually(scenario())

    assert alone < 0.01
    assert (writes, round(together, 2)) == (2, 1.0)


def test_a_heartbeat_without_news_writes_nothing() -> None:
    """Two thousand idle sidecars cost the API server nothing."""

    async def scenario() -> int:
        store = MemoryStore()
        async with serving(store) as at:
            (lease,) = (await at.acquire(POD, acquire("r", "n", want(10)))).leases
            news = report(lease.id, 5)
            await at.report(POD, ReportRequest(nonce="n", reports=(news,)))
            before = store.writes
            for _ in range(5):
                await at.report(POD, ReportRequest(nonce="n", reports=(news,)))
                await at.report(POD, ReportRequest(nonce="n", reports=()))
                await at.sweep()
            return store.writes - before

    assert asyncio.run(scenario()) == 0


def test_a_silent_holder_is_quarantined_and_comes_back_with_its_next_report() -> None:
    """Only silence for longer than the settings say, and never with a refund."""

    async def scenario() -> list[tuple[int, int]]:
        clock = ManualClock()
        seen = []
        async with serving(MemoryStore(), clock=clock) as at:
            (lease,) = (await at.acquire(POD, acquire("r", "n", want(100)))).leases
            for seconds in (59, 2):
                clock.advance(seconds)
                await at.sweep()
                seen.append((at.views()[0].quarantined, charged(at)))
            await at.report(POD, ReportRequest(nonce="n", reports=(report(lease.id, 5),)))
            seen.append((at.views()[0].quarantined, charged(at)))
        return seen

    assert asyncio.run(scenario()) == [(0, 100), (100, 100), (0, 100)]


def test_after_a_restart_holders_have_time_to_report_before_they_count_as_silent() -> None:
    """Learning: a new leader has heard nobody yet."""

    async def scenario() -> int:
        clock = ManualClock()
        store = MemoryStore()
        async with serving(store, 1, clock=clock) as at:
            await at.acquire(POD, acquire("r", "n", want(100)))
        clock.advance(3000)
        async with serving(store, 2, clock=clock) as again:
            clock.advance(30)
            await again.sweep()
            return again.views()[0].quarantined if again.views() else -1

    assert asyncio.run(scenario()) == 0


def test_a_clock_that_jumps_ahead_before_the_first_sweep_drops_nothing() -> None:
    """New books believe the time at which they begin, not a period that the wrong clock opened. Row 10."""

    async def scenario() -> tuple[int, int]:
        clock = ManualClock()
        async with serving(MemoryStore(), clock=clock) as at:
            await at.acquire(POD, acquire("r", "n", want(100)))
            await at.pods_are(())
            clock.unix_seconds += 6 * 3600
            await at.acquire(OTHER, acquire("o", "m", want(100)))
            await at.sweep()
            clock.unix_seconds -= 6 * 3600
            return charged(at), len(at.books.holdings.accounts)

    assert asyncio.run(scenario()) == (100, 2)


def test_a_deleted_pods_rights_are_quarantined() -> None:
    """As soon as the informer says so."""

    async def scenario() -> int:
        async with serving(MemoryStore()) as at:
            await at.acquire(POD, acquire("r", "n", want(100)))
            await at.acquire(OTHER, acquire("r2", "m", want(50)))
            await at.pods_are({OTHER.uid})
            return at.views()[0].quarantined

    assert asyncio.run(scenario()) == 100


def test_pods_that_vanished_while_nobody_led_are_gone_and_leave_nothing_behind() -> None:
    """A record for each pod that ever was would grow the books to what an API server no longer takes."""

    async def scenario() -> tuple[int, int]:
        store, clock = MemoryStore(), ManualClock()
        async with serving(store, 1, clock=clock) as at:
            await at.acquire(POD, acquire("r", "n", want(100)))
        async with serving(store, 2, clock=clock) as again:
            await again.pods_are(())
            quarantined = again.views()[0].quarantined
            clock.advance(7200)
            await again.sweep()
            return quarantined, len(again.books.pods.records)

    assert asyncio.run(scenario()) == (100, 0)


def test_a_budget_is_remembered_over_a_restart() -> None:
    """Contract §1: what it last validly meant is kept with the books."""

    async def scenario() -> object:
        store = MemoryStore()
        async with serving(store, 1) as at:
            await at.remember({BUDGET: budget(700)}, {BUDGET})
        async with serving(store, 2) as again:
            return again.remembered()

    assert asyncio.run(scenario()) == {BUDGET: budget(700)}
