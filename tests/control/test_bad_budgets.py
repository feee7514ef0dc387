"""Budgets that cannot be meant so: each is told by name, with what to do, and loosens nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from compile_samples import NAMESPACE, budget, compiled, condition, message, pod, policy_of, provider, routing
from ledger_desk import Desk, holder
from ledger_samples import budget as budget_spec, limits_of, report, want
from spendmesh_operator.compile import CompileSettings, compile_index
from spendmesh_operator.index import Index
from spendmesh_operator.ledger.books.views import views_of
from spendmesh_operator.prices import load_prices
from spendmesh_operator.status import limit_views
from spendmesh_operator.status.budget import within_budget

MONTH = {"type": "Calendar", "period": "Month"}


def limited(**changes: Any) -> dict[str, Any]:
    one = {"name": "monthly", "currency": "USD", "amount": "5.00", "window": MONTH, **changes}
    return {"limits": [{field: value for field, value in one.items() if value is not None}]}


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        (limited(amount=0), "spec.limits[0].amount", "more than 0"),
        (limited(amount="1000000000.01"), "spec.limits[0].amount", "at most 1000000000"),
        (limited(unit="Requests", currency=None, amount="1.5"), "spec.limits[0].amount", "whole number"),
        (limited(unit="Requests", currency=None, amount=10**16), "spec.limits[0].amount", "at most 1000000000000000"),
        (limited(currency="eur"), "spec.limits[0].currency", "ISO 4217 code such as USD or EUR"),
        (limited(window={**MONTH, "timeZone": "Europe/Atlantis"}), "spec.limits[0].window.timeZone", "Europe/Berlin"),
        (limited(window={**MONTH, "timeZone": "+01:00"}), "spec.limits[0].window.timeZone", "know no summer time"),
        (limited(window={**MONTH, "anchorDay": 32}), "spec.limits[0].window.anchorDay", "less than or equal to 31"),
        (limited(window={"type": "Rolling", "duration": "5m"}), "spec.limits[0].window.duration", "from 1h to 744h"),
        (limited(models=["gpt-?"]), "spec.limits[0].models[0]", "the only wildcard, such as gpt-*"),
        ({**limited(), "namespaceSelector": {}}, "spec.namespaceSelector", "take namespaceSelector out"),
        ({**limited(), "inheritance": "Default"}, "spec.inheritance", "add namespaceSelector ({} for all)"),
    ],
)
def test_what_is_wrong_is_named_with_the_fix_and_refuses_until_it_is_corrected(
    spec: dict[str, Any], field: str, said: str
) -> None:
    """In the condition that `kubectl describe` shows, and in what `check` prints."""
    raw = budget()
    result = compiled(pod(), {**raw, "spec": spec})
    assert condition(result, "ModelBudget", "team", "Accepted") == ("False", "Invalid")
    told = message(result, "ModelBudget", "team", "Accepted")
    assert f"{field}: " in told
    assert said in told
    assert "refused until this is corrected" in told
    assert [limit.amount for each in policy_of(result).budgets for limit in each.limits] == [0]


def test_a_bad_edit_leaves_the_last_valid_meaning_in_force() -> None:
    """What it last validly meant, with its generation."""
    index = Index()
    for raw in (pod(), budget(generation=1, amount="7.00"), {**budget(generation=2), "spec": limited(amount=0)}):
        index.add(raw)
    result = compile_index(index, CompileSettings(cluster="test"), load_prices())
    assert policy_of(result).budgets[0].limits[0].amount == 7_000_000_000
    assert "Generation 1 stays in force" in message(result, "ModelBudget", "team", "Accepted")


def test_a_currency_in_which_nothing_is_priced_is_told_with_both_ways_out() -> None:
    """It is valid, and yet every call would be refused."""
    result = compiled(pod(), provider(), routing(), {**budget(), "spec": limited(currency="CHF")})
    assert condition(result, "ModelBudget", "team", "Accepted") == ("True", "Accepted")
    assert condition(result, "ModelBudget", "team", "Priced") == ("False", "CurrencyMismatch")
    told = message(result, "ModelBudget", "team", "Priced")
    assert "spec.limits[monthly].currency: 'CHF'" in told
    assert "add prices in CHF to the ModelProvider, or a limit in USD" in told


def test_a_limit_lowered_below_what_is_spent_is_overdrawn_and_says_how_to_go_on() -> None:
    """Nothing is granted, nothing is given back, and the amount that would help is named."""
    desk = Desk(1000)
    lease = desk.grant(holder(), 800)
    desk.tell(holder(), report(lease.id, 800))
    lowered = budget_spec(500)
    desk.limits = limits_of(lowered)
    desk.books.remember({lowered.name: lowered}, (lowered.name,))
    assert desk.refused(holder("pod-b"), want(1)) == ["exhausted"]
    now = datetime.fromtimestamp(desk.now_ms / 1000, UTC)
    shown = limit_views(lowered, views_of(desk.books.holdings, desk.now_ms), now)
    status, reason, told = within_budget(shown, observed=False, readable=True)
    assert (status, reason) == ("False", "Overdrawn")
    assert "raise spec.limits[hourly].amount above" in told
    assert desk.state.settled == 800


def test_two_budgets_of_one_name_in_two_namespaces_are_two_accounts() -> None:
    """The namespace is part of an account's name: neither spends from the other."""
    other = budget(amount="9.00")
    other["metadata"]["namespace"] = "team-b"
    result = compiled(pod(), pod("cart-1", namespace="team-b"), budget(amount="7.00"), other)
    for name, namespace, amount in (("web-1", NAMESPACE, 7), ("cart-1", "team-b", 9)):
        (found,) = policy_of(result, name).budgets
        assert (found.name, found.limits[0].amount) == (f"{namespace}/team", amount * 10**9)
