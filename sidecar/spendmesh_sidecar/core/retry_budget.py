"""
Retries in proportion to recent first tries, so that a failing provider is not also flooded.

Why a budget and not only a number of attempts: attempts multiply with every layer and every caller, a budget bounds
the extra load as a whole (facts: Finagle, tower, GEP-3388). It never waits and never blocks a first try.
Left out on purpose: which failures deserve a retry (`exchange`), and sharing between pods.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from spendmesh_sidecar.core.specs import RetrySpec

SLOTS = 10
"""Windows slide in tenths, as tower's, Finagle's and Envoy's budgets do."""
FULL_RETRY = 100
"""A first try deposits `percent` of these, a retry costs one whole: integers only, so 33 % is 33 %."""


@dataclass(slots=True)
class _Window:
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


class Withdrawal(Struct, frozen=True, gc=False):
    """One paid retry. It can be refunded until it is sent."""

    slot: int
    from_floor: bool


class RetryBudget:
    """
    Deposit on every first try, withdraw before every retry.

    The law, over any stretch of time: `retries * 100 <= percent * first tries + 100 * floor`, where the floor is
    `min_retry_count` in each `min_retry_interval_ms` and is a rate: what is not used of it does not add up.
    A withdrawal is charged when the retry is decided, before its back-off, so that parked retries count
    (Envoy #30205); one that is never sent is refunded.
    """

    def __init__(self, spec: RetrySpec) -> None:
        self.spec = spec
        self.first_tries = 0
        """All deposits since the start, for metrics."""
        self.retries = 0
        """All withdrawals since the start that were not refunded."""
        interval_slot_ms = max(1, -(-spec.budget_interval_ms // SLOTS))
        self._deposits = _Window(interval_slot_ms, SLOTS)
        self._withdrawals = _Window(interval_slot_ms, SLOTS)
        # one slot more: a floor retry is forgotten only when its whole interval has passed
        self._floor = _Window(max(1, -(-spec.min_retry_interval_ms // SLOTS)), SLOTS + 1)

    def deposit(self, now: float) -> None:
        """A first try is sent."""
        self.first_tries += 1
        self._deposits.add(1, self._deposits.slot(now))

    def try_withdraw(self, now: float) -> Withdrawal | None:
        """Pay for one retry, from the ratio first and else from the floor; None: not now (never wait for it)."""
        if self.balance(now) >= FULL_RETRY:
            slot = self._withdrawals.slot(now)
            self._withdrawals.add(1, slot)
            self.retries += 1
            return Withdrawal(slot, from_floor=False)
        if self._floor.total(now) < self.spec.min_retry_count:
            slot = self._floor.slot(now)
            self._floor.add(1, slot)
            self.retries += 1
            return Withdrawal(slot, from_floor=True)
        return None

    def refund(self, withdrawal: Withdrawal) -> None:
        """A paid retry was never sent. Only once for each withdrawal; the caller holds it and gives it up here."""
        window = self._floor if withdrawal.from_floor else self._withdrawals
        window.add(-1, withdrawal.slot)
        self.retries -= 1

    def balance(self, now: float) -> int:
        """Hundredths of a retry that the ratio still allows; the floor is not in it."""
        earned = self.spec.budget_percent * self._deposits.total(now)
        return earned - FULL_RETRY * self._withdrawals.total(now)


class RetryBudgets:
    """The budgets of one sidecar by policy name; they outlive policy swaps, or each edit would mint new retries."""

    def __init__(self) -> None:
        self._budgets: dict[str, RetryBudget] = {}

    def of(self, spec: RetrySpec) -> RetryBudget:
        """The budget of this name under `spec`. Counts are kept unless an interval changed."""
        budget = self._budgets.get(spec.name)
        if budget is None or _intervals(budget.spec) != _intervals(spec):
            budget = self._budgets[spec.name] = RetryBudget(spec)
        elif budget.spec is not spec:
            budget.spec = spec
        return budget


def _intervals(spec: RetrySpec) -> tuple[int, int]:
    return spec.budget_interval_ms, spec.min_retry_interval_ms
