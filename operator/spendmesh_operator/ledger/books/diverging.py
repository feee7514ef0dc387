"""
Where clusters that share the books define one budget differently (contract §4: that stops grants, and is said). Pure.

Two amounts for one account would let the cluster with the larger one spend what the other one's readers believe to be
left. Which of them is meant only a person knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from spendmesh_operator.ledger.books.accounts import LimitInForce
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, Mode
from spendmesh_sidecar.protocol import AccountRef

Elsewhere = Callable[[str, int], Mapping[str, BudgetSpec]]
"""(`namespace/name`, unix milliseconds) -> the budget as other clusters have it now, by their names."""


def _steps(limit: LimitSpec) -> object:
    """Without the tier, which a cluster's own routing names."""
    return [(step.percent, step.notify, step.max_output_tokens) for step in limit.thresholds]


_FIELDS: Final[Mapping[str, Callable[[LimitSpec], Any]]] = {
    "unit": attrgetter("unit"),
    "currency": attrgetter("currency"),
    "window": attrgetter("window"),
    "models": attrgetter("models"),
    "providers": attrgetter("providers"),
    "per": attrgetter("per"),
    "amount": attrgetter("amount"),
    "maxValues": attrgetter("max_values"),
    "thresholds": _steps,
    "onExhausted": attrgetter("on_exhausted"),
    "onUnverifiable": attrgetter("on_unverifiable"),
    "survivalPercent": attrgetter("survival_percent"),
    "allowCap": attrgetter("allow_cap"),
    "reservation": attrgetter("reservation"),
    "overshootPercent": attrgetter("overshoot_percent"),
    "overrides": attrgetter("overrides"),
}
"""As manifests name them: how they are read."""


def differing_field(limit: LimitSpec, mode: Mode, other: BudgetSpec) -> str:
    """The field of `spec` in which another definition differs from a limit as it is in force here; empty: in none."""
    if other.mode != mode:
        return "mode"
    theirs = next((each for each in other.limits if each.name == limit.name), None)
    if theirs is None:
        return f"limits[{limit.name}]"
    field = next((field for field, read in _FIELDS.items() if read(limit) != read(theirs)), "")
    return field and f"limits[{limit.name}].{field}"


def compared(
    limits: Callable[[AccountRef], LimitInForce | None], elsewhere: Elsewhere, now_ms: int
) -> Callable[[AccountRef], LimitInForce | None]:
    """Limits in force, each with what another cluster says of the same one (`LimitInForce.differs`)."""

    def found(ref: AccountRef) -> LimitInForce | None:
        in_force = limits(ref)
        if in_force is not None:
            for cluster, other in sorted(elsewhere(ref.budget, now_ms).items()):
                if field := differing_field(in_force.limit, in_force.mode, other):
                    return replace(in_force, differs=sentence(field, cluster))
        return in_force

    return found


def difference(budget: BudgetSpec, others: Mapping[str, BudgetSpec]) -> str:
    """The first difference between a budget and those of its name in other clusters, as a sentence; empty: none."""
    for cluster, other in sorted(others.items()):
        fields = [differing_field(limit, budget.mode, other) for limit in budget.limits]
        known = {limit.name for limit in budget.limits}
        fields += [f"limits[{limit.name}]" for limit in other.limits if limit.name not in known]
        if found := next(filter(None, fields), ""):
            return sentence(found, cluster)
    return ""


def sentence(field: str, cluster: str) -> str:
    """What is different, and from whom."""
    return f"spec.{field} is not the same in cluster {cluster!r}, which has the same books"
