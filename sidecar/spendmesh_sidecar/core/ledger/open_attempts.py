"""
Attempts between reservation and bill: what each holds on which lease, in the log before it is sent, resolved once.

No amount is decided here; the ledger says what is held, and applies what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.charges import Quantities
from spendmesh_sidecar.core.ledger.journal import AttemptRecord, Journal, Part, SettledRecord, VoidedRecord
from spendmesh_sidecar.core.ledger.lease import LeaseBook, LedgerError
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.specs import Unit


class Entry(Struct, gc=False):
    """One attempt's part on one account. It is settled in the lease, and so the period, it was made in."""

    account: Account
    lease: LeaseBook | None
    worst: int
    held: int
    unit: Unit
    dearer: bool
    """Settled at the dearer cost too."""
    partial: bool = False
    """The rest is in the next entry, on the same account."""
    borrowed: bool = False
    """Held without rights, while nobody answers."""
    exposed: int = 0
    """Part of `worst` that is not held though it is enforced."""

    @property
    def counts(self) -> bool:
        """Of one without a lease: its use waits for one, unless the account has taken on another unit since."""
        return self.account.meaning is None or self.account.meaning.unit == self.unit


class OpenAttempts:
    """All reservations that are not resolved."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[str, tuple[Entry, ...]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def add(self, reservation: str, entries: tuple[Entry, ...]) -> None:
        """
        An attempt is about to be sent. Raises LedgerUnwritable, and then it must not be: nothing has changed.

        Raises LedgerError for an id that is open already.
        """
        if reservation in self._entries:
            raise LedgerError(f"reservation {reservation} is open already")
        if entries:
            self._journal.commit(AttemptRecord(reservation, tuple([_live_part(entry) for entry in entries])))
        self._entries[reservation] = entries

    def settle(self, reservation: str, actual: Quantities) -> tuple[tuple[Entry, int], ...]:
        """Take an attempt out; what it cost in each entry's unit. Raises LedgerError unless it is open."""
        entries = self._take(reservation)
        amounts = _amounts(entries, actual)
        if entries:
            logged = tuple([_logged(entry, amount) for entry, amount in zip(entries, amounts, strict=True)])
            self._journal.append(SettledRecord(reservation, logged))
        return tuple(zip(entries, amounts, strict=True))

    def void(self, reservation: str) -> tuple[Entry, ...]:
        """Take an attempt out that cost nothing. Raises LedgerError unless it is open."""
        entries = self._take(reservation)
        if entries:
            self._journal.append(VoidedRecord(reservation))
        return entries

    def entries(self, reservation: str) -> tuple[Entry, ...]:
        """Of an open attempt; none if it is not open."""
        return self._entries.get(reservation, ())

    def accounts(self) -> set[AccountRef]:
        """Accounts that an open attempt has a part on."""
        return {entry.account.ref for entries in self._entries.values() for entry in entries}

    def records(self) -> Iterator[AttemptRecord]:
        """
        What a new log has to know of them. Of parts in leases that are no longer ours somebody else has charged what
        was held.
        """
        for reservation, entries in self._entries.items():
            if entries:
                yield AttemptRecord(reservation, tuple(_part(entry) for entry in entries))

    def _take(self, reservation: str) -> tuple[Entry, ...]:
        try:
            return self._entries.pop(reservation)
        except KeyError:
            raise LedgerError(f"reservation {reservation} is not open: never made, or resolved before") from None


def _amounts(entries: tuple[Entry, ...], actual: Quantities) -> list[int]:
    """What each entry cost: parts are filled in their order, the rest and any overrun is the last one's."""
    filled, amounts = 0, []
    for entry in entries:
        leased = entry.lease is not None
        amount = actual.in_unit(entry.unit, dearer=entry.dearer) - filled if leased or entry.counts else 0
        if entry.partial:
            amount = min(amount, entry.held)
        filled = filled + amount if entry.partial else 0
        amounts.append(amount)
    return amounts


def _live_part(entry: Entry) -> Part:
    if entry.lease is None:
        return Part("", entry.worst, entry.held, entry.account.ref)
    return Part(entry.lease.id, entry.worst, entry.held)


def _part(entry: Entry) -> Part:
    lease = entry.lease
    if lease is None or lease.id in entry.account.leases:
        return _live_part(entry)
    crowded_out = min(entry.held, lease.uncharged_with(lease.held))
    beyond = 0 if lease.superseded else entry.worst - entry.held + crowded_out
    return Part("", beyond, 0, entry.account.ref)


def _logged(entry: Entry, amount: int) -> int:
    """Of a part that has cost `amount`, what a log has to know that may have begun since its lease was ours."""
    lease = entry.lease
    if lease is None or lease.id in entry.account.leases:
        return amount
    return 0 if lease.superseded else lease.uncharged_with(amount) - lease.kept
