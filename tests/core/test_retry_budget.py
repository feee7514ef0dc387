"""Examples of the retry budget; its laws are in tests/properties."""

from __future__ import annotations

import pickle

import pytest

from spendmesh_sidecar.core.failures.retry_budget import RetryBudget
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.specs import RetryCostSpec, RetrySpec


def spec(**changes: object) -> RetrySpec:
    parts = {"name": "team-a/default", "min_retry_count": 0, "budget_percent": 10, "budget_interval_ms": 30_000}
    return RetrySpec(**{**parts, **changes})  # type: ignore[arg-type]


def granted(budget: RetryBudget, now: float, tries: int) -> int:
    return sum(budget.try_withdraw(now) is not None for _ in range(tries))


@pytest.mark.parametrize(("percent", "retries"), [(0, 0), (10, 10), (33, 33), (40, 40), (70, 70), (90, 90), (100, 100)])
def test_percent_is_exact(percent: int, retries: int) -> None:
    """tower turns 40 % into 50 % and 70 % into 100 % by integer division."""
    budget = RetryBudget(spec(budget_percent=percent))
    for _ in range(100):
        budget.deposit(0.0)
    assert granted(budget, 0.0, 200) == retries


def test_first_tries_and_retries_are_forgotten_after_the_interval() -> None:
    budget = RetryBudget(spec())
    for _ in range(100):
        budget.deposit(0.0)
    assert granted(budget, 26.9, 5) == 5
    assert granted(budget, 30.0, 5) == 0
    for _ in range(100):
        budget.deposit(31.0)
    assert granted(budget, 31.0, 20) == 5, "the five retries of 26.9 s still count"
    assert granted(budget, 57.0, 20) == 5, "now they are forgotten, and five of the hundred tries are left"


def test_the_floor_is_a_rate_and_not_a_reserve() -> None:
    budget = RetryBudget(spec(min_retry_count=1, min_retry_interval_ms=10_000))
    assert granted(budget, 1_000.0, 50) == 1
    assert granted(budget, 1_009.9, 50) == 0
    assert granted(budget, 1_011.0, 50) == 1


@pytest.mark.parametrize(("weight", "retries"), [(1, 10), (2, 5), (3, 3)])
def test_a_heavier_retry_takes_more_of_the_share(weight: int, retries: int) -> None:
    budget = RetryBudget(spec())
    for _ in range(100):
        budget.deposit(0.0)
    assert sum(budget.try_withdraw(0.0, weight) is not None for _ in range(50)) == retries


def test_the_floor_pays_for_a_retry_whatever_it_weighs() -> None:
    """A pod with a call a minute may retry its timeout too."""
    budget = RetryBudget(spec(min_retry_count=1))
    assert budget.try_withdraw(0.0, 3) is not None and budget.try_withdraw(0.0, 3) is None


def test_a_refund_can_be_spent_again() -> None:
    budget = RetryBudget(spec(min_retry_count=1))
    first = budget.try_withdraw(0.0)
    assert first is not None and budget.try_withdraw(0.0) is None
    budget.refund(first)
    assert budget.try_withdraw(0.0) is not None


def test_a_refund_gives_back_all_that_a_heavy_retry_took() -> None:
    budget = RetryBudget(spec(budget_percent=100))
    for _ in range(3):
        budget.deposit(0.0)
    first = budget.try_withdraw(0.0, 3)
    assert first is not None and budget.balance(0.0) == 0
    budget.refund(first)
    assert budget.balance(0.0) == 300


def test_the_bound_in_money_is_met_exactly_and_for_its_whole_interval() -> None:
    most = RetryCostSpec(amount=1_000, currency="USD", interval_ms=60_000)
    budget = RetryBudget(spec(min_retry_count=9, max_retry_cost=most))
    assert budget.try_withdraw(0.0, 1, 600) is not None
    assert budget.affordable(0.0, 400, "USD") and not budget.affordable(0.0, 401, "USD")
    assert not budget.affordable(59.9, 401, "USD"), "what was spent a moment less than an interval ago counts"
    assert budget.affordable(66.1, 1_000, "USD"), "and a slot after the interval it does not"


def test_an_edit_of_the_policy_mints_no_retries() -> None:
    budgets = RetryBudgets()
    budget = budgets.of(spec())
    for _ in range(100):
        budget.deposit(0.0)
    assert granted(budget, 0.0, 50) == 10
    edited = budgets.of(spec(budget_percent=12))
    assert granted(edited, 0.0, 50) == 2
    assert budgets.of(spec(name="team-b/other")) is not edited


def test_another_interval_starts_an_empty_window() -> None:
    budgets = RetryBudgets()
    budgets.of(spec()).deposit(0.0)
    assert budgets.of(spec(budget_interval_ms=10_000)).balance(0.0) == 0


def test_first_tries_that_nobody_counts_are_forgotten_too() -> None:
    """A provider that never fails: no retry ever asks for the total, and memory must not grow with time."""
    budget = RetryBudget(spec())
    for second in range(0, 100_000, 3):
        budget.deposit(float(second))
    assert len(pickle.dumps(budget)) < 2_000
    assert budget.balance(100_000.0) > 0
