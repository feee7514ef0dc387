"""
How large a grant is, and why one is refused. Pure arithmetic on one account.

Large steps while there is plenty, one request's worth near the limit: what stays unused in other holders' hands at
the end is then at most about one request each, and a holder that dies strands little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spendmesh_operator.ledger.accounts import Account, Holder, Lease
from spendmesh_operator.ledger.rolling import NOTHING, Beside

POD_DIVISOR = 50
WORKLOAD_DIVISOR = 10
ACCOUNT_DIVISOR = 4
"""
Rights ahead of use are at most a fiftieth (2 %) of the limit for one pod, a tenth for one workload and a quarter in
all, quarantined ones and all incarnations included. What one waiting call needs is given beyond that: so pods that
are killed strand at most these shares and what their own calls may have cost, and still no call is refused for it.
"""

Refusal = Literal["exhausted", "in_flight", "too_large"]


@dataclass(frozen=True, slots=True)
class Pressure:
    """Somebody waits for rights that are out. Never taken from the one who waits: that would only raise its need."""

    need: int
    uid: str
    until_ms: int


NO_PRESSURE = Pressure(0, "", 0)


def size_grant(
    account: Account, holder: Holder, lease: Lease | None, need: int, want: int, others: Beside = NOTHING
) -> int:
    """
    Rights to add: min(want, fair share, remaining / (2 x active)), within the caps ahead of use, at least `need`.

    The caller has checked that `need` fits (`refusal`). An Observe account gives what is wanted: it never refuses.
    """
    want = max(want, need)
    if account.mode == "Observe":
        return want
    unspent = lease.unspent if lease is not None else 0
    counted = lease is not None and not lease.quarantined and lease.rights > lease.used
    active = account.totals.spenders + (0 if counted else 1)
    useful = min(
        want,
        account.limit.amount // active - unspent,
        room_ahead(account, holder),
        (account.remaining - others.charged) // (2 * active),
    )
    return max(need, useful, 0)


def room_ahead(account: Account, holder: Holder) -> int:
    """How many more rights a holder may have ahead of its use; negative where a lowered limit or needs took more."""
    amount, totals = account.limit.amount, account.totals
    return min(
        amount // POD_DIVISOR - totals.ahead_of_pod.get(holder.uid, 0),
        (amount // WORKLOAD_DIVISOR - totals.ahead_of_group.get(holder.group, 0)) // 2,
        amount // ACCOUNT_DIVISOR - totals.ahead,
    )


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
