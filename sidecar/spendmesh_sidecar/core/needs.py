"""What the enforced limits have to know before an attempt: a price, a bound of its output, a bound of its input."""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.ledger.charges import Subject, counts
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec


class Needs(Struct, frozen=True, gc=False):
    """Of the enforced limits that count one attempt."""

    currencies: frozenset[str]
    """Of limits in Cost: the price must be in each of them. Empty: no price is needed."""
    money: bool
    """Some limit in Cost is charged: what a call can cost has to be bounded."""
    output: bool
    """Some limit needs a bound of the output."""
    tokens: bool
    """Some limit counts tokens: what a request brings in has to be bounded."""
    any: bool
    listed: bool = False
    """A budget of the organisation counts its cost, in whichever mode: the built-in price matters beside the own."""


def needs_of(budgets: tuple[BudgetSpec, ...], subject: Subject, currency: str) -> Needs:
    """The needs of all enforced limits that count the subject, whose price is in `currency` (empty: it has none)."""
    currencies: set[str] = set()
    money = output = tokens = some = False
    theirs = _of_the_organisation(budgets)
    listed = bool(theirs) and any(counts(limit, subject) for limit in theirs)
    for budget in budgets:
        if budget.mode != "Enforce":
            continue
        for limit in budget.limits:
            if not counts(limit, subject):
                continue
            some = True
            if limit.unit == "Cost":
                if budget.unpriced_models == "Deny":
                    currencies.add(limit.currency)
                elif limit.currency != currency:
                    continue
                money = True
            output = output or limit.unit in ("Cost", "OutputTokens", "TotalTokens")
            tokens = tokens or limit.unit.endswith("Tokens")
    return Needs(frozenset(currencies), money, output, tokens, some, listed)


@once
def _of_the_organisation(budgets: tuple[BudgetSpec, ...]) -> tuple[LimitSpec, ...]:
    """Limits in money of the organisation's budgets."""
    return tuple(limit for budget in budgets if budget.organisation for limit in budget.limits if limit.unit == "Cost")
