"""
Rights that restored books do not know of, taken back on their holders' word. Pure.

Books that were restored from a backup have forgotten what was granted since. Each holder says in its reports what it
was granted and where; for a moment after the restoration was noticed, that is believed, within bounds: the pod's own
policy must have the limit, and all that is taken back on one account is at most the limit's amount. Whoever holds
rights that nobody reports in that time is unknown for good (facts of a lost store cannot be had otherwise).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from spendmesh_operator.ledger.books.accounts import Account, Holder, Lease, LimitInForce
from spendmesh_operator.ledger.books.granting import Refused
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.lives import Life, granted_here
from spendmesh_operator.ledger.books.overrides import overrides_of
from spendmesh_operator.ledger.coordinator.asking import account_for
from spendmesh_sidecar.protocol import LeaseReport

Forgotten = Literal["fenced", "awaited", "taken back"]
"""
What becomes of rights that the books have forgotten. fenced: nothing was restored, nobody may spend them; awaited:
not answered for a moment, since a coordinator that has just started may yet hear that its books were restored.
"""

Found = tuple[Account, Lease]


def forgotten(lives: tuple[Life, ...], own: str, found: Found | None, report: LeaseReport) -> bool:
    """Whether a report is about rights that only lost books can have granted; `own` as in `granted_here`."""
    if report.account is None:
        return False
    if found is None:
        return not granted_here(lives, own, report.lease)
    return report.granted > found[1].granted


def take_back(
    holdings: Holdings,
    domain: str,
    holder: Holder,
    report: LeaseReport,
    found: Found | None,
    in_force: LimitInForce,
    now_ms: int,
) -> Found | None:
    """
    Charge what the holder says it was granted; its report is merged afterwards as any other. None: not believed.

    Raises an alarm either way. One pod's word is bounded, but it is only a word.
    """
    if found is None:
        try:
            account = _account(holdings, domain, holder, report, in_force, now_ms)
        except Refused as refused:
            holdings.alarm(f"lease {report.lease} of {holder.name} is not taken back: its account is {refused.reason}")
            return None
        lease = Lease(id=report.lease, holder=holder)
    else:
        account, lease = found
    added = max(0, _claim(report) - lease.rights)
    if reason := _disbelief(account, report, added):
        holdings.alarm(f"lease {report.lease} of {holder.name} on {account.name} is not taken back: {reason}")
        return None
    if account.key not in holdings.accounts:
        holdings.add_account(account)
    if not report.closed:
        _replace_older(holdings, account, lease)
    account.taken_back += added
    holdings.touch(account)
    after = replace(lease, granted=report.granted)
    holdings.put(account, after)
    holdings.alarm(f"lease {lease.id} of {holder.name}: {added} taken back on {account.name}, which had forgotten them")
    return account, after


def _account(
    holdings: Holdings, domain: str, holder: Holder, report: LeaseReport, in_force: LimitInForce, now_ms: int
) -> Account:
    if report.account is None:
        raise Refused("unknown")
    ref, name = report.account.own, report.account.override
    # Rights that were granted count, however clusters differ since.
    in_force = replace(in_force, differs="")
    account = account_for(holdings, {}, domain, holder.uid, ref, report.period, in_force, now_ms, report.ended_seconds)
    if not name:
        return account
    extra = next(
        (each for each in overrides_of(holdings, account, in_force, now_ms) if each.key.override == name), None
    )
    if extra is None:
        raise Refused("unknown")
    return extra


def _claim(report: LeaseReport) -> int:
    """What the lease took from the limit when it was reported: while all was well, all claims together fitted."""
    return report.used - report.overrun if report.closed else report.granted - report.released


def _disbelief(account: Account, report: LeaseReport, added: int) -> str:
    if report.used - report.overrun + report.held > report.granted - report.released:
        return "it would have used more than it was granted"
    if account.mode == "Enforce" and account.taken_back + added > account.limit.amount:
        return f"{account.taken_back} were taken back, and {added} more exceed {account.limit.amount}"
    return ""


def _replace_older(holdings: Holdings, account: Account, lease: Lease) -> None:
    """A holder has one lease on an account: one that the books still have was closed in the time that was lost."""
    older = account.lease_of.get((lease.holder.uid, lease.holder.nonce), lease.id)
    if older != lease.id:
        holdings.quarantine(account, account.leases[older], "replaced")
