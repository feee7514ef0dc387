"""
A log read back: what its holder holds and has used, at worst. Pure.

An attempt whose end is not in the log settles at its worst case: it may have been sent, and the provider may have
billed it. What cannot be trusted is abandoned whole: the holder takes a new nonce, and the coordinator charges what
the old one held in full. Nothing is ever guessed in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.debt import by_limit
from spendmesh_sidecar.core.ledger.demand import Demand
from spendmesh_sidecar.core.ledger.journal import (
    AttemptRecord,
    ClosedRecord,
    Header,
    LeaseRecord,
    Part,
    Record,
    SettledRecord,
    UnleasedRecord,
    VoidedRecord,
)
from spendmesh_sidecar.core.ledger.journal_frames import LogDamaged, read_log
from spendmesh_sidecar.core.ledger.lease import LeaseBook, LedgerError
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef, LeaseReport, Meaning

Durability = Literal["Process", "Node"]
"""What a sent attempt's record survives: the end of the process, or also that of the node."""


class Here(Struct, frozen=True):
    """Who reads a log, where, and when."""

    pod: str
    boot: str
    """Of the running kernel; empty: not known, and then no log is of it."""
    durability: Durability
    monotonic: float
    unix: float

    def header(self, nonce: str) -> Header:
        """Of a log that begins here and now."""
        return Header(nonce=nonce, pod=self.pod, boot=self.boot, monotonic=self.monotonic, unix=self.unix)


class Abandoned(Exception):
    """
    The log is not continued; the message says why.

    `unbooked`: what it says, as far as it can be read, that was spent without a lease, by `budget/limit`. The
    coordinator charges the leases, but of that it knows nothing.
    """

    def __init__(self, why: str, unbooked: Mapping[str, int] | None = None) -> None:
        super().__init__(why)
        self.unbooked = unbooked or {}


class Recovered(Struct):
    """What a log says at its end."""

    nonce: str
    leases: dict[str, tuple[LeaseBook, Meaning | None]]
    unleased: dict[AccountRef, UnleasedRecord]
    in_flight: tuple[str, ...]
    """Reservations that were sent and have no end; they are in the leases at their worst."""
    torn_bytes: int


def recover(data: bytes, here: Here) -> Recovered:
    """The state that a log describes. Raises Abandoned."""
    replay = _Replay()
    try:
        log = read_log(data, here.boot)
        header = log.header
        if header.pod != here.pod:
            raise Abandoned("it is of another pod: this state was copied")
        for record in log.records:
            replay.take(record)
        in_flight = replay.settle_at_worst()
    except LogDamaged as damaged:
        raise Abandoned(str(damaged), _unbooked_before(damaged, here)) from damaged
    except LedgerError as error:
        raise Abandoned(str(error), replay.unbooked) from error
    same_boot = bool(here.boot) and header.boot == here.boot
    if not same_boot and here.durability == "Process":
        why = "the machine was started anew, and with durability Process its end may be missing"
        raise Abandoned(why, replay.unbooked)
    if not same_boot:
        replay.shift_times(_shift(header, here))
    return Recovered(header.nonce, replay.leases, replay.unleased, in_flight, log.torn_bytes)


def _unbooked_before(damaged: LogDamaged, here: Here) -> Mapping[str, int]:
    """Of what stands before the damage; nothing of a log that is not ours."""
    replay = _Replay()
    if damaged.before and isinstance(first := damaged.before[0], Header) and first.pod == here.pod:
        try:
            for record in damaged.before:
                if not isinstance(record, Header):
                    replay.take(record)
        except LedgerError:
            pass  # as far as it goes
    return replay.unbooked


def restore(ledger: Ledger, recovered: Recovered, now: float) -> None:
    """
    Put what was recovered into a new ledger. Policy and coordinator then say what it is still good for.

    An account's meaning is that of its newest lease; leases of another one only close.
    """
    for book, meaning in recovered.leases.values():
        account = _account(ledger, book.account.own, now)
        account.meaning = meaning or account.meaning
        account.add(book)
    for book, meaning in recovered.leases.values():
        if meaning != ledger.accounts[book.account.own].meaning:
            book.supersede()
    for ref in recovered.unleased:
        _account(ledger, ref, now)
    for ref, account in ledger.accounts.items():
        account.recall_debt(recovered.unleased.get(ref, UnleasedRecord(account=ref, amount=0)), now)


