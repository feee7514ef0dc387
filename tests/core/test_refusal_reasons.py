"""A coordinator is asked for what lacks; the whole call may need more than it was told of."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Denial
from spendmesh_sidecar.core.refusals import budget_refusal
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec

NAME = "team-a/team"
LIMIT = LimitSpec(name="daily", currency="USD", amount=1_000, window=WindowSpec(period="Day"))
BUDGETS = (BudgetSpec(name=NAME, limits=(LIMIT,)),)


def code(need: int, settled: int, reason: str = "in_flight") -> str:
    state = AccountState(amount=1_000, settled=settled, charged=1_000, resets_in_ms=60_000)
    denial = Denial(account=AccountRef(budget=NAME, limit="daily"), reason=reason, state=state)  # type: ignore[arg-type]
    return budget_refusal((denial,), BUDGETS, {f"{NAME}/daily": need}, lambda _, __: None).code


@pytest.mark.parametrize(
    ("need", "settled", "said"),
    [
        (400, 600, "budget_in_flight"),
        (401, 600, "budget_exceeded"),
        (1_000, 0, "budget_in_flight"),
        (1_001, 0, "request_exceeds_budget"),
    ],
)
def test_a_call_that_cannot_fit_when_all_others_settle_is_not_told_to_wait(need: int, settled: int, said: str) -> None:
    assert code(need, settled) == said


def test_a_call_larger_than_the_limit_is_not_told_that_others_used_it_up() -> None:
    assert code(1_001, 900, "exhausted") == "request_exceeds_budget"
    assert code(101, 900, "exhausted") == "budget_exceeded"
