"""
What the coordinator is told of leases, and what it answers: written down before it is told, forgotten when it is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.journal import ClosedRecord, Journal
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.rights import LeaseReport, LeaseState

CLOSED_REMEMBERED = 1024
"""
Closing reports kept, so that a late message cannot reopen a lease, and one that the coordinator has forgotten to be
closed can be closed again; an account closes a few in a period.
"""


class LeaseReports:
    """Reports of one ledger's leases, and the leases that are closed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._closed: dict[str, LeaseReport] = {}
        self._named_again: set[str] = set()
        """Closed leases that the coordinator believes to be open: its books are older than their closing."""

    def named_closed(self, lease_id: str) -> bool:
        """The coordinator names a lease. True: it was closed, which it is told again with the next reports."""
        if lease_id not in self._closed:
            return False
        self._named_again.add(lease_id)
        return True

    def due(self, accounts: Iterable[Account], now: float) -> tuple[LeaseReport, ...]:
        """One report for each lease, and first the return of what has been idle; see `LeaseBook.report`."""
        found: list[LeaseReport] = []
        for account in accounts:
            account.give_back_surplus(now)
            for lease in account.leases.values():
                last, report = lease.sent, lease.report(now)
                if report is None:
                    continue
                if lease.sent is not None and lease.sent is not last:
                    self._journal.append(lease.sent)
                found.append(report)
        found += [self._closed[lease_id] for lease_id in sorted(self._named_again) if lease_id in self._closed]
        self._named_again.clear()
        return tuple(found)

    def acknowledged(self, accounts: Collection[Account], states: Iterable[LeaseState], now: float) -> bool:
        """Take answers: durable sequences, fences, recalls. False: one of them shows that this state is a copy."""
        books = {lease.id: (account, lease) for account in accounts for lease in account.leases.values()}
        original = True
        for state in states:
            if state.lease not in books:
                continue
            account, lease = books[state.lease]
            if lease.is_copy(state):
                original = False
                continue
            self._acknowledge(account, lease, state, now)
        while len(self._closed) > CLOSED_REMEMBERED:
            del self._closed[next(iter(self._closed))]
        return original

    def _acknowledge(self, account: Account, lease: LeaseBook, state: LeaseState, now: float) -> None:
        fenced = lease.fenced
        lease.acknowledge(state)
        if lease.fenced and not fenced:
            self._journal.append(lease.record(account.meaning))
        if lease.done:
            self._journal.append(ClosedRecord(lease.id))
            if account.forget(lease, now):
                self._journal.append(account.debt.record(account.ref))
            assert lease.sent is not None  # it is done because its closing report was acknowledged
            self._closed[lease.id] = lease.sent
