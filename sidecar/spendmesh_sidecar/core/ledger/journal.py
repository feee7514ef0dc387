"""
What the sidecar's write-ahead log says, and where the ledger says it. Data and two interfaces; no bytes, no files.

The log holds what this holder may still spend and what it has spent, so that a killed sidecar continues its leases.
An attempt's record is there before its first byte leaves; one without an end costs its worst case at the next start.
`journal_frames` turns records into bytes, `recovery` turns them into the state that they describe.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, LeaseReport, Meaning

FORMAT = 1
"""Raised when older code could misread a log. A field that may be missing does not raise it."""


class LedgerUnwritable(RuntimeError):
    """The log cannot be written, so nothing that costs may be sent; the message says why. Nothing was booked."""


class Header(Struct, frozen=True, kw_only=True):
    """The first record of a file: whose it is, and by which clocks its times are."""

    format: int = FORMAT
    nonce: str
    """Of the holder. Born with the file, and as old as it."""
    pod: str = ""
    """Who wrote it; a copy in another pod's hands is of no use there."""
    boot: str = ""
    """Of the kernel: `monotonic` means the same as long as it runs, and what was written to a file is not lost."""
    monotonic: float
    unix: float
    """The same moment on the wall clock."""


class LeaseRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lease as it is now, in place of all that was said of it before but for what open attempts hold."""

    id: str
    account: AccountRef
    meaning: Meaning | None = None
    """Of its amounts; None: of a limit that no policy has, only kept to be closed."""
    granted: int
    released: int = 0
    used: int = 0
    overrun: int = 0
    would_block: int = 0
    unheld: int = 0
    survival: int = 0
    starts_at: float
    ends_at: float
    """Monotonic seconds, as in the header."""
    fenced: bool = False
    state: AccountState | None = None
    sent: LeaseReport | None = None
    """The last report that was made."""


class Part(Struct, frozen=True, array_like=True):
    """What an attempt takes from one account."""

    lease: str
    """Empty: from none, either under an Observe limit without rights, or in a lease that is no longer ours."""
    worst: int
    """The bound that was proven; what an attempt costs whose end is not known."""
    held: int
    """Rights that are booked for it: `worst`, or less under an Observe limit. Without a lease: of an allowed cap."""
    account: AccountRef | None = None
    """Of a part without a lease."""


class AttemptRecord(Struct, frozen=True, array_like=True):
    """An attempt that is reserved on all its accounts and sent next: RESERVE and DISPATCH of the protocol in one."""

    reservation: str
    parts: tuple[Part, ...]


class SettledRecord(Struct, frozen=True, array_like=True):
    """What an attempt cost on each of its accounts, in the order of its parts."""

    reservation: str
    amounts: tuple[int, ...]


class VoidedRecord(Struct, frozen=True, array_like=True):
    """An attempt that cost nothing."""

    reservation: str


class UnleasedRecord(Struct, frozen=True, kw_only=True):
    """Use that no lease has yet, observed or without rights in a silence; replaces what was said of it before."""

    account: AccountRef
    amount: int
    owed: int = 0
    """Part of it that was let through because nobody answered."""
    lent: int = 0
    """What was let through likewise and is told in leases that are closed: part of the cap until `lent_until`."""
    lent_until: float = 0.0


class ClosedRecord(Struct, frozen=True, array_like=True):
    """A lease whose closing report is acknowledged: it is no more."""

    lease: str


Record = LeaseRecord | AttemptRecord | SettledRecord | VoidedRecord | LeaseReport | UnleasedRecord | ClosedRecord
"""A `LeaseReport` is written as it is sent, and before it is sent."""


class Journal(Protocol):
    """Where the ledger writes. Records count in the order in which they were given."""

    def append(self, record: Record) -> None:
        """Write soon: with the next `commit`, or a moment later. Lost with a crash, it errs towards more spend."""

    def hurry(self) -> None:
        """Write what was appended, now if that is possible: lost, it would err towards less spend. Never raises."""

    def commit(self, record: Record) -> None:
        """Write this and all before it, now. Raises LedgerUnwritable; then the record is not in the log."""

    def begin(self) -> None:
        """The ledger has a new nonce: begin a new log with what it has now. Never raises."""


class NoJournal:
    """For a ledger that keeps nothing over a crash: what it holds then stays charged until its period ends."""

    def append(self, record: Record) -> None:
        """Nothing is written."""

    def hurry(self) -> None:
        """Nothing is written."""

    def commit(self, record: Record) -> None:
        """Nothing is written."""

    def begin(self) -> None:
        """Nothing is written."""
