"""
The sidecar's rights to spend: every attempt is reserved on all its accounts in one step, and resolved once.

Holds leases that the coordinator granted and never creates a right. Makes no calls: the shell carries `wants` and
`reports` out and brings `merge`, `denied` and `acknowledged` back (protocol.py). One writer: no call may be
interrupted by another, which a single event loop gives for free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from spendmesh_sidecar.core.account import Account, lacking_of
from spendmesh_sidecar.core.charges import Charge, Quantities
from spendmesh_sidecar.core.demand import Demand
from spendmesh_sidecar.core.journal import ClosedRecord, Journal, NoJournal, UnleasedRecord
from spendmesh_sidecar.core.lease import LeaseBook
from spendmesh_sidecar.core.open_attempts import OpenAttempts, entry_of
from spendmesh_sidecar.core.rights import AccountRef, Denial, Lease, LeaseReport, LeaseState, Want
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.core.types import Shortfall

SILENCE_STANDS_SECONDS = 5.0
"""After an unanswered question about rights, calls that can shrink to what is here do not ask for so long."""
CLOSED_REMEMBERED = 1024
"""Ids of closed leases kept, so that a late message cannot reopen one; an account closes a few in a period."""


class Ledger:
    """
    Leases, reservations and what is reported of them.

    The law: on every lease `used + held <= granted - released + overrun`, after every call. Overrun is what a
    provider billed above the proven bound, and what an Observe limit let pass.
    """

    def __init__(
        self,
        nonce: str,
        budgets: tuple[BudgetSpec, ...] = (),
        now: float = 0.0,
        journal: Journal = NoJournal(),
    ) -> None:
        self.journal = journal
        self.accounts: dict[AccountRef, Account] = {}
        self.copied = False
        """The coordinator knows later reports than ours: this state is a copy. Take a new nonce (`adopt`)."""
        self.draining = False
        self.open_attempts = OpenAttempts(journal)
        self._closed: dict[str, None] = {}
        self._silent_until = 0.0
        self._take(nonce)
        self.set_budgets(budgets, now)

    # --- policy and identity ----------------------------------------------------------------------------------

    def set_budgets(self, budgets: tuple[BudgetSpec, ...], now: float) -> None:
        """Put a policy's budgets in force. Leases of accounts that are gone close when nothing is held on them."""
        in_force: set[AccountRef] = set()
        for budget in budgets:
            for limit in budget.limits:
                ref = AccountRef(budget=budget.name, limit=limit.name)
                in_force.add(ref)
                account = self._account(ref, now)
                account.put_in_force(limit, enforced=budget.mode == "Enforce", now=now)
                if not self.draining:
                    for lease in account.leases.values():
                        lease.revive()
        for ref, account in self.accounts.items():
            if ref not in in_force:
                account.limit = None
                _retire(account)

    def adopt(self, nonce: str) -> None:
        """
        Start anew under another nonce: the coordinator fenced the old one and has charged its leases in full.

        Open reservations still resolve, in leases that are no longer reported.
        """
        self._take(nonce)
        for account in self.accounts.values():
            for lease in account.leases.values():
                lease.fenced = True
            account.leases.clear()
            account.forget_denial()
        self.journal.begin()

    def _take(self, nonce: str) -> None:
        self.nonce = nonce
        self.copied = False
        self._spread = int(hashlib.sha256(nonce.encode()).hexdigest()[:8], 16) / 2**32

    def drain(self) -> None:
        """Shutdown: no right is asked for or spent any more; leases close as their reservations resolve."""
        self.draining = True
        for account in self.accounts.values():
            _retire(account)

    @property
    def settled_up(self) -> bool:
        """Nothing is held, and every lease is closed and acknowledged."""
        return not self.open_attempts and all(not account.leases for account in self.accounts.values())

    # --- one attempt ------------------------------------------------------------------------------------------

    def free(self, ref: AccountRef, now: float) -> int:
        """The largest reservation that fits on an account now."""
        account = self.accounts.get(ref)
        return account.free(now) if account else 0

    def shortfalls(self, charges: tuple[Charge, ...], now: float) -> tuple[Shortfall, ...]:
        """What lacks for these charges to fit; books nothing."""
        return lacking_of([(charge, self._account(charge.account, now).current(now)) for charge in charges])

    def reserve(self, charges: tuple[Charge, ...], reservation: str, now: float) -> tuple[Shortfall, ...]:
        """
        Hold all charges or none; empty when booked, else what lacks.

        Check and booking are one synchronous step. An observed charge never lacks: what does not fit is counted.
        Raises LedgerError for an id that is open already, and LedgerUnwritable; then nothing is booked.
        """
        accounts = [self._account(charge.account, now) for charge in charges]
        places = [(charge, account.current(now)) for charge, account in zip(charges, accounts, strict=True)]
        if lacking := lacking_of(places):
            return lacking
        for account, charge in zip(accounts, charges, strict=True):
            account.demand.note(charge.amount, now)
            if charge.observed:
                account.note_would_block(charge.amount, now)
                self._carry_over(account, now)
        entries = tuple(
            entry_of(account, lease, charge) for account, (charge, lease) in zip(accounts, places, strict=True)
        )
        self.open_attempts.add(reservation, entries)
        for entry in entries:
            if entry.lease is not None:
                entry.lease.hold(entry.held)
        return ()

    def settle(self, reservation: str, actual: Quantities, now: float) -> None:
        """
        Replace what is held by what it cost. Above the reservation is recorded as overrun, and charged.

        Raises LedgerError unless the reservation is open: each resolves exactly once.
        """
        settled = self.open_attempts.settle(reservation, actual)
        for entry, amount in settled:
            if entry.lease is not None:
                entry.lease.settle(entry.held, amount)
            else:
                entry.account.unleased += amount
                self._carry_over(entry.account, now)
        if any(amount > entry.worst for entry, amount in settled):
            self.journal.hurry()

    def void(self, reservation: str) -> None:
        """Nothing was billed: free what is held. Raises LedgerError unless the reservation is open."""
        for entry in self.open_attempts.void(reservation):
            if entry.lease is not None:
                entry.lease.void(entry.held)

    @property
    def open_reservations(self) -> int:
        """Attempts that are not resolved; 0 when all is quiet."""
        return len(self.open_attempts)

    def _carry_over(self, account: Account, now: float) -> None:
        if (lease := account.carry_over(now)) is not None:
            self.journal.append(lease.record(account.meaning))
            self.journal.append(UnleasedRecord(account=account.ref, amount=0))

    # --- rights from the coordinator --------------------------------------------------------------------------

    def merge(self, lease: Lease, now: float) -> bool:
        """
        Take over a lease message, new, repeated or late. False: not ours, closed before, or of another meaning.

        One of another meaning, or of a limit that no policy had, is only kept to be closed.
        """
        if lease.nonce != self.nonce or lease.id in self._closed:
            return False
        account = self._account(lease.account, now)
        usable = account.meaning is not None and account.meaning.pays(lease)
        book = account.leases.get(lease.id)
        if book is not None:
            usable = usable and not book.superseded
            grown = book.merge(lease, now)
        else:
            starts_at, ends_at = now + lease.starts_in_ms / 1000, now + lease.ends_in_ms / 1000
            book = LeaseBook(lease.id, lease.account, lease.granted, starts_at, ends_at, lease.state, lease.released)
            book.retired = account.limit is None or self.draining
            grown = True
            account.add(book)
        if not usable:
            book.supersede()
        self.journal.append(book.record(account.meaning))
        if not usable:
            return False
        if grown:
            account.forget_denial()
        self._carry_over(account, now)
        self._silent_until = 0.0
        return True

    def denied(self, denials: Iterable[Denial], now: float, shortfalls: tuple[Shortfall, ...] = ()) -> None:
        """Remember refusals; with the shortfalls of the call that heard them, others need not ask the same at once."""
        needs = {(lack.budget, lack.limit): lack.need for lack in shortfalls}
        for denial in denials:
            need = needs.get((denial.account.budget, denial.account.limit), 0)
            self._account(denial.account, now).denied(denial, need, now)

    def standing_denials(self, shortfalls: tuple[Shortfall, ...], now: float) -> tuple[Denial, ...]:
        """Refusals so fresh that asking again would be a wasted round trip."""
        found = (
            self._account(AccountRef(budget=lack.budget, limit=lack.limit), now).standing_denial(lack.need, now)
            for lack in shortfalls
        )
        return tuple(denial for denial in found if denial is not None)

    def unanswered(self, now: float) -> None:
        """A question about rights brought no answer in time."""
        self._silent_until = now + SILENCE_STANDS_SECONDS

    def silent(self, now: float) -> bool:
        """The coordinator did not answer a moment ago."""
        return now < self._silent_until

    def wants(self, now: float) -> tuple[Want, ...]:
        """Top-ups that are due, for this period and, near its end, for the next. Asking is remembered."""
        if self.draining:
            return ()
        return tuple(want for account in self.accounts.values() for want in account.wants(now, self._spread))

    def wants_for(self, shortfalls: Iterable[Shortfall], now: float) -> tuple[Want, ...]:
        """What to ask for calls that wait, with what demand will want next: one want for each account."""
        lacking: dict[AccountRef, list[Shortfall]] = {}
        for lack in shortfalls:
            lacking.setdefault(AccountRef(budget=lack.budget, limit=lack.limit), []).append(lack)
        return tuple(self._account(ref, now).want_for(tuple(calls), now) for ref, calls in lacking.items())

    # --- reports to the coordinator ---------------------------------------------------------------------------

    def reports(self, now: float) -> tuple[LeaseReport, ...]:
        """One report for each lease, and first the return of what has been idle; see `LeaseBook.report`."""
        found: list[LeaseReport] = []
        for account in self.accounts.values():
            account.give_back_surplus(now)
            for lease in account.leases.values():
                last, report = lease.sent, lease.report(now)
                if report is None:
                    continue
                if report is not last:
                    self.journal.append(report)
                found.append(report)
        return tuple(found)

    def acknowledged(self, states: Iterable[LeaseState], now: float) -> None:
        """Take the coordinator's answers: durable sequences, fences, recalls. Closed leases are forgotten."""
        books = {lease.id: (account, lease) for account in self.accounts.values() for lease in account.leases.values()}
        for state in states:
            if state.lease not in books:
                continue
            account, lease = books[state.lease]
            if lease.is_copy(state):
                self.copied = True
                continue
            fenced = lease.fenced
            lease.acknowledge(state)
            if lease.fenced and not fenced:
                self.journal.append(lease.record(account.meaning))
            if lease.done:
                self.journal.append(ClosedRecord(lease.id))
                account.forget(lease)
                self._closed[lease.id] = None
        while len(self._closed) > CLOSED_REMEMBERED:
            del self._closed[next(iter(self._closed))]
        self._forget_accounts()

    def _forget_accounts(self) -> None:
        busy = self.open_attempts.accounts()
        for ref, account in list(self.accounts.items()):
            if account.limit is None and not account.leases and ref not in busy:
                del self.accounts[ref]

    def _account(self, ref: AccountRef, now: float) -> Account:
        account = self.accounts.get(ref)
        if account is None:
            account = self.accounts[ref] = Account(ref, Demand(now))
        return account


def _retire(account: Account) -> None:
    for lease in account.leases.values():
        lease.retired = True
