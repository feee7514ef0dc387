"""The same storms against our coordinator's own books: both sides of the lease protocol, over a period's end."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from exchange_world import UNIX, USD
from spendmesh_operator.ledger.books.accounts import Holder, HolderFenced, LimitInForce
from spendmesh_operator.ledger.books.books import Books
from spendmesh_sidecar.core.ledger.rights import AccountRef, Denial, Lease, LeaseReport, LeaseState, Want
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.protocol import AcquireRequest, ReportRequest
from storm import Storm, Weather
from test_storms import STEPS, sums_hold, tell

SEEDS = range(int(os.environ.get("SPENDMESH_SIM_SEEDS", "4")))
HOUR_END = UNIX - UNIX % 3600 + 3600
AMPLE = 100 * USD


@dataclass
class BooksBank:
    """Our books behind the storm's interface. The holder's pod is the part of its nonce before the slash."""

    budgets: tuple[BudgetSpec, ...]
    began_unix: int
    away: bool = False
    books: Books = field(default_factory=lambda: Books("storm"))
    now_ms: int = 0
    requests: int = 0

    def tell(self, now: float) -> None:
        self.now_ms = int((self.began_unix + now) * 1000)

    def limits(self, account: AccountRef) -> LimitInForce | None:
        for budget in self.budgets:
            for limit in budget.limits:
                if (budget.name, limit.name) == (account.budget, account.limit):
                    return LimitInForce(limit, budget.mode)
        return None

    def acquire(self, nonce: str, wants: tuple[Want, ...]) -> tuple[tuple[Lease, ...], tuple[Denial, ...]]:
        self.requests += 1
        request = AcquireRequest(id=f"{nonce}/{self.requests}", nonce=nonce, wants=wants)
        try:
            reply = self.books.acquire(holder(nonce), request, self.limits, self.now_ms)
        except HolderFenced as fenced:
            raise AssertionError(f"{nonce} was fenced: {self.books.take_alarms()}") from fenced
        return reply.leases, reply.denials

    def report(self, nonce: str, reports: tuple[LeaseReport, ...]) -> tuple[LeaseState, ...]:
        request = ReportRequest(nonce=nonce, reports=reports)
        return self.books.report(holder(nonce), request, self.limits, self.now_ms).leases

    def charged(self, account: AccountRef) -> int:
        return sum(self.charges(account))

    def charges(self, account: AccountRef) -> list[int]:
        """What counts in each period."""
        return [
            found.charged
            for key, found in sorted(self.books.holdings.accounts.items())
            if (key.budget, key.limit) == (account.budget, account.limit)
        ]


def holder(nonce: str) -> Holder:
    pod = nonce.split("/")[0]
    return Holder(uid=pod, name=f"team-a/{pod}", nonce=nonce)


def hourly(amount: int) -> tuple[BudgetSpec, ...]:
    window = WindowSpec(period="Hour")
    limits = (
        LimitSpec(name="monthly", currency="USD", amount=amount, window=window, thresholds=STEPS),
        LimitSpec(name="calls", unit="Requests", amount=10**6, window=window),
    )
    watched = LimitSpec(name="watched", currency="USD", amount=USD // 10, window=window)
    return (
        BudgetSpec(name="team-a/team", limits=limits),
        BudgetSpec(name="team-a/watch", mode="Observe", limits=(watched,)),
    )


def play(seed: int, amount: int, *, kills: int = 0, boundary_after: float = 10_000.0) -> tuple[Storm, BooksBank]:
    """Run a storm; the hour ends `boundary_after` seconds into it."""
    budgets = hourly(amount)
    bank = BooksBank(budgets, began_unix=int(HOUR_END - boundary_after))
    storm = Storm(seed, Weather(budgets, kills=kills), bank).run()
    assert bank.books.take_alarms() == [], tell(storm)
    return storm, bank


@pytest.mark.parametrize("seed", SEEDS)
def test_books_and_sidecars_agree_to_the_nano_unit(seed: int) -> None:
    storm, _ = play(seed, AMPLE, boundary_after=3_000)
    sums_hold(storm, AMPLE)
    assert storm.settled_nanos == storm.ledger_nanos, tell(storm)
    assert storm.happened["budget_unverifiable"] * 50 <= storm.weather.calls, tell(storm)


@pytest.mark.parametrize("seed", SEEDS)
def test_our_books_let_an_exhausted_limit_be_spent_to_95_percent(seed: int) -> None:
    storm, _ = play(seed, USD, boundary_after=3_000)
    sums_hold(storm, USD)
    assert storm.ledger_nanos * 100 >= 95 * USD, f"{storm.ledger_nanos} of {USD}; {tell(storm)}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_periods_end_in_the_middle_keeps_each_period_within_its_limit(seed: int) -> None:
    storm, bank = play(seed, USD, boundary_after=150)
    charges = bank.charges(AccountRef(budget="team-a/team", limit="monthly"))
    assert len(charges) == 2, tell(storm)
    assert all(charged <= USD for charged in charges), tell(storm)
    assert sum(charges) == storm.settled_nanos >= storm.provider.invoice_nanos, tell(storm)
    assert all(sidecar.ledger.settled_up for sidecar in storm.sidecars), tell(storm)
    assert min(charges) * 100 >= 95 * USD, f"{charges}; {tell(storm)}"


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_sidecars_stay_charged_in_our_books(seed: int) -> None:
    storm, _ = play(seed, AMPLE, kills=12, boundary_after=3_000)
    sums_hold(storm, AMPLE)
    assert storm.settled_nanos < storm.ledger_nanos and storm.happened["killed in flight"] > 0, tell(storm)
