"""
Sidecars' own ledgers against the books: many race one budget to its end. Row 18 of the fault table.

Both sides are the production classes; only time and the wire (lossless here) are made. The bound is tested from both
sides: nothing is overspent, and at most one worst case for each sidecar is left over.
"""

from __future__ import annotations

from random import Random

import pytest

from ledger_samples import REF, START_MS, acquire, budget, limits_of
from spendmesh_operator.ledger.accounts import Holder
from spendmesh_operator.ledger.books import Books
from spendmesh_sidecar.core.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger import Ledger
from spendmesh_sidecar.protocol import ReportRequest, Want

STEP_SECONDS = 0.25
REPORT_EVERY = 8
PATIENCE_STEPS = 240
"""Refused for a simulated minute: the budget is at its end for this sidecar."""


class RacingSidecar:
    """One pod that spends as fast as it may."""

    def __init__(self, number: int, amount: int, rng: Random) -> None:
        self.holder = Holder(f"uid-{number}", f"team-a/pod-{number}", f"nonce-{number}")
        self.ledger = Ledger(self.holder.nonce, (budget(amount),), now=0.0)
        self.served = 0
        self.refused_steps = 0
        self._rng = rng
        self._requests = 0

    def step(self, books: Books, limits: object, amount: int, worst: int, now: float) -> None:
        """Top up, try one call, and settle it."""
        if wants := self.ledger.wants(now):
            self._acquire(books, limits, wants, now)
        charge = (Charge(account=REF, unit="Cost", amount=worst),)
        name = f"{self.holder.uid}/{self.served}"
        if lacking := self.ledger.reserve(charge, name, now):
            self._acquire(books, limits, self.ledger.wants_for(lacking, now), now)
            if self.ledger.reserve(charge, name, now):
                self.refused_steps += 1
                return
        self.refused_steps = 0
        self.served += 1
        billed = self._rng.randrange(worst // 2, worst + 1)
        self.ledger.settle(name, Quantities(cost_nanos=billed, currency="USD"), now)

    def report(self, books: Books, limits: object, now: float) -> None:
        """Tell the coordinator what was spent; it may ask rights back."""
        request = ReportRequest(nonce=self.holder.nonce, reports=self.ledger.reports(now))
        reply = books.report(self.holder, request, limits, _now_ms(now))  # type: ignore[arg-type]
        self.ledger.acknowledged(reply.leases, now)

    def _acquire(self, books: Books, limits: object, wants: tuple[Want, ...], now: float) -> None:
        self._requests += 1
        request = acquire(f"r{self._requests}", self.holder.nonce, *wants)
        reply = books.acquire(self.holder, request, limits, _now_ms(now))  # type: ignore[arg-type]
        for lease in reply.leases:
            self.ledger.merge(lease, now)
        self.ledger.denied(reply.denials, now)


def _now_ms(now: float) -> int:
    return START_MS + int(now * 1000)


@pytest.mark.parametrize(("sidecars", "requests"), [(1, 20), (2, 40), (10, 150), (50, 600), (200, 2500)])
def test_sidecars_that_race_to_the_end_stop_exactly_and_leave_less_than_one_request_each(
    sidecars: int, requests: int
) -> None:
    """limit - one worst case per sidecar <= spent <= limit, everybody is served, and no alarm is raised."""
    worst = 1_000_000
    amount = worst * requests
    limits = limits_of(budget(amount))
    books = Books("test")
    racers = [RacingSidecar(number, amount, Random(number)) for number in range(sidecars)]

    step = 0
    while any(racer.refused_steps < PATIENCE_STEPS for racer in racers):
        now = step * STEP_SECONDS
        for position, racer in enumerate(racers):
            racer.step(books, limits, amount, worst, now)
            if (step + position) % REPORT_EVERY == 0:
                racer.report(books, limits, now)
        step += 1
    for racer in racers:
        racer.report(books, limits, now)

    (account,) = books.current(_now_ms(now))
    assert account.charged <= amount
    assert account.settled <= amount
    assert account.settled >= amount - sidecars * worst
    assert min(racer.served for racer in racers) > 0
    assert books.take_alarms() == []
