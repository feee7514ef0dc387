"""What the sidecar's write-ahead log adds to an attempt that is reserved on two limits and settled. No network."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from findings import Findings, at, table
from spendmesh_sidecar.clock import boot_id
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.recovery import Durability, Here, records_of
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Lease
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.state.ledger_log import LedgerLog

WINDOW = WindowSpec(period="Month")
LIMITS = tuple(LimitSpec(name=name, currency="USD", amount=10**15, window=WINDOW) for name in ("team", "organisation"))
BUDGETS = (BudgetSpec(name="team-a/team", limits=LIMITS),)
CHARGES = tuple(Charge(AccountRef(budget="team-a/team", limit=limit.name), "Cost", 1_000) for limit in LIMITS)
COST = Quantities(500, "USD")


def fund(ledger: Ledger) -> None:
    """Rights that never run out."""
    ledger.set_budgets(BUDGETS, 0.0)
    state = AccountState(amount=10**15, settled=0, charged=0, resets_in_ms=10**9)
    for charge in CHARGES:
        name = charge.account.limit
        lease = Lease(
            id=f"c1-{name}",
            nonce=ledger.nonce,
            account=charge.account,
            unit="Cost",
            currency="USD",
            granted=10**15,
            ends_in_ms=10**9,
            state=state,
        )
        ledger.merge(lease, 0.0)


async def logged(folder: Path, durability: Durability) -> tuple[Ledger, LedgerLog]:
    """A ledger with its log in a folder."""
    log = LedgerLog(folder, Here("bench", boot_id(), durability, time.monotonic(), time.time()))
    await log.lock()
    ledger = Ledger("bench", journal=log)
    log.start(lambda: (ledger.nonce, records_of(ledger)))
    fund(ledger)
    return ledger, log


async def log_costs(folder: Path, attempts: int, rounds: int) -> Findings:
    """So many attempts one after the other, and so many rounds of several at once that wait for the folder's disk."""
    plain, written = await _process(folder, attempts)
    rows: list[tuple[object, ...]] = [
        ("none", 1, f"{plain:.1f} µs", "-", "-"),
        ("Process", 1, f"{written:.1f} µs", "-", "-"),
    ]
    for at_once in (1, 16, 64):
        waits, syncs = await _node(folder, at_once, rounds)
        p50, p99 = f"{at(waits, 0.5) * 1e3:.2f} ms", f"{at(waits, 0.99) * 1e3:.2f} ms"
        rows.append(("Node", at_once, p50, p99, f"{len(waits) / syncs:.0f}"))
    return Findings("log", table(("durability", "attempts at once", "median", "p99", "attempts a sync"), rows))


async def _process(folder: Path, attempts: int) -> tuple[float, float]:
    """µs of an attempt without a log and with one write for each; the best of several turns of each."""
    plain, written = [], []
    for _ in range(5):
        ledger = Ledger("bench")
        fund(ledger)
        plain.append(_microseconds(ledger, attempts))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            ledger, log = await logged(Path(place), "Process")
            written.append(_microseconds(ledger, attempts))
            log.close(settled=True)
    return min(plain), min(written)


def _microseconds(ledger: Ledger, attempts: int) -> float:
    names = [f"{number:032x}/attempt-1" for number in range(attempts)]
    began = time.perf_counter()
    for name in names:
        ledger.reserve(CHARGES, name, 0.0)
        ledger.settle(name, COST, 0.0)
    return (time.perf_counter() - began) / attempts * 1e6


async def _node(folder: Path, at_once: int, rounds: int) -> tuple[list[float], int]:
    """Seconds that attempts wait for the disk, in order, and how often it was waited for."""
    waits: list[float] = []

    async def attempt(name: str) -> None:
        ledger.reserve(CHARGES, name, 0.0)
        began = time.perf_counter()
        await log.durable()
        waits.append(time.perf_counter() - began)
        ledger.settle(name, COST, 0.0)

    with tempfile.TemporaryDirectory(dir=folder) as place:
        ledger, log = await logged(Path(place), "Node")
        for turn in range(rounds):
            await asyncio.gather(*(attempt(f"{turn}/{number}/attempt-1") for number in range(at_once)))
        syncs = log.syncs
        log.close(settled=True)
    return sorted(waits), syncs
