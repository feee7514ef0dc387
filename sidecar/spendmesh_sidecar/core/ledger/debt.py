"""
What was spent on one account without a lease, until one tells it: observed, or let through while nobody answered.

Of the latter there is a cap for each period (`allowCap`). What was let through counts against it until its period is
over, wherever it is told by then. Arithmetic only; which lease tells it is the account's choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from spendmesh_sidecar.core.ledger.journal import UnleasedRecord
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.rights import AccountRef


def by_limit(amounts: Iterable[tuple[AccountRef, int]]) -> dict[str, int]:
    """Sums of what is not 0, by the limit's name: for people, who are told no values."""
    sums: dict[str, int] = {}
    for ref, amount in amounts:
        if amount:
            sums[ref.name] = sums.get(ref.name, 0) + amount
    return sums


@dataclass(slots=True)
class Debt:
    """In the limit's unit. `owed <= unleased`, and `lent` is part of `credit_used`."""

    unleased: int = 0
    """Use for which there is no lease yet."""
    owed: int = 0
    """Part of it that was let through without rights."""
    would_block: int = 0
    """Refusals of an Observe limit that are not yet in a lease's report."""
    credit_held: int = 0
    """Of calls under way that go without rights (`onUnverifiable: Allow`)."""
    credit_used: int = 0
    """What such calls have cost in this period, as far as it is known which period it is."""
    lent: int = 0
    """Part of `credit_used` that is told in leases that are closed, until `lent_until`."""
    lent_until: float = 0.0
    _credit_until: float = inf

    @property
    def waits(self) -> bool:
        """Something waits for a lease to be told in."""
        return bool(self.unleased or self.would_block)

    def forgive(self) -> None:
        """The limit has another meaning: nothing is taken over but what calls under way hold."""
        self.unleased = self.owed = self.would_block = self.credit_used = self.lent = 0
        self.lent_until, self._credit_until = 0.0, inf

    def tell(self, lease: LeaseBook, counts_until: float) -> int:
        """Move what waits into a lease, whose use counts until then; answers how much use."""
        told = self.unleased
        lease.charge_unheld(told, self.owed)
        lease.would_block += self.would_block
        if self.owed:
            self._credit_until = counts_until
        self.unleased = self.would_block = self.owed = 0
        return told

    def credit(self, cap: int, now: float) -> int:
        """What may be held without rights now."""
        if now >= self._credit_until:
            self.credit_used, self._credit_until = 0, inf
        return max(0, cap - self.credit_used - self.credit_held)

    def borrow(self, amount: int) -> None:
        """Hold without rights."""
        self.credit_held += amount

    def repay(self, held: int, cost: int) -> None:
        """A call without rights has ended: what it cost waits for the next lease."""
        self.credit_held -= held
        self.credit_used += cost
        self.owed += cost
        self.unleased += cost

    def keep_uncharged(self, lease: LeaseBook) -> None:
        """A lease is reported no more: what nobody charges of it, and was not kept before, waits for the next one."""
        if not lease.superseded:
            kept, lease.kept = lease.kept, lease.uncharged
            self.unleased += lease.kept - kept
            self.owed += min(lease.kept, lease.unheld) - min(kept, lease.unheld)

    def closed(self, lease: LeaseBook, counts_until: float, now: float) -> bool:
        """A lease is gone. Answers whether what it told is still part of the cap."""
        if not lease.unheld or now >= counts_until:
            return False
        self.lent = lease.unheld + (self.lent if self.lends(now) else 0)
        self.lent_until = max(self.lent_until, counts_until)
        return True

    def lends(self, now: float) -> bool:
        """Whether what closed leases told is still part of the cap."""
        return bool(self.lent) and now < self.lent_until

    # --- in the log -------------------------------------------------------------------------------------------

    def record(self, account: AccountRef) -> UnleasedRecord:
        """All that the log keeps of it."""
        return UnleasedRecord(
            account=account, amount=self.unleased, owed=self.owed, lent=self.lent, lent_until=self.lent_until
        )

    def recall(self, record: UnleasedRecord, leases: Iterable[tuple[LeaseBook, float]], now: float) -> None:
        """
        Become what the log says. What the last process let through in this period is part of the cap: `leases`, each
        with the time until which its use counts.
        """
        self.unleased, self.owed = record.amount, record.owed
        if now < record.lent_until:
            self.lent, self.lent_until = record.lent, record.lent_until
        counting = [(lease.unheld, until) for lease, until in leases if lease.unheld and now < until]
        if self.lent:
            counting.append((self.lent, self.lent_until))
        self.credit_used = self.owed + sum(amount for amount, _ in counting)
        self._credit_until = max((until for _, until in counting), default=inf)
