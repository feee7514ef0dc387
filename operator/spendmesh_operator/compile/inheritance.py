"""Budgets of the organisation beside those of a namespace: all apply, save Defaults that a namespace's own replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from spendmesh_operator.compile.attachment import Level, Placed
from spendmesh_operator.compile.model import CompileSettings, Finding
from spendmesh_operator.index import ObjectKey
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec

Meant = tuple[Placed, BudgetSpec]
"""A budget and what it means now."""


@dataclass
class Inherited:
    """The budgets of one class, and what there is to say about those that are not among them."""

    budgets: list[BudgetSpec] = field(default_factory=list)
    displaced: dict[ObjectKey, ObjectKey] = field(default_factory=dict)
    """Defaults of which no limit is left, and one budget that took their place."""
    notes: list[tuple[ObjectKey, Finding]] = field(default_factory=list)


def inherit(budgets: Sequence[Meant]) -> Inherited:
    """
    Which budgets, and which of their limits, apply where all of `budgets` match.

    A Default's limit gives way to a limit of the namespace's own that counts in the same unit (and currency) all that
    it would count. One that only observes never takes the place of one that is enforced.
    """
    found = Inherited()
    for placed, budget in budgets:
        if not placed.is_default:
            found.budgets.append(budget)
            continue
        rivals = [
            (own, spec)
            for own, spec in budgets
            if own.level > Level.ORGANISATION and (placed.observes or not own.observes)
        ]
        successors = {limit.name: _successor(limit, rivals) for limit in budget.limits}
        kept = tuple(limit for limit in budget.limits if successors[limit.name] is None)
        replaced = [(name, own) for name, own in successors.items() if own is not None]
        if kept:
            found.budgets.append(msgspec.structs.replace(budget, limits=kept))
            found.notes += [(placed.key, _replaced(name)) for name, _ in replaced]
        else:
            found.displaced[placed.key] = replaced[0][1].key
    return found


def _successor(limit: LimitSpec, rivals: Sequence[Meant]) -> Placed | None:
    return next((own for own, spec in rivals if any(_stands_for(other, limit) for other in spec.limits)), None)


def _stands_for(other: LimitSpec, limit: LimitSpec) -> bool:
    same_unit = (other.unit, other.currency) == (limit.unit, limit.currency)
    return same_unit and other.models in ((), limit.models) and not other.providers


def _replaced(name: str) -> Finding:
    return Finding(
        "Effective",
        "True",
        "Effective",
        f"spec.limits[{name}]: on some workloads a budget of their own namespace replaces this limit",
    )


def unseen_findings(settings: CompileSettings) -> Iterator[Finding]:
    """What an operator of one namespace has to say about an object that is meant for others."""
    if settings.watched_namespace:
        yield Finding(
            "ResolvedRefs",
            "False",
            "NamespacesNotWatched",
            f"spec.namespaceSelector: this operator sees namespace {settings.watched_namespace} only, so it applies to "
            "no pod of another one: install the chart with scope: Cluster, or apply a budget in each namespace",
        )
