"""
Sidecars' own ledgers against the books: many race one budget to its end. Row 18 of the fault table.

The bound is tested from both sides: nothing is overspent, and at most one worst case for each sidecar is left over.
"""

from __future__ import annotations

from random import Random

import pytest

from ledger_fleet import fleet_of

PATIENCE_SECONDS = 45.0
"""Nobody was served for so long, though idle rights come back within 30 s: the budget is at its end."""


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
    rng = Random(sidecars)
    racers = [fleet.start("Deployment team-a/racers") for _ in range(sidecars)]
    tried_at = dict.fromkeys(racers, 0.0)
    served_at = 0.0

    def race() -> None:
        nonlocal served_at
        for racer in racers:
            if fleet.now >= tried_at[racer]:
                if racer.call(worst, rng.randrange(worst // 2, worst + 1)):
                    served_at = fleet.now
                else:
                    tried_at[racer] = fleet.now + rng.uniform(0.5, 2.0)  # a client that heeds Retry-After

    while fleet.now - served_at < PATIENCE_SECONDS:
        fleet.run(1.0, race)
    for racer in racers:
        racer.report()

    assert fleet.account.charged <= amount
    assert amount - sidecars * worst <= fleet.account.settled <= amount
    assert fleet.account.settled == fleet.truly_spent
    assert min(racer.served for racer in racers) > 0
    assert fleet.false_refusals == []
    assert fleet.books.take_alarms() == []
