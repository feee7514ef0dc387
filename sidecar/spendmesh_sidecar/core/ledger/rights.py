"""
Rights to spend, as frozen data: leases, what was used of them, and why one was not given (contract §4).

The vocabulary that `core.ledger.ledger` takes and `protocol` carries. All numbers are in the limit's unit and
cumulative, merged by maximum; times are relative (`*_in_ms`), so that two clocks never have to agree.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

from spendmesh_sidecar.core.specs import LimitSpec, PerSpec, WindowSpec


class Message(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all messages. Unknown fields are ignored, so that both sides can be upgraded in any order."""


class AccountRef(Message, order=True, frozen=True, kw_only=True):
    """
    A limit of a budget, and the values it is partitioned by.

    The coordinator finds budget and limit in its own policy for the pod and adds domain and period itself.
    """

    budget: str
    limit: str
    per: tuple[str, ...] = ()
    """In the limit's order; "" for what only the coordinator knows: the pod's namespace, workload, name and labels."""
    override: str = ""
    """In a lease: the override that it is of. Rights are asked for on the limit itself."""

    @property
    def name(self) -> str:
        """Of the limit, for people: `namespace/budget/limit`."""
        return f"{self.budget}/{self.limit}"

    @property
    def own(self) -> AccountRef:
        """The limit's own account, beside which an override runs; itself where it is of none."""
        return msgspec.structs.replace(self, override="") if self.override else self


class Meaning(Message, frozen=True, kw_only=True):
    """
    What a limit's amounts are in, and what they are of.

    With another one it is another account, whatever its name (contract §4).
    """

    unit: str
    currency: str = ""
    window: WindowSpec
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    per: tuple[PerSpec, ...] = ()

    def pays(self, lease: Lease) -> bool:
        """Whether a lease's rights are in the same unit and currency."""
        return (self.unit, self.currency) == (lease.unit, lease.currency)


def meaning_of(limit: LimitSpec) -> Meaning:
    """What must stay the same for an account to stay the same; amount and thresholds may change."""
    return Meaning(
        unit=limit.unit,
        currency=limit.currency,
        window=limit.window,
        models=limit.models,
        providers=limit.providers,
        per=limit.per,
    )


class Want(Message, frozen=True, kw_only=True):
    """
    Rights asked for on one account, in the limit's unit.

    `need` is what one waiting request cannot do without (0: top up in advance); `want` what would be useful.
    """

    account: AccountRef
    need: int
    want: int
    period: Literal["current", "next"] = "current"
    overrides: tuple[str, ...] | None = None
    """Those that the holder's policy has: rights of another one would be of no use to it. None: it does not say."""


class AccountState(Message, frozen=True, kw_only=True):
    """What a sidecar may tell a client about an account, and the ladder's stage."""

    amount: int
    settled: int
    """Spent by closed leases and reported by open ones."""
    charged: int
    """All that counts against the limit: settled, leased and quarantined. amount - charged can still be granted."""
    max_tier: str = ""
    """Downgrade in force; empty: none."""
    max_output_tokens: int = 0
    """Clamp in force; 0: none."""
    crossed_percent: int = 0
    """The highest threshold that settled and quarantined have reached; 100 when exhausted."""
    survival: int = 0
    """Leased to be kept for when the coordinator is silent: part of `charged`, not in flight."""
    resets_in_ms: int
    observed: bool = False
    """An Observe budget: never refuses."""


class Lease(Message, frozen=True, kw_only=True):
    """
    Rights that one holder has on one account, as the coordinator sees them.

    Rights to spend are `granted - released`; both only grow. A holder uses a lease only if `nonce` is its own.
    """

    id: str
    nonce: str
    account: AccountRef
    unit: str
    currency: str = ""
    granted: int
    released: int = 0
    starts_in_ms: int = 0
    """0: the period runs."""
    ends_in_ms: int
    """Until the period's end; after it the lease takes no new reservation."""
    survival: int = 0
    """Part of the rights that is only to be spent while the coordinator is silent."""
    state: AccountState


class Denial(Message, frozen=True, kw_only=True):
    """
    Why rights on one account were not given.

    exhausted: settled use leaves too little; in_flight: it would fit once others settle; too_large: more than the
    whole limit; unverifiable: the books cannot be read or the budget never had a valid meaning; unknown: the
    coordinator's policy for this pod has no such account (a policy change on its way).
    """

    account: AccountRef
    reason: Literal["exhausted", "in_flight", "too_large", "unverifiable", "unknown"]
    why: str = ""
    """What is more to be said of it, for people."""
    state: AccountState | None = None


class Assigned(Message, frozen=True, kw_only=True):
    """The values that were asked for have no account of their own: until the period ends they share another one."""

    asked: AccountRef
    account: AccountRef
    ends_in_ms: int


class LeaseReport(Message, frozen=True, kw_only=True):
    """
    Use of one lease, cumulative since it was opened.

    `sequence` grows with each report; `previous` is the digest of the report before it ("" for the first), so that
    a copied state shows as a fork. `closed` is final, only with `held` 0.
    """

    lease: str
    sequence: int
    previous: str = ""
    used: int
    held: int
    released: int = 0
    closed: bool = False
    overrun: int = 0
    """Part of `used` that exceeded reservations (a provider billed more than the bound); alerts."""
    would_block: int = 0
    """Requests that an Observe budget would have refused."""
    unheld: int = 0
    """Part of `overrun` that was spent without rights, because nobody answered and the limit allows it."""
    account: AccountRef | None = None
    """
    What the lease is on, with `granted` and `period` for a coordinator whose books were restored from a backup and do
    not know the lease. None: no limit has the lease's unit any more.
    """
    granted: int = 0
    period: Literal["previous", "current", "next"] = "current"
    """Of the lease, seen from now by its holder."""
    ended_seconds: int = 0
    """Since its period ended, in whole minutes rounded up; 0: it has not, or its holder does not say."""


class LeaseState(Message, frozen=True, kw_only=True):
    """The coordinator's answer on one lease."""

    lease: str
    sequence: int
    """The highest report that is durable."""
    recalled: int = 0
    """Unused rights that the coordinator asks back; give back what is free."""
    fenced: bool = False
    """This lease is no longer yours: stop spending from it (quarantined, or a fork was seen)."""
    survival: int = 0
    """As in `Lease`."""
    state: AccountState | None = None


def report_digest(report: LeaseReport) -> str:
    """
    What the next report names as `previous`.

    It covers what was spent. Where the lease is from, and why something was spent, is left out: a coordinator that does
    not read it finds the same.
    """
    spent = msgspec.structs.replace(report, unheld=0, account=None, granted=0, period="current", ended_seconds=0)
    return hashlib.sha256(msgspec.json.encode(spent)).hexdigest()[:16]
