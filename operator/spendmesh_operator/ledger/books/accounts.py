"""
What the books are made of: the accounts and the sums that each keeps of its leases. No decisions.

All amounts are integers in the limit's unit (nano-units of the currency for Cost). A closed lease is no longer a
record of its own: its use is in the totals of its account's page, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spendmesh_operator.ledger.books.errors import (
    BadRequest as BadRequest,
    HolderFenced as HolderFenced,
    InvariantViolated as InvariantViolated,
    LedgerError as LedgerError,
    NotYours as NotYours,
)
from spendmesh_operator.ledger.books.forecast import Pace
from spendmesh_operator.ledger.books.held import (
    Holder as Holder,
    Lease as Lease,
    QuarantineReason as QuarantineReason,
    Totals as Totals,
)
from spendmesh_operator.ledger.books.notes import (
    Correction as Correction,
    Milestone as Milestone,
    SettledLease as SettledLease,
)
from spendmesh_operator.ledger.books.partitions import NOWHERE, PodPlace
from spendmesh_operator.ledger.books.periods import Span, counts_until
from spendmesh_operator.ledger.document.pages import Pages
from spendmesh_sidecar.core.specs import LimitSpec, Mode

LEASES_PER_PAGE = 256
"""A lease takes some 300 bytes: a full page stays near 80 kB, of which a store keeps several in one object."""

MAX_AMOUNT = 10**18
"""Largest amount in a message: 10^9 currency units in nano-units, the largest limit that a manifest may say."""


@dataclass(frozen=True, slots=True, order=True)
class AccountKey:
    """Contract §4: a new period is a new key, never a reset."""

    domain: str
    budget: str
    limit: str
    per: tuple[str, ...]
    start: int
    """Unix seconds of the period's first instant, or of an override's."""
    override: str = ""
    """Empty: the limit's own amount."""

    @property
    def lineage(self) -> tuple[str, str]:
        """Budget and limit, or override of a limit, over all periods; names have no slash."""
        return self.budget, f"{self.limit}/{self.override}" if self.override else self.limit


@dataclass(frozen=True, slots=True)
class LimitInForce:
    """A limit as the asking pod's policy has it now; `verifiable` is False if its budget never had a valid meaning."""

    limit: LimitSpec
    mode: Mode = "Enforce"
    verifiable: bool = True
    place: PodPlace = NOWHERE
    """Of the asking pod."""
    differs: str = ""
    """How another cluster's definition differs, as a sentence: nothing is granted then."""


@dataclass(slots=True)
class Closed:
    """What the closed leases of one page came to. They only grow, in the page where each lease was opened."""

    used: int = 0
    overrun: int = 0
    would_block: int = 0


@dataclass(slots=True)
class Account:
    """One limit in one period, with what was spent and the leases that may still spend."""

    key: AccountKey
    end: int
    """Unix seconds; the period is `key.start <= t < end`."""
    limit: LimitSpec
    """The meaning that was last in force."""
    mode: Mode = "Enforce"
    opened_by: str = ""
    """Uid of the pod whose request was the first, where the limit is divided."""
    closed: dict[int, Closed] = field(default_factory=dict)
    """By page: a page is durable on its own, so it must count its own closed leases."""
    pages: Pages[str] = field(default_factory=lambda: Pages(LEASES_PER_PAGE))
    """Where each lease is stored, for its whole life."""
    taken_back: int = 0
    """Rights that these books had forgotten and believed their holders; part of what is charged."""
    corrections: list[Correction] = field(default_factory=list)
    milestones: dict[str, Milestone] = field(default_factory=dict)
    """By percent as text, or `quarantine`; see `milestones`."""
    pace: Pace | None = None
    """For the forecast. It is stored with the next change, and is none by itself."""
    leases: dict[str, Lease] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    lease_of: dict[tuple[str, str], str] = field(default_factory=dict)
    """(pod uid, nonce) -> the one lease that is not closed; of two, after a restore, the newer one."""

    @property
    def name(self) -> str:
        """For people: `namespace/budget/limit`."""
        return f"{self.key.budget}/{self.key.limit}"

    @property
    def span(self) -> Span:
        """Its period."""
        return Span(self.key.start, self.end)

    @property
    def counts_until(self) -> int:
        """Unix seconds: when nothing of it counts any more."""
        return counts_until(self.limit.window, self.span)

    @property
    def closed_used(self) -> int:
        """What closed leases used."""
        return sum(closed.used for closed in self.closed.values())

    @property
    def closed_overrun(self) -> int:
        """What was billed beyond the reservations of closed leases."""
        return sum(closed.overrun for closed in self.closed.values())

    @property
    def closed_would_block(self) -> int:
        """Refusals that closed leases would have met, were the budget enforced."""
        return sum(closed.would_block for closed in self.closed.values())

    @property
    def blank(self) -> bool:
        """Nobody holds anything on it and nothing was ever booked."""
        booked = self.closed_used or self.closed_overrun or self.closed_would_block or self.taken_back
        return not (self.leases or self.corrections or booked)

    @property
    def corrected(self) -> int:
        """Sum of corrections."""
        return sum(correction.delta for correction in self.corrections)

    @property
    def charged(self) -> int:
        """C of the protocol: everything that counts against the limit."""
        return self.closed_used + self.corrected + self.totals.charged

    @property
    def settled(self) -> int:
        """Spent for certain: closed leases, and what open ones have reported."""
        return self.closed_used + self.corrected + self.totals.open_used

    @property
    def remaining(self) -> int:
        """What can still be granted; negative after a limit was lowered below what is charged."""
        return self.limit.amount - self.charged

    @property
    def overrun(self) -> int:
        """What providers billed beyond reservations."""
        return self.closed_overrun + sum(lease.overrun for lease in self.leases.values())

    @property
    def would_block(self) -> int:
        """Requests that would have been refused, were an Observe budget enforced."""
        return self.closed_would_block + sum(lease.would_block for lease in self.leases.values())

    def put(self, lease: Lease) -> None:
        """Add or replace a lease."""
        if (before := self.leases.get(lease.id)) is not None:
            self.totals.count(before, -1)
        elif not lease.quarantined or (lease.holder.uid, lease.holder.nonce) not in self.lease_of:
            self.lease_of[lease.holder.uid, lease.holder.nonce] = lease.id
        self.leases[lease.id] = lease
        self.pages.note(lease.id)
        self.totals.count(lease, 1)

    def close(self, lease_id: str, used: int) -> None:
        """Turn a lease into settled use; the rest of its rights is free again."""
        lease = self.leases.pop(lease_id)
        owner = (lease.holder.uid, lease.holder.nonce)
        if self.lease_of.get(owner) == lease_id:
            del self.lease_of[owner]
        self.totals.count(lease, -1)
        closed = self.closed.setdefault(self.pages.remove(lease_id), Closed())
        closed.used += used
        closed.overrun += lease.overrun
        closed.would_block += lease.would_block

    def recount(self) -> Totals:
        """The totals as the leases themselves say."""
        totals = Totals()
        for lease in self.leases.values():
            totals.count(lease, 1)
        return totals


def terms_of(limit: LimitSpec, mode: Mode) -> tuple[object, ...]:
    """What an edit may change. The tier that a step names differs between pods of different routing: not part of it."""
    steps = tuple((step.percent, step.notify, step.max_output_tokens) for step in limit.thresholds)
    silence = (limit.on_unverifiable, limit.survival_percent, limit.allow_cap)
    return (limit.amount, limit.on_exhausted, silence, limit.max_values, limit.overrides, steps, mode)
