"""
What the books are made of: leases, the accounts that hold them, and the errors that the books raise. No decisions.

All amounts are integers in the limit's unit (nano-units of the currency for Cost). A closed lease is no longer a
record of its own: its use is in the totals of its account's page, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spendmesh_operator.ledger.forecast import Pace
from spendmesh_operator.ledger.notes import Correction as Correction, Milestone as Milestone
from spendmesh_operator.ledger.pages import Pages
from spendmesh_operator.ledger.partitions import NOWHERE, PodPlace
from spendmesh_sidecar.core.specs import LimitSpec, Mode

LEASES_PER_PAGE = 256
"""A lease takes some 300 bytes: a full page stays near 80 kB, of which a store keeps several in one object."""

MAX_AMOUNT = 10**18
"""Largest amount in a message: 10^9 currency units in nano-units, the largest limit that a manifest may say."""

QuarantineReason = Literal["", "silent", "gone", "replaced", "fork", "breach"]
"""
silent: no report for too long; gone: the pod was deleted; replaced: the same pod came back with a new nonce;
fork: two histories of one lease were seen; breach: more was spent than granted. A sign of life ends silent and gone.
"""


class LedgerError(Exception):
    """Base of what the books refuse to do."""


class BadRequest(LedgerError):
    """The message itself is wrong (400)."""


class NotYours(LedgerError):
    """The lease or nonce belongs to another pod (403)."""


class HolderFenced(LedgerError):
    """This nonce was replaced or frozen: the sidecar must take a new one (409)."""


class InvariantViolated(LedgerError):
    """A sum that must hold does not. The grant is stopped, the process is not."""


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
class Holder:
    """One incarnation of a pod's sidecar. `name` is `namespace/pod`, for people."""

    uid: str
    name: str
    nonce: str
    workload: str = ""
    """Topmost owner of the pod, `Kind namespace/name`; empty where it is not known."""

    @property
    def group(self) -> str:
        """What shares a cap of rights ahead of use: the workload, or the pod itself where that is not known."""
        return self.workload or f"Pod {self.name}"


@dataclass(frozen=True, slots=True)
class LimitInForce:
    """A limit as the asking pod's policy has it now; `verifiable` is False if its budget never had a valid meaning."""

    limit: LimitSpec
    mode: Mode = "Enforce"
    verifiable: bool = True
    place: PodPlace = NOWHERE
    """Of the asking pod."""


@dataclass(frozen=True, slots=True)
class Lease:
    """
    Rights of one holder on one account, as far as the books know; counters are cumulative and never fall.

    `trail` holds short digests of the reports `sequence`, `sequence - 1`, … ("" where none was seen).
    """

    id: str
    holder: Holder
    granted: int = 0
    released: int = 0
    used: int = 0
    held: int = 0
    overrun: int = 0
    would_block: int = 0
    unheld: int = 0
    """Part of the overrun that was spent without rights, while the coordinator was silent."""
    survival: int = 0
    """Part of the rights that its holder spends only while the coordinator is silent."""
    sequence: int = 0
    trail: tuple[str, ...] = ()
    quarantined: QuarantineReason = ""
    forked: bool = False
    """Two histories were seen: both copies may spend all rights, so both are charged."""

    @property
    def rights(self) -> int:
        """What the holder may spend in all."""
        return self.granted - self.released

    @property
    def charge(self) -> int:
        """What counts against the limit: all rights until closed, and once more for a copy."""
        return max(self.rights * (1 + self.forked), self.used + self.held)

    @property
    def owed(self) -> int:
        """What was spent beyond the rights. It is charged already, so rights for it cost nothing; without them the
        next rights would go there."""
        return max(0, self.used + self.held - self.rights)

    @property
    def unspent(self) -> int:
        """Rights that are neither used nor held by the last report."""
        return max(0, self.rights - self.used - self.held)

    @property
    def ahead(self) -> int:
        """Rights ahead of use that its holder may spend at any time."""
        return max(0, self.unspent - self.survival)

    @property
    def returns(self) -> bool:
        """Whether a sign of life of its holder opens it again."""
        return self.quarantined in ("silent", "gone")


@dataclass(slots=True)
class Totals:
    """Sums over the leases of one account, kept beside them and verified against them before each grant."""

    charged: int = 0
    open_used: int = 0
    quarantined: int = 0
    survival: int = 0
    spenders: int = 0
    """Open leases that still hold rights to spend."""
    ahead: int = 0
    """`Lease.ahead` of open and quarantined leases."""
    ahead_of_pod: dict[str, int] = field(default_factory=dict)
    """The same by uid of the pod, over all its incarnations; no entry where it is zero."""
    ahead_of_group: dict[str, int] = field(default_factory=dict)
    """The same by `Holder.group`."""

    def count(self, lease: Lease, sign: Literal[1, -1]) -> None:
        """Add a lease (1) or take it out (-1)."""
        self.charged += sign * lease.charge
        if lease.quarantined:
            self.quarantined += sign * lease.charge
        else:
            self.open_used += sign * lease.used
            self.survival += sign * lease.survival
            self.spenders += sign * (lease.rights > lease.used)
        if ahead := sign * lease.ahead:
            self.ahead += ahead
            _add(self.ahead_of_pod, lease.holder.uid, ahead)
            _add(self.ahead_of_group, lease.holder.group, ahead)


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


def _add(sums: dict[str, int], key: str, amount: int) -> None:
    total = sums.pop(key, 0) + amount
    if total:
        sums[key] = total


def meaning_of(limit: LimitSpec) -> tuple[object, ...]:
    """What must stay the same for an account to stay the same; amount and thresholds may change."""
    return (limit.unit, limit.currency, limit.window, limit.models, limit.providers, limit.per)


def terms_of(limit: LimitSpec, mode: Mode) -> tuple[object, ...]:
    """What an edit may change. The tier that a step names differs between pods of different routing: not part of it."""
    steps = tuple((step.percent, step.notify, step.max_output_tokens) for step in limit.thresholds)
    silence = (limit.on_unverifiable, limit.survival_percent, limit.allow_cap)
    return (limit.amount, limit.on_exhausted, silence, limit.max_values, limit.overrides, steps, mode)
