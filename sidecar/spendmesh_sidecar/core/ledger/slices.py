"""Limits whose streams hold their output slice by slice: which, and what the first slice comes to."""

from __future__ import annotations

from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import BudgetSpec

SLICE_TOKENS = 1_024
"""Output, of each choice, that is held before anything is seen of it, and with each extension: most answers are
shorter."""


def sliced(charges: tuple[Charge, ...], budgets: tuple[BudgetSpec, ...], first: Quantities) -> tuple[Charge, ...]:
    """The charges with what the first slice may cost, where their limit reserves that."""
    names = slicing(budgets)
    return tuple(
        replace(charge, least=min(charge.amount, first.in_unit(charge.unit, dearer=charge.dearer)))
        if (charge.account.budget, charge.account.limit) in names
        else charge
        for charge in charges
    )


@once
def slicing(budgets: tuple[BudgetSpec, ...]) -> frozenset[tuple[str, str]]:
    """Names of budget and limit of limits that reserve by slices."""
    return frozenset(
        (budget.name, limit.name) for budget in budgets for limit in budget.limits if limit.reservation == "Streaming"
    )
