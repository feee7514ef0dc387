"""Seeded storms over whole exchanges: what must hold whatever fails. A failing seed is in the test's name."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from exchange_world import USD, budget, limit
from spendmesh_sidecar.core.specs import BudgetSpec, ThresholdSpec
from storm import RETRY, Storm, Weather

SEEDS = range(int(os.environ.get("SPENDMESH_SIM_SEEDS", "6")))
"""`SPENDMESH_SIM_SEEDS=200 pytest tests/simulation` for a longer run."""
WATCHED = budget(limit("watched", USD // 10), name="team-a/watch", mode="Observe")
AMPLE = 100 * USD
STEPS = (ThresholdSpec(percent=80, notify=True), ThresholdSpec(percent=90, max_tier="economy"))


def budgets(amount: int) -> tuple[BudgetSpec, ...]:
    return (budget(limit("monthly", amount, steps=STEPS), limit("calls", 10**6, unit="Requests")), WATCHED)


def tell(storm: Storm) -> str:
    """What happened, for a failure's message and `-s`."""
    return f"seed {storm.seed}: faults {dict(storm.provider.faults)}, events {dict(storm.happened)}"


def sums_hold(storm: Storm, amount: int) -> None:
    """invoice <= ledger <= limit, nothing is held, and retries are within budget."""
    told = tell(storm)
    assert storm.provider.invoice_nanos <= storm.ledger_nanos <= amount, told
    for sidecar in storm.sidecars:
        assert sidecar.ledger.open_reservations == 0 and sidecar.ledger.settled_up, told
    for sidecar in storm.all_sidecars:
        spent = storm.retry_budget(sidecar)
        floors = RETRY.min_retry_count * (int((storm.now - sidecar.began) * 1000 // RETRY.min_retry_interval_ms) + 1)
        assert spent.retries * 100 <= RETRY.budget_percent * spent.deposits + 100 * floors, told


def at_least(counted: Counter[str], least: dict[str, int], told: str) -> None:
    missing = {name: counted[name] for name, count in least.items() if counted[name] < count}
    assert not missing, f"too rare to prove anything: {missing}; {told}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_with_billed_failures_is_paid_for_and_recovered_from(seed: int) -> None:
    storm = Storm(seed, Weather(budgets(AMPLE))).run()
    told = tell(storm)
    print(told)
    sums_hold(storm, AMPLE)
    assert storm.settled_nanos == storm.ledger_nanos, "settlements and books differ: " + told
    assert storm.retries > 0 and storm.recovered > 0, told
    assert storm.provider.billed_failures > 0, told
    assert storm.happened["budget_unverifiable"] * 50 <= storm.weather.calls, "calls stop with the coordinator: " + told
    faults = {"429": 20, "500": 20, "connect": 10, "cut": 10, "no usage": 10, "abandoned": 5, "slow": 5, "timeout": 3}
    at_least(storm.provider.faults, {**faults, "client gone": 10, "usage then cut": 3, "understated": 5}, told)
    events = {"policy swap": 3, "lease lost": 1, "report lost": 5, "acknowledgement lost": 5}
    at_least(storm.happened, {**events, "reason failover": 5, "reason rule": 50, "answered": 1_000}, told)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exhausted_limit_is_spent_to_at_least_95_percent_and_never_passed(seed: int) -> None:
    amount = USD
    storm = Storm(seed, Weather(budgets(amount))).run()
    told = tell(storm)
    print(told, storm.ledger_nanos / amount)
    sums_hold(storm, amount)
    assert storm.settled_nanos == storm.ledger_nanos, told
    assert storm.ledger_nanos * 100 >= 95 * amount, f"{storm.ledger_nanos * 100 // amount} % spent; {told}"
    at_least(storm.happened, {"budget_exceeded": 50, "reason budget": 5, "answered": 100, "acquire": 100}, told)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_sidecars_give_nothing_back(seed: int) -> None:
    storm = Storm(seed, Weather(budgets(AMPLE), kills=12)).run()
    told = tell(storm)
    sums_hold(storm, AMPLE)
    assert storm.settled_nanos < storm.ledger_nanos, "a killed holder's rights stay charged: " + told
    at_least(storm.happened, {"kill": 12, "killed in flight": 5}, told)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (Storm(3, Weather(budgets(AMPLE), calls=300)).run() for _ in range(2))
    assert (first.ledger_nanos, first.happened, first.now) == (second.ledger_nanos, second.happened, second.now)
