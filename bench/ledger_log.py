"""What the sidecar's write-ahead log adds to an attempt: `python bench/ledger_log.py [FOLDER]`, no network in it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from spendmesh_sidecar.clock import boot_id
from spendmesh_sidecar.core.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger import Ledger
from spendmesh_sidecar.core.recovery import Durability, Here, records_of
from spendmesh_sidecar.core.rights import AccountRef, AccountState, Lease
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.ledger_log import LedgerLog

ATTEMPTS = 30_000
ROUNDS = 50
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


def microseconds(ledger: Ledger) -> float:
    """Of one reservation on two limits and its end."""
    names = [f"{number:032x}/attempt-1" for number in range(ATTEMPTS)]
    began = time.perf_counter()
    for name in names:
        ledger.reserve(CHARGES, name, 0.0)
        ledger.settle(name, COST, 0.0)
    return (time.perf_counter() - began) / ATTEMPTS * 1e6


async def process(folder: Path) -> None:
    """Durability Process: one write for each attempt; the better of several turns of each."""
    plain, written = [], []
    for _ in range(5):
        ledger = Ledger("bench")
        fund(ledger)
        plain.append(microseconds(ledger))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            ledger, log = await logged(Path(place), "Process")
            written.append(microseconds(ledger))
            log.close(settled=True)
    print(f"Process: {min(plain):.1f} µs an attempt without a log, {min(written):.1f} µs with one")


async def node(folder: Path, at_once: int) -> None:
    """Durability Node: how long attempts wait for the disk."""
    waits: list[float] = []

    async def attempt(name: str) -> None:
        ledger.reserve(CHARGES, name, 0.0)
        began = time.perf_counter()
        await log.durable()
        waits.append(time.perf_counter() - began)
        ledger.settle(name, COST, 0.0)

    with tempfile.TemporaryDirectory(dir=folder) as place:
        ledger, log = await logged(Path(place), "Node")
        for turn in range(ROUNDS):
            await asyncio.gather(*(attempt(f"{turn}/{number}/attempt-1") for number in range(at_once)))
        syncs = log.syncs
        log.close(settled=True)
    waits.sort()
    median, p99 = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99))
    print(
        f"Node, {at_once} at once: {median:.2f} ms median, {p99:.2f} ms p99, {len(waits) / syncs:.0f} attempts a sync"
    )


async def main() -> None:
    """All figures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())
    await process(folder)
    for at_once in (1, 16, 64):
        await node(folder, at_once)


if __name__ == "__main__":
    uvloop.run(main())
