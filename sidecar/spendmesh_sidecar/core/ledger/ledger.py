"""
The sidecar's rights to spend: every attempt is reserved on all its accounts in one step, and resolved once.

Holds leases that the coordinator granted and never creates a right. Makes no calls: the shell carries `wants` and
`reports` out and brings `merge`, `denied` and `acknowledged` back (protocol.py). One writer: no call may be
interrupted by another, which a single event loop gives for free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.debt import by_limit
from spendmesh_sidecar.core.ledger.demand import Demand
from spendmesh_sidecar.core.ledger.expectation import Expectations
from spendmesh_sidecar.core.ledger.exposure import cover
from spendmesh_sidecar.core.ledger.journal import Journal, NoJournal
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.lease_reports import CLOSED_REMEMBERED as CLOSED_REMEMBERED, LeaseReports
from spendmesh_sidecar.core.ledger.open_attempts import OpenAttempts
from spendmesh_sidecar.core.ledger.partitions import Partitions, fading, limits_of, may_share
from spendmesh_sidecar.core.ledger.placing import Place, again, entries_of, hold, lacking_in, place_of
from spendmesh_sidecar.core.ledger.rights import AccountRef, Assigned, Denial, Lease, LeaseReport, LeaseState, Want
from spendmesh_sidecar.core.ledger.silence import SILENCE_STANDS_SECONDS as SILENCE_STANDS_SECONDS, Silence
from spendmesh_sidecar.core.ledger.waiting import Waits, waits_of
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.core.types import Shortfall


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
        self.expectations = Expectations()
        self._reports = LeaseReports(journal)
        self._partitions = Partitions()
        self._silence = Silence()
        self._take(nonce)
        self.set_budgets(budgets, now)

    # --- policy and identity ----------------------------------------------------------------------------------

    def set_budgets(self, budgets: tuple[BudgetSpec, ...], now: float) -> None:
        """Put a policy's budgets in force. Leases of accounts that are gone close when nothing is held on them."""
        self._partitions.put_in_force(budgets)
        in_force = self._partitions.limits_of(self.accounts) | limits_of(budgets)
        for ref, (limit, enforced) in in_force.items():
            account = self._account(ref, now)
            waited = account.debt.record(account.ref)
            account.put_in_force(limit, enforced=enforced, now=now)
            if account.debt.record(account.ref) != waited:
                self.journal.append(account.debt.record(account.ref))
            if not self.draining:
                account.revive()
        for ref, account in self.accounts.items():
            if ref not in in_force:
                account.limit = None
                _retire(account)

    def adopt(self, nonce: str) -> None:
        """
        Start anew under another nonce: the coordinator fenced the old one and has charged its leases in full.

        Open reservations still resolve, in leases that are no longer reported. What was spent beyond their rights and
        not yet reported waits for the next lease.
        """
        self._take(nonce)
        self._partitions.forget()
        for account in self.accounts.values():
            for lease in account.leases.values():
                lease.fenced = True
                account.debt.keep_uncharged(lease)
            account.leases.clear()
            account.forget_denial()
        self.journal.begin()

    def _take(self, nonce: str) -> None:
        self.nonce = nonce
        self.copied = False
        self._spread = int(hashlib.sha256(nonce.encode()).hexdigest()[:8], 16) / 2**32

    def drain(self) -> None:
        """
        Shutdown: no right is spent any more; leases close as their reservations resolve. Use that has no lease yet asks
        for one without rights, so that it is in the books.
        """
        self.draining = True
        for account in self.accounts.values():
            _retire(account)

    @property
    def settled_up(self) -> bool:
        """Nothing is held, every lease is closed and acknowledged, and no use waits for one that can be asked for."""
        return not self.open_attempts and not any(
            account.leases or (account.debt.unleased and account.limit) for account in self.accounts.values()
        )

    @property
    def unbooked(self) -> dict[str, int]:
        """Use that is in no books yet, by `budget/limit`."""
        return by_limit((ref, account.debt.unleased) for ref, account in self.accounts.items())

    # --- one attempt ------------------------------------------------------------------------------------------

    def free(self, ref: AccountRef, now: float) -> int:
        """The largest reservation that fits on an account now."""
        account = self.find(ref, now)
        return account.free(now) if account else 0

    def find(self, ref: AccountRef, now: float) -> Account | None:
        """The account that stands for `ref`, if anything is known of it."""
        return self.accounts.get(self._partitions.account_of(ref, now) if ref.per else ref)

    def shortfalls(self, charges: tuple[Charge, ...], now: float) -> tuple[Shortfall, ...]:
        """What lacks for these charges to fit; books nothing."""
        return lacking_in(self._places(charges, now))

    def waits_of(self, charges: tuple[Charge, ...], now: float) -> tuple[Waits, ...]:
        """What a call with these charges waits with, see `waiting`."""
        return waits_of(self._places(charges, now), self._partitions.unplaced)

    def crowds(self, charges: tuple[Charge, ...], now: float) -> bool:
        """Whether these charges do not fit, or leave too little for the calls that wait."""
        return any(
            place.amount + self._awaited(place.account) > place.available + place.account.promised
            for place in self._places(charges, now)
            if not place.charge.observed
        )

    def reserve(self, charges: tuple[Charge, ...], reservation: str, now: float) -> tuple[Shortfall, ...]:
        """
        Hold all charges or none; empty when booked, else what lacks.

        Check and booking are one synchronous step. An observed charge never lacks: what does not fit is counted.
        Raises LedgerError for an id that is open already, and LedgerUnwritable; then nothing is booked.
        """
        places = self._places(charges, now)
        if lacking := lacking_in(places):
            return lacking
        for number, place in enumerate(places):
            account = place.account
            account.demand.note(place.amount, now)
            if place.charge.observed:
                account.note_would_block(place.amount, now)
                self._carry_over(account, now)
                places[number] = again(place)
        entries = entries_of(places)
        self.open_attempts.add(reservation, entries)
        hold(entries)
        return ()

    def settle(self, reservation: str, actual: Quantities, now: float) -> None:
        """
        Replace what is held by what it cost. Above the reservation is recorded as overrun, and charged.

        Raises LedgerError unless the reservation is open: each resolves exactly once.
        """
        above = False
        for entry, amount in self.open_attempts.settle(reservation, actual):
            above = above or amount > entry.worst
            if entry.lease is not None:
                entry.lease.settle(entry.held, amount)
                if entry.exposed:
                    cover(entry)
                if not entry.lease.fenced or entry.lease.id in entry.account.leases:
                    continue
                entry.account.debt.keep_uncharged(entry.lease)
                self.journal.append(entry.account.debt.record(entry.account.ref))
            elif entry.borrowed:
                entry.account.debt.repay(entry.held, amount)
            else:
                entry.account.debt.unleased += amount
            self._carry_over(entry.account, now)
        if above:
            self.journal.hurry()

    def void(self, reservation: str) -> None:
        """Nothing was billed: free what is held. Raises LedgerError unless the reservation is open."""
        for entry in self.open_attempts.void(reservation):
            if entry.lease is not None:
                entry.lease.void(entry.held)
                cover(entry)
            elif entry.borrowed:
                entry.account.debt.repay(entry.held, 0)

    def unverified(self, reservation: str) -> bool:
        """Whether part of an open reservation goes without rights."""
        return self._silence.lasts and any(entry.borrowed for entry in self.open_attempts.entries(reservation))

    @property
    def open_reservations(self) -> int:
        """Attempts that are not resolved; 0 when all is quiet."""
        return len(self.open_attempts)

    def _awaited(self, account: Account) -> int:
        """What calls that wait need of an account, and those that may turn out to be counted on it."""
        ref = account.ref
        unplaced = self._partitions.unplaced(ref).awaited if ref.per and not may_share(ref) else 0
        return account.awaited + unplaced

    def _places(self, charges: tuple[Charge, ...], now: float) -> list[Place]:
        return [place_of(charge, self._account(charge.account, now), now) for charge in charges]

    def _carry_over(self, account: Account, now: float) -> None:
        if (lease := account.carry_over(now)) is not None:
            self.journal.append(lease.record(account.meaning))
            self.journal.append(account.debt.record(account.ref))

    # --- rights from the coordinator --------------------------------------------------------------------------

    def merge(self, lease: Lease, now: float) -> bool:
        """
        Take over a lease message, new, repeated or late. False: not ours, closed before, or of another meaning.

        One of another meaning, or of a limit that no policy had, is only kept to be closed.
        """
        if lease.nonce != self.nonce or self._reports.named_closed(lease.id):
            return False
        ref = lease.account
        account = self._named(ref.own, now)
        usable = account.meaning is not None and account.meaning.pays(lease)
        book = account.leases.get(lease.id)
        if book is not None:
            usable = usable and not book.superseded
            grown = book.merge(lease, now)
        else:
            starts_at, ends_at = now + lease.starts_in_ms / 1000, now + lease.ends_in_ms / 1000
            book = LeaseBook(lease.id, lease.account, lease.granted, starts_at, ends_at, lease.state, lease.released)
            book.retired = account.limit is None or self.draining or not account.has(ref.override)
            book.survival = lease.survival
            grown = True
            account.add(book)
        if not usable:
            book.supersede()
        self.journal.append(book.record(account.meaning))
        if not usable:
            return False
        if grown:
            account.forget_denial()
        self._silence.end(self.accounts.values())
        self._carry_over(account, now)
        return True

    def spends(self, lease: Lease, now: float) -> bool:
        """Whether calls can spend from the lease of this message: it has not ended, and is not closed or given up."""
        account = self.accounts.get(lease.account.own)
        book = account.leases.get(lease.id) if account is not None else None
        return book is not None and book.open_at(now)

    def denied(self, denials: Iterable[Denial], now: float, shortfalls: tuple[Shortfall, ...] = ()) -> None:
        """Remember refusals; with the shortfalls of the call that heard them, others need not ask the same at once."""
        denials = tuple(denials)
        if denials:
            self._silence.end(self.accounts.values())
        needs = {lack.account: lack.need for lack in shortfalls}
        for denial in denials:
            self._account(denial.account, now).denied(denial, needs.get(denial.account, 0), now)

    def assign(self, assigned: Iterable[Assigned], now: float) -> None:
        """The coordinator's word on values of divided limits that share an account. Bring it before the leases."""
        self._partitions.assign(assigned, now)

    def standing_denials(self, shortfalls: tuple[Shortfall, ...], now: float) -> tuple[Denial, ...]:
        """Refusals so fresh that asking again would be a wasted round trip."""
        found = (self._account(lack.account, now).standing_denial(lack.need, now) for lack in shortfalls)
        return tuple(denial for denial in found if denial is not None)

    def period_ended(self, charges: tuple[Charge, ...], since: float, now: float) -> bool:
        """Whether the period of an account that these count on has ended since; see `Account.period_ended`."""
        return any(self._account(charge.account, now).period_ended(since, now) for charge in charges)

    def unanswered(self, now: float) -> None:
        """A question about rights brought no answer in time: what limits keep for that is free until one comes."""
        self._silence.begin(self.accounts.values(), now)

    def silent(self, now: float) -> bool:
        """The coordinator did not answer a moment ago."""
        return self._silence.stands(now)

    def wants(self, now: float) -> tuple[Want, ...]:
        """Top-ups that are due, for this period and, near its end, for the next. Asking is remembered."""
        if self.draining:
            return tuple(filter(None, (account.want_to_tell(now) for account in self.accounts.values())))
        return tuple(want for account in self.accounts.values() for want in account.wants(now, self._spread))

    def wants_for(self, shortfalls: Iterable[Shortfall], now: float) -> tuple[Want, ...]:
        """What to ask for calls that wait: one want for each account."""
        lacking: dict[AccountRef, list[Shortfall]] = {}
        for lack in shortfalls:
            lacking.setdefault(self._counted_on(lack.account, now), []).append(lack)
        return tuple(self._named(ref, now).want_for(tuple(calls), now) for ref, calls in lacking.items())

    # --- reports to the coordinator ---------------------------------------------------------------------------

    def reports(self, now: float) -> tuple[LeaseReport, ...]:
        """
        One report for each lease, and first the return of what has been idle; see `LeaseBook.report`.

        The last word on a closed lease comes again after the coordinator has named it as open.
        """
        for account in fading(self.accounts.values(), self.open_attempts.accounts(), now):
            if account.leases:
                _retire(account)
            elif not account.debt.lends(now):
                del self.accounts[account.ref]
        return self._reports.due(self.accounts.values(), now)

    def acknowledged(self, states: Iterable[LeaseState], now: float) -> None:
        """Take the coordinator's answers: durable sequences, fences, recalls. Closed leases are forgotten."""
        self._silence.end(self.accounts.values())
        if not self._reports.acknowledged(self.accounts.values(), states, now):
            self.copied = True
        self._forget_accounts(now)

    def _forget_accounts(self, now: float) -> None:
        busy = self.open_attempts.accounts()
        for ref, account in list(self.accounts.items()):
            needed = account.limit or account.leases or account.debt.waits or account.debt.lends(now) or ref in busy
            if not needed:
                del self.accounts[ref]

    def _account(self, ref: AccountRef, now: float) -> Account:
        return self._named(self._counted_on(ref, now), now)

    def _counted_on(self, ref: AccountRef, now: float) -> AccountRef:
        """Values that share an account have one name for it."""
        return self._partitions.account_of(ref, now) if ref.per else ref

    def _named(self, ref: AccountRef, now: float) -> Account:
        """The account of just this name, whichever one its calls are counted on now."""
        account = self.accounts.get(ref)
        if account is None:
            account = self.accounts[ref] = Account(ref, Demand(now), silent=self._silence.lasts)
            if (divided := self._partitions.limit_of(ref)) is not None:
                account.put_in_force(divided[0], enforced=divided[1], now=now)
        return account


def _retire(account: Account) -> None:
    for lease in account.leases.values():
        lease.retired = True
