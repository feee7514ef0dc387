"""
What one attempt takes from each limit: cost, tokens or calls, in the limit's own unit.

Pure translation from a bound or a bill to amounts; whether they fit is the ledger's decision.
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.globs import matches
from spendmesh_sidecar.core.ledger.partitions import account_ref
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, Unit
from spendmesh_sidecar.core.types import Hints


class Quantities(Struct, frozen=True, gc=False):
    """A bound or a bill of one attempt in every unit that a limit can have."""

    cost_nanos: int = 0
    currency: str = ""
    """Empty: no price, so no limit in Cost can be checked."""
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 1
    listed_nanos: int = 0
    """The cost at the built-in price, where a namespace's own price must not undercut it; else 0."""

    def in_unit(self, unit: Unit, *, dearer: bool = False) -> int:
        """
        The amount in a limit's unit. For Cost the caller has compared the currency.

        `dearer`: a cost is the dearer of the provider's own and the built-in one.
        """
        if unit == "Cost":
            return max(self.cost_nanos, self.listed_nanos) if dearer else self.cost_nanos
        if unit == "InputTokens":
            return self.input_tokens
        if unit == "OutputTokens":
            return self.output_tokens
        if unit == "TotalTokens":
            return self.input_tokens + self.output_tokens
        return self.requests


class Charge(Struct, frozen=True, gc=False):
    """An amount to hold on one account."""

    account: AccountRef
    unit: Unit
    amount: int
    observed: bool = False
    """An Observe budget: recorded, never a reason to refuse."""
    dearer: bool = False
    """A budget of the organisation: settled at the dearer cost too."""
    least: int | None = None
    """What is held of it where the limit's overshoot allows that; None: all of it."""


class Subject(Struct, frozen=True, gc=False):
    """What an attempt is about, as far as a limit may ask: a limit that does not count it takes nothing from it."""

    model: str
    """As sent to the provider."""
    provider: str
    """`namespace/name` of the ModelProvider."""
    hints: Hints = Hints()


def counts(limit: LimitSpec, subject: Subject) -> bool:
    """Whether a limit counts attempts like this one."""
    models, providers = limit.models, limit.providers
    return (not models or any(matches(pattern, subject.model) for pattern in models)) and (
        not providers or any(matches(pattern, subject.provider) for pattern in providers)
    )


class CurrencyMismatch(ValueError):
    """A limit in Cost has another currency than the price, or there is no price: it cannot be checked."""

    def __init__(self, budget: str, limit: LimitSpec, currency: str) -> None:
        super().__init__(f"limit {budget}/{limit.name} is in {limit.currency}, the price in {currency or 'none'}")
        self.budget = budget
        self.limit = limit.name


def charges(budgets: tuple[BudgetSpec, ...], quantities: Quantities, subject: Subject) -> tuple[Charge, ...]:
    """
    One charge for every limit of every budget that counts the subject.

    Raises CurrencyMismatch for an enforced limit whose currency is not the price's; there is no conversion
    (contract §4). An observed one is left out: it cannot be known what it would have said. So is one that lets
    unpriced models pass (`uncounted`).
    """
    found: list[Charge] = []
    for budget in budgets:
        observed = budget.mode == "Observe"
        for limit in budget.limits:
            if not counts(limit, subject):
                continue
            if limit.unit == "Cost" and limit.currency != quantities.currency:
                if observed or budget.unpriced_models == "Allow":
                    continue
                raise CurrencyMismatch(budget.name, limit, quantities.currency)
            account = account_ref(budget.name, limit, subject.hints)
            amount = quantities.in_unit(limit.unit, dearer=budget.organisation)
            found.append(Charge(account, limit.unit, amount, observed, budget.organisation))
    return tuple(found)


def uncounted(budgets: tuple[BudgetSpec, ...], currency: str, subject: Subject) -> tuple[str, ...]:
    """`namespace/name/limit` of enforced limits that let the subject pass uncounted, for its price's `currency`."""
    return tuple([name for name, limit in _lenient(budgets) if limit.currency != currency and counts(limit, subject)])


@once
def _lenient(budgets: tuple[BudgetSpec, ...]) -> tuple[tuple[str, LimitSpec], ...]:
    """Enforced limits in money that let unpriced models pass."""
    return tuple(
        (f"{budget.name}/{limit.name}", limit)
        for budget in budgets
        if budget.mode == "Enforce" and budget.unpriced_models == "Allow"
        for limit in budget.limits
        if limit.unit == "Cost"
    )
