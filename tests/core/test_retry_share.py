"""One pod's share of a retry budget that all pods have in common."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.failures.retry_grants import ShareGrant
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget
from spendmesh_sidecar.core.specs import ClusterShareSpec, RetryCostSpec, RetrySpec
from spendmesh_sidecar.policy import Policy

SPEC = RetrySpec(name="team/shared", scope="Cluster", budget_interval_ms=30_000)
LEASE = 15.0


def grant(share: int = 300, number: int = 1, epoch: int = 1, **other: Any) -> ShareGrant:
    values = {"interval_ms": 30_000, "safe": 100, "expires_in_ms": int(LEASE * 1000), "refresh_in_ms": 5_000}
    return ShareGrant(budget=SPEC.name, epoch=epoch, number=number, share=share, **(values | other))


def policy(retry: RetrySpec, observed: RetrySpec) -> Policy:
    return Policy(cluster="c", namespace="team", price_table="0" * 64, retry=retry, observed_retry=observed)


def budget(share: int = 300, spec: RetrySpec = SPEC) -> SharedRetryBudget:
    """One that holds a share since second 0."""
    made = SharedRetryBudget(spec)
    made.heard(grant(share), 0.0)
    return made


def paid(budget: SharedRetryBudget, now: float, weight: int = 1) -> int:
    """How many retries are paid for, one after the other."""
    return sum(budget.try_withdraw(now, weight) is not None for _ in range(100))


def test_before_the_first_answer_nothing_is_paid() -> None:
    assert paid(SharedRetryBudget(SPEC), 0.0) == 0


def test_retries_of_any_interval_stay_within_the_share() -> None:
    """Used up early, it is there again when a whole interval has passed, and not before."""
    one = SharedRetryBudget(SPEC)
    one.heard(grant(expires_in_ms=100_000), 0.0)
    assert [paid(one, now) for now in (2.9, 10.0, 29.9, 32.8, 36.0)] == [3, 0, 0, 0, 3]


@pytest.mark.parametrize(("weight", "retries"), [(1, 5), (2, 3), (3, 2)])
def test_a_retry_takes_its_weight_as_far_as_it_is_there(weight: int, retries: int) -> None:
    """And needs one whole retry: a share below a failure's weight is not lost."""
    assert paid(budget(550), 0.0, weight) == retries


def test_a_retry_that_was_never_sent_is_refunded() -> None:
    one = budget(100)
    withdrawal = one.try_withdraw(0.0, 3)
    assert withdrawal is not None and one.try_withdraw(0.0) is None
    one.refund(withdrawal)
    assert (paid(one, 0.0), one.retries) == (1, 1)


def test_the_bound_in_money_is_each_pods_own() -> None:
    spec = replace(SPEC, max_retry_cost=RetryCostSpec(amount=100, currency="USD"))
    one = budget(1000, spec)
    assert not isinstance(one.pay(0.0, 1, lambda: (70, "USD")), str)
    assert one.pay(0.0, 1, lambda: (70, "USD")) == "cost"


@pytest.mark.parametrize(("expired", "retries"), [("Safe", 1), ("Deny", 0)])
def test_a_share_that_ran_out_is_worth_what_the_policy_says(expired: Any, retries: int) -> None:
    """Counted from when it was asked for: the answer's way makes no lease longer."""
    one = SharedRetryBudget(replace(SPEC, cluster=ClusterShareSpec(on_lease_expired=expired)))
    one.heard(grant(), 2.0)
    assert one.leased(2.0 + LEASE - 0.001) and not one.leased(2.0 + LEASE)
    assert paid(one, 2.0 + LEASE) == retries


@pytest.mark.parametrize(
    ("late", "why"),
    [
        (grant(900, number=1), "an older number"),
        (grant(900, number=9, epoch=1), "a deposed leader's"),
        (grant(900, number=3, epoch=2, interval_ms=10_000), "another interval than the policy's"),
    ],
)
def test_a_grant_that_came_too_late_changes_nothing(late: ShareGrant, why: str) -> None:
    one = budget()
    assert one.heard(grant(200, number=2, epoch=2), 0.0)
    assert not one.heard(late, 0.0), why
    assert one.limit(0.0) == 200


def test_a_smaller_share_counts_what_was_withdrawn_before() -> None:
    one = budget(300)
    assert paid(one, 0.0) == 3
    one.heard(grant(200, number=2), 5.0)
    assert (paid(one, 5.0), one.balance(5.0)) == (0, -100)


def test_a_report_says_how_things_stand() -> None:
    """Not what has changed: lost or repeated, it does no harm."""
    one = budget(300)
    one.deposit(1.0)
    one.deposit(2.0)
    paid(one, 3.0, weight=2)
    first, second = one.report(4.0), one.report(4.0)
    assert (first.deposits, first.withdrawals, first.has, first.heard) == (2, 300, 300, 1)
    assert (second.deposits, second.withdrawals, second.has, second.heard) == (2, 300, 300, 1)
    assert second.sequence == first.sequence + 1
    later = one.report(60.0)
    assert (later.deposits, later.withdrawals, later.has) == (0, 0, 0)


def test_what_is_wanted_rises_at_once_and_falls_slowly() -> None:
    """Also what was not paid for is wanted."""
    one = budget(0)
    one.report(0.0)
    for _ in range(10):
        one.try_withdraw(1.0, 2)
    assert one.short
    wants = [one.report(now).wants for now in (5.0, 10.0, 15.0, 20.0)]
    assert wants == [12_000, 6_000, 3_000, 1_500]
    assert not one.short


def test_one_that_leaves_has_nothing_and_wants_nothing() -> None:
    one = budget(300)
    paid(one, 0.0)
    last = one.report(0.0, leaving=True)
    assert (last.leaving, last.has, last.wants, last.withdrawals) == (True, 0, 0, 300)


def test_a_scope_that_changes_begins_anew_and_only_shared_budgets_are_asked_about() -> None:
    budgets = RetryBudgets()
    alone = replace(SPEC, scope="Pod")
    assert list(budgets.shared(policy(alone, replace(alone, name="o")))) == []
    before = budgets.of(alone)
    observed = replace(SPEC, name="o", mode="Observe")
    names = [each.spec.name for each in budgets.shared(policy(SPEC, observed))]
    assert names == ["team/shared", "o"]
    assert isinstance(budgets.of(SPEC), SharedRetryBudget) and budgets.of(SPEC) is not before
    edited = replace(SPEC, budget_percent=50)
    assert budgets.of(edited) is budgets.of(replace(edited, attempts=9))
