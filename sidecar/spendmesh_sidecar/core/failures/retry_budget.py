"""
Retries in proportion to recent first tries, so that a failing provider is not also flooded.

Why a budget and not only a number of attempts: attempts multiply with every layer and every caller, a budget bounds
the extra load as a whole (facts: Finagle, tower, GEP-3388). It never waits and never blocks a first try.
Left out on purpose: which failures deserve a retry (`attempts`), and sharing between pods (`retry_share`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.failures.retry_grants import FULL_RETRY as FULL_RETRY
from spendmesh_sidecar.core.specs import RetrySpec

SLOTS = 10
"""Windows slide in tenths, as tower's, Finagle's and Envoy's budgets do."""


@dataclass(slots=True)
class Window:
    """Counts of the last `slots` slots of `slot_ms`; older ones are forgotten without a timer."""

    slot_ms: int
    slots: int
    _counts: dict[int, int] = field(default_factory=dict)

    def slot(self, now: float) -> int:
        return int(now * 1000) // self.slot_ms

    def add(self, count: int, slot: int) -> None:
        if slot not in self._counts and len(self._counts) >= self.slots:
            self._forget(slot - self.slots + 1)  # where nothing is ever retried, nobody asks for a total
        self._counts[slot] = self._counts.get(slot, 0) + count

    def total(self, now: float) -> int:
        oldest = self.slot(now) - self.slots + 1
        if any(slot < oldest for slot in self._counts):
            self._forget(oldest)
        return sum(self._counts.values())

    def _forget(self, oldest: int) -> None:
        self._counts = {slot: count for slot, count in self._counts.items() if slot >= oldest}


def sliding(interval_ms: int) -> Window:
    """For what earned something within the last interval."""
    return Window(_slot_ms(interval_ms), SLOTS)


def bounding(interval_ms: int) -> Window:
    """
    For what is bounded in each interval. One slot more: it is forgotten only when a whole interval has passed.
    """
    return Window(_slot_ms(interval_ms), SLOTS + 1)


def _slot_ms(interval_ms: int) -> int:
    return max(1, -(-interval_ms // SLOTS))


Unaffordable = Literal["budget", "cost"]
"""Why a retry is not paid: the share and the floor are used up, or the bound in money."""


class Withdrawal(Struct, frozen=True, gc=False):
    """One paid retry. It can be refunded until it is sent."""

    slot: int
    from_floor: bool
    weight: int = 1
    cost_slot: int = 0
    cost_nanos: int = 0
    """The worst case, held against the bound in money until `settle`."""


class RetryBudget:
    """
    Deposit what earns retries, withdraw before every retry.

    The law, over any stretch of time: `retries * 100 <= percent * deposits + 100 * floor`, where the deposits are those
    of the stretch and of one interval before it, and the floor is `min_retry_count` in each `min_retry_interval_ms`
    and is a rate: what is not used of it does not add up. A retry of weight w takes w retries' worth of deposits, or
    one of the floor. Beside that, the retries of any `max_retry_cost.interval_ms` cost no more than its amount.
    A withdrawal is charged when the retry is decided, before its back-off, so that parked retries count
    (Envoy #30205); one that is never sent is refunded.
    """

    def __init__(self, spec: RetrySpec) -> None:
        self.spec = spec
        self.deposits = 0
        """All since the start, for metrics."""
        self.retries = 0
        """All withdrawals since the start that were not refunded."""
        self._deposits = sliding(spec.budget_interval_ms)
        self._withdrawals = sliding(spec.budget_interval_ms)
        self._floor = bounding(spec.min_retry_interval_ms)
        self._nanos = bounding(cost_interval_ms(spec))

    def deposit(self, now: float) -> None:
        """A call has earned its part of a retry."""
        self.deposits += 1
        self._deposits.add(1, self._deposits.slot(now))

    def try_withdraw(self, now: float, weight: int = 1, cost_nanos: int = 0) -> Withdrawal | None:
        """
        Pay for one retry, from the ratio first and else from the floor; None: not now (never wait for it).

        Left out: the bound in money, which `pay` looks at before.
        """
        from_floor = self.balance(now) < FULL_RETRY * weight
        if from_floor and self._floor.total(now) >= self.spec.min_retry_count:
            return None
        window, charged = (self._floor, 1) if from_floor else (self._withdrawals, weight)
        slot = window.slot(now)
        window.add(charged, slot)
        self.retries += 1
        return Withdrawal(slot, from_floor, weight, *self.charge_cost(now, cost_nanos))

    def charge_cost(self, now: float, cost_nanos: int) -> tuple[int, int]:
        """Hold a retry's worst case against the bound in money: where, and how much."""
        slot = self._nanos.slot(now)
        if cost_nanos:
            self._nanos.add(cost_nanos, slot)
        return slot, cost_nanos

    def pay(self, now: float, weight: int, worst_cost: Callable[[], tuple[int, str]]) -> Withdrawal | Unaffordable:
        """Withdraw, below the bound in money too; `worst_cost`, with its currency, is asked only where there is one."""
        nanos, currency = worst_cost() if self.spec.max_retry_cost is not None else (0, "")
        if not self.affordable(now, nanos, currency):
            return "cost"
        return self.try_withdraw(now, weight, nanos) or "budget"

    def affordable(self, now: float, cost_nanos: int, currency: str) -> bool:
        """Whether a retry that may cost so much fits below the bound in money; without a price there it does not."""
        most = self.spec.max_retry_cost
        if most is None:
            return True
        return currency == most.currency and self._nanos.total(now) + cost_nanos <= most.amount

    def settle(self, withdrawal: Withdrawal, cost_nanos: int) -> None:
        """A paid retry has cost so much. Only once for each withdrawal, and never after a refund."""
        if withdrawal.cost_nanos != cost_nanos and self.spec.max_retry_cost is not None:
            self._nanos.add(cost_nanos - withdrawal.cost_nanos, withdrawal.cost_slot)

    def refund(self, withdrawal: Withdrawal) -> None:
        """A paid retry was never sent. Only once for each withdrawal; the caller holds it and gives it up here."""
        if withdrawal.from_floor:
            self._floor.add(-1, withdrawal.slot)
        else:
            self._withdrawals.add(-withdrawal.weight, withdrawal.slot)
        self.settle(withdrawal, 0)
        self.retries -= 1

    def deposits_now(self, now: float) -> int:
        """Calls of the last interval that earn."""
        return self._deposits.total(now)

    def balance(self, now: float) -> int:
        """Hundredths of a retry that the ratio still allows; the floor is not in it."""
        earned = self.spec.budget_percent * self._deposits.total(now)
        return earned - FULL_RETRY * self._withdrawals.total(now)


def cost_interval_ms(spec: RetrySpec) -> int:
    """Of the bound in money; 1 where there is none."""
    return spec.max_retry_cost.interval_ms if spec.max_retry_cost is not None else 1
