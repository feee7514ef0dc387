"""Python memory of the ledger: what a sidecar adds to a coordinator's books, and what it keeps itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from findings import Findings, table
from spendmesh_operator.ledger.books.accounts import Holder, LimitInForce
from spendmesh_operator.ledger.books.books import Books
from spendmesh_sidecar.core.ledger.charges import Charge
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.protocol import AcquireRequest, Want

NOW_MS = 1_790_000_000_000
RIGHTS = 10**9


def memory(accounts: tuple[int, ...], sidecars: int) -> Findings:
    """For so many accounts, each with one lease; an average over so many sidecars."""
    tracemalloc.start()
    try:
        rows = []
        for number in accounts:
            books, own = _per_sidecar(number, sidecars)
            rows.append((number, f"{own:.1f}", f"{own / number:.2f}", f"{books:.1f}", f"{books / number:.2f}"))
        call = _call(sidecars)
    finally:
        tracemalloc.stop()
    head = ("accounts, one lease each", "in a sidecar, KiB", "… an account", "in the books, KiB", "… an account")
    return Findings("memory", f"{table(head, rows)}\n\nA call under way on three accounts: {call:.2f} KiB.")


def _budget(accounts: int) -> BudgetSpec:
    window = WindowSpec(period="Month")
    limits = tuple(LimitSpec(name=f"l{n}", currency="USD", amount=10**15, window=window) for n in range(accounts))
    return BudgetSpec(name="bench/bench", limits=limits)


def _refs(budget: BudgetSpec) -> list[AccountRef]:
    return [AccountRef(budget=budget.name, limit=limit.name) for limit in budget.limits]


def _supplied(budget: BudgetSpec, books: Books, number: int) -> Ledger:
    """A sidecar's ledger with rights on every account."""
    in_force = {ref: LimitInForce(limit) for ref, limit in zip(_refs(budget), budget.limits, strict=True)}
    ledger = Ledger(f"n{number}", (budget,), 0.0)
    wants = tuple(Want(account=ref, need=RIGHTS, want=RIGHTS) for ref in in_force)
    holder = Holder(f"uid-{number}", f"bench/pod-{number}", ledger.nonce, f"Deployment bench/w{number // 20}")
    reply = books.acquire(holder, AcquireRequest(id="r", nonce=ledger.nonce, wants=wants), in_force.get, NOW_MS)
    for lease in reply.leases:
        ledger.merge(lease, 0.0)
    return ledger


def _per_sidecar(accounts: int, sidecars: int) -> tuple[float, float]:
    """KiB in the books and in the sidecar itself."""
    budget, books = _budget(accounts), Books("bench")
    ledgers: list[Ledger] = []
    both = _kib(lambda: ledgers.extend(_supplied(budget, books, number) for number in range(sidecars))) / sidecars
    own = -_kib(ledgers.clear) / sidecars
    return both - own, own


def _call(calls: int) -> float:
    budget = _budget(3)
    ledger = _supplied(budget, Books("bench"), 0)
    charges = tuple(Charge(account=ref, unit="Cost", amount=1) for ref in _refs(budget))

    def begin() -> None:
        for number in range(calls):
            assert not ledger.reserve(charges, f"r{number}", 0.0)

    return _kib(begin) / calls


def _kib(work: Callable[[], object]) -> float:
    before = tracemalloc.get_traced_memory()[0]
    work()
    return (tracemalloc.get_traced_memory()[0] - before) / 1024
