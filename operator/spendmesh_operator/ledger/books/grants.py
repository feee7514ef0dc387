"""
How large a grant is, and why one is refused. Pure arithmetic on one account.

Large steps while there is plenty, one request's worth near the limit: what stays unused in other holders' hands at
the end is then at most about one request each, and a holder that dies strands little.
"""

from __future__ import annotations

from typing import Literal

from spendmesh_operator.ledger.books.accounts import Account, Holder, Lease
from spendmesh_operator.ledger.books.extra import NO_EXTRA, Extra
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside

POD_DIVISOR = 50
WORKLOAD_DIVISOR = 10
ACCOUNT_DIVISOR = 4
"""
Rights ahead of use are at most a fiftieth (2 %) of the limit for one pod, a tenth for one workload and a quarter in
all, quarantined ones and all incarnations included. What one waiting call needs is given beyond that: so pods that
are killed strand at most these shares and what their own calls may have cost, and still no call is refused for it.
"""

Refusal = Literal["exhausted", "in_flight", "too_large"]


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
    ahead = lease.ahead if lease is not None else 0
    active = _active(account, lease)
    useful = min(
        want,
        account.limit.amount // active - ahead,
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


def survival_grant(account: Account, lease: Lease | None, size: int, others: Beside = NOTHING) -> int:
    """
    Rights to add to a grant of `size` that are kept for when the coordinator is silent.

    An equal part of the limit's survival share for each holder, as far as the share is not out already.
    """
    if account.mode == "Observe" or not account.limit.survival_percent:
        return 0
    share = account.limit.amount * account.limit.survival_percent // 100
    kept = lease.survival if lease is not None else 0
    missing = min(share // _active(account, lease) - kept, share - account.totals.survival)
    return max(0, min(missing, account.remaining - others.charged - size))


def kept_survival(account: Account, lease: Lease) -> int:
    """What a holder should still keep for silence: no more than it has, or than its part as there are more holders."""
    if not lease.survival:
        return 0
    share = account.limit.amount * account.limit.survival_percent // 100
    return min(lease.survival, lease.unspent, share // _active(account, lease))


def _active(account: Account, lease: Lease | None) -> int:
    """Holders with rights to spend, this one counted."""
    counted = lease is not None and not lease.quarantined and lease.rights > lease.used
    return account.totals.spenders + (0 if counted else 1)


def refusal(account: Account, need: int, others: Beside = NOTHING, extra: Extra = NO_EXTRA) -> Refusal | None:
    """Why `need` cannot be given now, by the account and the overrides that run beside it; None if it can."""
    room = max(0, account.remaining - others.charged) + extra.room
    if account.mode == "Observe" or need == 0 or need <= room:
        return None
    amount = account.limit.amount + extra.amount
    if need > amount:
        return "too_large"
    spent = account.settled + account.totals.quarantined + others.settled + others.quarantined
    if need <= amount - spent - account.totals.survival - extra.settled - extra.quarantined:
        return "in_flight"
    return "exhausted"


def recall(account: Account, lease: Lease, asked: int, others: Beside = NOTHING) -> int:
    """Free rights that a holder should give back: all when the limit is overdrawn, else what others wait for."""
    if account.mode == "Observe" or lease.quarantined:
        return 0
    remaining = account.remaining - others.charged
    if remaining < 0:
        return lease.unspent
    return min(max(0, lease.unspent - lease.survival), max(0, asked - remaining))
