"""
How large a grant is, and why one is refused. Pure arithmetic on one account.

Large steps while there is plenty, one request's worth near the limit: what stays unused in other holders' hands at
the end is then at most about one request each, and a holder that dies strands little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spendmesh_operator.ledger.accounts import Account, Lease
from spendmesh_operator.ledger.rolling import NOTHING, Beside

CAP_DIVISOR = 50
"""A holder is topped up to at most a fiftieth (2 %) of the limit ahead of its use, unless one request needs more."""

Refusal = Literal["exhausted", "in_flight", "too_large"]


@dataclass(frozen=True, slots=True)
class Pressure:
    """Somebody waits for rights that are out. Never taken from the one who waits: that would only raise its need."""

    need: int
    uid: str
    until_ms: int


NO_PRESSURE = Pressure(0, "", 0)


def size_grant(account: Account, lease: Lease | None, need: int, want: int, others: Beside = NOTHING) -> int:
    """
    Rights to add: min(want, fair share, remaining / (2 x active)), at most the cap, at least `need`.

    The caller has checked that `need` fits (`refusal`). An Observe account gives what is wanted: it never refuses.
    """
    want = max(want, need)
    if account.mode == "Observe":
        return want
    unspent = lease.unspent if lease is not None else 0
    counted = lease is not None and not lease.quarantined and lease.rights > lease.used
    active = account.totals.spenders + (0 if counted else 1)
    amount = account.limit.amount
    useful = min(
        want,
        amount // active - unspent,
        amount // CAP_DIVISOR - unspent,
        (account.remaining - others.charged) // (2 * active),
    )
    return max(need, useful, 0)


def refusal(account: Account, need: int, others: Beside = NOTHING) -> Refusal | None:
    """Why `need` cannot be given now; None if it can."""
    if account.mode == "Observe" or need == 0 or need <= account.remaining - others.charged:
        return None
    if need > account.limit.amount:
        return "too_large"
    spent = account.settled + account.totals.quarantined + others.settled + others.quarantined
    if need <= account.limit.amount - spent:
        return "in_flight"
    return "exhausted"


def recall(account: Account, lease: Lease, asked: int, others: Beside = NOTHING) -> int:
    """Free rights that a holder should give back: all when the limit is overdrawn, else what others wait for."""
    if account.mode == "Observe" or lease.quarantined:
        return 0
    remaining = account.remaining - others.charged
    if remaining < 0:
        return lease.unspent
    return min(lease.unspent, max(0, asked - remaining))
