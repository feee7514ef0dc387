"""One holder's report brought into the books: merged, closed, or frozen. Pure."""

from __future__ import annotations

from dataclasses import replace

from spendmesh_operator.ledger.books import grants, merging
from spendmesh_operator.ledger.books.accounts import Account, Holder, InvariantViolated, Lease, NotYours
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.merging import Merged
from spendmesh_sidecar.protocol import LeaseReport


def find_lease(holdings: Holdings, holder: Holder, report: LeaseReport) -> tuple[Account, Lease] | None:
    """
    The lease that a report is about; None if it is closed, unknown, or of another incarnation (I6).

    Raises NotYours for a lease of another pod, BadRequest for values that no lease can have.
    """
    merging.check_values(report)
    account = holdings.account_of(report.lease)
    if account is None:
        return None
    lease = account.leases[report.lease]
    if lease.holder.uid != holder.uid:
        raise NotYours(f"lease {report.lease} belongs to another pod")
    return (account, lease) if lease.holder.nonce == holder.nonce else None


def apply_report(holdings: Holdings, account: Account, lease: Lease, report: LeaseReport) -> Lease | None:
    """
    Merge a report. Answers the lease as it is now, or None when this report closed it.

    A lease of which two histories were seen is not closed by either of them: a correction with evidence is needed.
    """
    try:
        merged = merging.merge(lease, report)
    except InvariantViolated as violated:
        holdings.freeze(account, violated)
        return lease
    if merged.lease.unheld > lease.unheld:
        added = merged.lease.unheld - lease.unheld
        holdings.alarm(
            f"lease {lease.id} of {lease.holder.name}: {added} of {account.name} spent while nobody answered"
        )
    if merged.closes and not lease.forked:
        holdings.put(account, merged.lease)
        holdings.close(account, merged.lease, merged.lease.used)
        return None
    after = _judged(holdings, lease, merged)
    after = replace(after, survival=grants.kept_survival(account, after))
    if after != lease:
        holdings.put(account, after)
    return after


def _judged(holdings: Holdings, lease: Lease, merged: Merged) -> Lease:
    after = merged.lease
    if merged.verdict == "fork":
        if not lease.forked:
            holdings.alarm(f"lease {lease.id} of {lease.holder.name}: two histories; it is frozen and both are charged")
        return replace(after, forked=True, quarantined="fork")
    if merged.verdict == "breach" and lease.quarantined not in ("fork", "breach"):
        holdings.alarm(f"lease {lease.id} of {lease.holder.name}: use exceeds its rights; it is frozen")
        return replace(after, quarantined="breach")
    return after
