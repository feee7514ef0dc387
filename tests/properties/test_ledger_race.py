"""
Sidecars' own ledgers against the books: many race one budget to its end. Row 18 of the fault table.

The bound is tested from both sides: nothing is overspent, and at most one worst case for each sidecar is left over.
"""

from __future__ import annotations

from random import Random

import pytest

from ledger_fleet import fleet_of


@pytest.mark.parametrize(("sidecars", "requests"), [(1, 20), (2, 40), (10, 150), (50, 600), (200, 2500), (500, 5000)])
def test_sidecars_that_race_to_the_end_stop_exactly_and_leave_less_than_one_request_each(
    sidecars: int, requests: int
) -> None:
    """
    limit - one worst case per sidecar <= spent <= limit, everybody is served, nobody is refused what is free, and no
    alarm is raised. The sidecars' worst cases sum to at most a tenth of the limit.
    """
    worst = 1_000_000
    amount = worst * requests
    fleet = fleet_of(amount)
    racers = [fleet.start("Deployment team-a/racers") for _ in range(sidecars)]
    fleet.exhaust(racers, worst, Random(sidecars))

    assert fleet.account.charged <= amount
    assert amount - sidecars * worst <= fleet.account.settled <= amount
    assert fleet.account.settled == fleet.truly_spent
    assert min(racer.served for racer in racers) > 0
    assert fleet.false_refusals == []
    assert fleet.books.take_alarms() == []
