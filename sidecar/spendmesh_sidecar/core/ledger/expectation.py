"""
What calls cost as a rule, as a share of the most that they could have cost: learned for each limit and model.

A forecast only: that too little was held does no harm beyond the limit's overshoot, which `exposure` keeps. Until
enough calls have ended, and where they cost what they can, the whole is held.
"""

from __future__ import annotations

from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.charges import Charge, Quantities, Subject, counts
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec

STEPS = 64
"""Shares are told apart to this part of the whole."""
COVERED_PERCENT = 95
"""So many of the calls cost no more than is held for them."""
LEAST_CALLS = 20
"""Of fewer, one in twenty says nothing."""
KEPT_CALLS = 512
"""At so many the older half is forgotten: what a model is used for changes."""
MAX_KEPT = 1_024
"""Names of models come from clients: what is remembered about them must not grow with them."""

_Key = tuple[str, str, str, str]
_Named = tuple[str, str]


class _Shares:
    """How many calls cost which share."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (STEPS + 1)
        self.total = 0

    def add(self, step: int) -> None:
        self.counts[step] += 1
        self.total += 1
        if self.total >= KEPT_CALLS:
            self.counts = [count // 2 for count in self.counts]
            self.total = sum(self.counts)

    def covering(self) -> int:
        """The smallest share that covers enough of them, in steps."""
        if self.total < LEAST_CALLS:
            return STEPS
        seen = 0
        for step, count in enumerate(self.counts):
            seen += count
            if seen * 100 >= self.total * COVERED_PERCENT:
                return step
        return STEPS


class Expectations:
    """Of all limits that reserve by expectation."""

    def __init__(self) -> None:
        self._shares: dict[_Key, _Shares] = {}

    def reduced(
        self, charges: tuple[Charge, ...], budgets: tuple[BudgetSpec, ...], subject: Subject
    ) -> tuple[Charge, ...]:
        """The charges with what is expected of them, where their limit reserves that."""
        if not (limits := expecting(budgets)):
            return charges
        return tuple(self._reduced(charge, limits, subject) for charge in charges)

    def learn(self, budgets: tuple[BudgetSpec, ...], subject: Subject, worst: Quantities, actual: Quantities) -> None:
        """A call that could have cost `worst` came to `actual`."""
        for (budget, name), (spec, limit) in expecting(budgets).items():
            if not counts(limit, subject) or (limit.unit == "Cost" and limit.currency != worst.currency):
                continue
            most = worst.in_unit(limit.unit, dearer=spec.organisation)
            cost = actual.in_unit(limit.unit, dearer=spec.organisation)
            if most > 0:
                self._of((budget, name, subject.provider, subject.model)).add(min(STEPS, -(-cost * STEPS // most)))

    def _reduced(self, charge: Charge, limits: dict[_Named, tuple[BudgetSpec, LimitSpec]], subject: Subject) -> Charge:
        named = charge.account.budget, charge.account.limit
        known = self._shares.get((*named, subject.provider, subject.model)) if named in limits else None
        if known is None or (share := known.covering()) >= STEPS:
            return charge
        return replace(charge, least=-(-charge.amount * share // STEPS))

    def _of(self, key: _Key) -> _Shares:
        known = self._shares.get(key)
        if known is None:
            if len(self._shares) >= MAX_KEPT:
                del self._shares[next(iter(self._shares))]
            known = self._shares[key] = _Shares()
        return known


@once
def expecting(budgets: tuple[BudgetSpec, ...]) -> dict[_Named, tuple[BudgetSpec, LimitSpec]]:
    """Limits that reserve by expectation, by the names of budget and limit."""
    return {
        (budget.name, limit.name): (budget, limit)
        for budget in budgets
        for limit in budget.limits
        if limit.reservation == "Expected"
    }