def records_of(ledger: Ledger) -> tuple[Record, ...]:
    """All that a new log has to know of a ledger."""
    found: list[Record] = []
    for account in ledger.accounts.values():
        found += [lease.record(account.meaning) for lease in account.leases.values()]
        if account.debt.unleased or account.debt.lent:
            found.append(account.debt.record(account.ref))
    found += ledger.open_attempts.records()
    return tuple(found)


class _Replay:
    """The state after each record. Raises LedgerError for a log that contradicts itself."""

    def __init__(self) -> None:
        self.leases: dict[str, tuple[LeaseBook, Meaning | None]] = {}
        self.unleased: dict[AccountRef, UnleasedRecord] = {}
        self._open: dict[str, tuple[Part, ...]] = {}

    def take(self, record: Record) -> None:
        match record:
            case AttemptRecord(reservation, parts):
                self._begin(reservation, parts)
            case SettledRecord(reservation, amounts):
                self._settle(reservation, amounts)
            case VoidedRecord(reservation):
                self._void(reservation)
            case LeaseRecord():
                self._lease(record)
            case LeaseReport():
                self._book(record.lease).recall_report(record)
            case UnleasedRecord():
                self.unleased[record.account] = record
            case ClosedRecord(lease):
                self._close(lease)

    @property
    def unbooked(self) -> dict[str, int]:
        """Use that no lease has, by `budget/limit`."""
        return by_limit((ref, waiting.amount) for ref, waiting in self.unleased.items())

    def settle_at_worst(self) -> tuple[str, ...]:
        """All that is still open; answers which."""
        in_flight = tuple(self._open)
        for reservation in in_flight:
            self._settle(reservation, tuple(part.worst for part in self._open[reservation]))
        return in_flight

    def shift_times(self, seconds: float) -> None:
        """Times of another boot, in this one's."""
        for book, _ in self.leases.values():
            book.starts_at += seconds
            book.ends_at += seconds
        for ref, record in self.unleased.items():
            self.unleased[ref] = replace(record, lent_until=record.lent_until + seconds)

    def _lease(self, record: LeaseRecord) -> None:
        known = self.leases.get(record.id)
        fresh = LeaseBook(record.id, record.account, record.granted, record.starts_at, record.ends_at)
        book = known[0] if known else fresh
        book.silent = True  # what was kept for silence may have been spent; when there was one is not in the log
        book.recall_record(record)
        self.leases[record.id] = book, record.meaning

    def _begin(self, reservation: str, parts: tuple[Part, ...]) -> None:
        if reservation in self._open:
            raise LedgerError("an attempt was begun twice")
        for part in parts:
            if part.lease:
                self._book(part.lease).recall_hold(part.held)
        self._open[reservation] = parts

    def _settle(self, reservation: str, amounts: tuple[int, ...]) -> None:
        parts = self._take(reservation)
        if len(parts) != len(amounts):
            raise LedgerError("an attempt was settled on other accounts than it was reserved on")
        for part, amount in zip(parts, amounts, strict=True):
            if part.lease:
                self._book(part.lease).settle(part.held, amount)
            elif part.account is not None:
                known = self.unleased.get(part.account, UnleasedRecord(account=part.account, amount=0))
                owed = known.owed + (amount if part.held else 0)
                self.unleased[part.account] = replace(known, amount=known.amount + amount, owed=owed)

    def _void(self, reservation: str) -> None:
        for part in self._take(reservation):
            if part.lease:
                self._book(part.lease).void(part.held)

    def _close(self, lease: str) -> None:
        if self._book(lease).reservations:
            raise LedgerError(f"lease {lease} was closed while attempts were open on it")
        del self.leases[lease]

    def _take(self, reservation: str) -> tuple[Part, ...]:
        if reservation not in self._open:
            raise LedgerError("an attempt ended that was not begun, or twice")
        return self._open.pop(reservation)

    def _book(self, lease: str) -> LeaseBook:
        if lease not in self.leases:
            raise LedgerError(f"lease {lease} is not known")
        return self.leases[lease][0]


def _shift(header: Header, here: Here) -> float:
    """
    From the monotonic clock of the header to this one, by the wall clock between them.

    A wall clock that was set may misplace a period's end here. That costs attribution, never a limit: a lease counts
    in the period that the coordinator granted it for, and the next message about it corrects the end.
    """
    elapsed = max(0.0, here.unix - header.unix)
    return here.monotonic - elapsed - header.monotonic


def _account(ledger: Ledger, ref: AccountRef, now: float) -> Account:
    return ledger.accounts.setdefault(ref, Account(ref, Demand(now)))
