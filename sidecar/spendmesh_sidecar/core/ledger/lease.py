"""
One lease: what may be spent from it, what is held and used, and how that is reported.

Arithmetic only: which lease a reservation uses is the ledger's choice. All amounts are in the limit's unit.
Invariant after every call: used + held <= granted - released + overrun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.journal import LeaseRecord
from spendmesh_sidecar.core.ledger.rights import (
    AccountRef,
    AccountState,
    Lease,
    LeaseReport,
    LeaseState,
    Meaning,
    report_digest,
)


class LedgerError(RuntimeError):
    """The ledger was used against its rules: a defect of the caller, never a client's fault."""


@dataclass(slots=True)
class LeaseBook:
    """
    The sidecar's own books on one lease.

    Numbers that leave in a report only grow (`used`, `released`, `overrun`, `would_block`), so that a report may be
    lost or repeated. The next report is made only when the last one is acknowledged: until then it is repeated byte
    for byte, and a successor never names a predecessor that the coordinator has not seen.
    """

    id: str
    account: AccountRef
    granted: int
    starts_at: float
    ends_at: float
    state: AccountState | None = None
    """What the coordinator last said about the account, in this lease's period."""
    released: int = 0
    survival: int = 0
    """Rights that are kept for when the coordinator is silent; while it is, they are as any other."""
    silent: bool = False
    used: int = 0
    held: int = 0
    reservations: int = 0
    """Open ones, also those that hold nothing (a price of zero, an Observe limit without rights): each may yet cost."""
    exposed: int = 0
    """What open reservations may cost beyond what they hold, where a limit allows that; see `exposure`."""
    backing: int = 0
    """Rights that stay here as long as that lasts."""
    overrun: int = 0
    unheld: int = 0
    """Part of the overrun that was spent without rights while nobody answered."""
    would_block: int = 0
    fenced: bool = False
    retired: bool = False
    """Takes no new reservation and closes as soon as none is open."""
    superseded: bool = False
    """Granted for another unit, currency or window than the limit has now: `retired` for good."""
    kept: int = 0
    """Of its use that a coordinator does not charge which fenced it: what already waits for another lease."""
    done: bool = False
    """The closing report is acknowledged."""
    _sent: LeaseReport | None = None
    _acknowledged: bool = True
    _reported_used: int = 0

    def merge(self, lease: Lease, now: float) -> bool:
        """
        Take over a newer (or older, or repeated) message: rights by maximum, times by minimum (delay adds to them).

        `released` is not taken over: only the holder gives back. Answers whether rights came.
        """
        before = self.granted
        self.granted = max(self.granted, lease.granted)
        self.starts_at = min(self.starts_at, now + lease.starts_in_ms / 1000)
        self.ends_at = min(self.ends_at, now + lease.ends_in_ms / 1000)
        self.state = lease.state
        self.survival = lease.survival
        return self.granted > before

    def open_at(self, now: float) -> bool:
        """True while its period runs and nothing forbids a new reservation."""
        return self.starts_at <= now < self.ends_at and not (self.fenced or self.retired)

    def tells(self, now: float) -> bool:
        """Whether use that had no lease can still be told in it: it may take no reservation any more."""
        last_word = self._sent is not None and self._sent.closed
        return self.starts_at <= now < self.ends_at and not (self.fenced or self.superseded or last_word)

    def supersede(self) -> None:
        """Never spend from this lease again; it closes as soon as nothing is held."""
        self.retired = self.superseded = True

    @property
    def override(self) -> str:
        """The override that it is of; empty: of the limit's own amount."""
        return self.account.override

    @property
    def free(self) -> int:
        """Rights that may be held now; never negative (an overrun is a debt, not a right)."""
        kept = 0 if self.silent else self.survival
        return max(0, self.granted - self.released - self.used - self.held - kept)

    def hold(self, amount: int) -> None:
        """Book a reservation. Raises LedgerError if it does not fit: check and booking are one step of the ledger."""
        if amount < 0 or amount > self.free:
            raise LedgerError(f"lease {self.id} cannot hold {amount}: {self.free} is free")
        self.held += amount
        self.reservations += 1

    def hold_more(self, amount: int) -> None:
        """An open reservation grows. Raises LedgerError if it does not fit."""
        if amount < 0 or amount > self.free:
            raise LedgerError(f"lease {self.id} cannot hold {amount} more: {self.free} is free")
        self.held += amount

    def settle(self, held: int, actual: int) -> None:
        """Replace what was held by what it cost; above the reservation is overrun, and charged all the same."""
        self._let_go(held)
        self.used += actual
        self.overrun += max(0, actual - held)

    def void(self, held: int) -> None:
        """Nothing was billed: the rights are free again."""
        self._let_go(held)

    def _let_go(self, held: int) -> None:
        if self.reservations < 1 or held < 0 or held > self.held:
            raise LedgerError(f"lease {self.id} holds {self.held} for {self.reservations} calls, not {held}")
        self.held -= held
        self.reservations -= 1

    def give_back(self, amount: int) -> int:
        """Return up to `amount` of what is free; answers how much."""
        returned = min(amount, self.free, self.granted - self.released - self.backing)
        if returned <= 0:
            return 0
        self.released += returned
        return returned

    def charge_unheld(self, actual: int, without_rights: int = 0) -> None:
        """
        Book use that had no reservation here: overrun in full. An Observe budget refuses nothing; `without_rights` was
        let through because nobody answered.
        """
        self.used += actual
        self.overrun += actual
        self.unheld += without_rights

    def revive(self) -> None:
        """Undo `retired` unless the closing report was made: the account is in force again."""
        if not self.superseded and (self._sent is None or not self._sent.closed):
            self.retired = False

    def report(self, now: float) -> LeaseReport | None:
        """
        The report to send now; None once closing is acknowledged.

        The last one again while it is unacknowledged or nothing changed (the answer brings the account's state). How
        long ago its period ended is said anew each time: a coordinator that was away may need it.
        """
        if self.done:
            return None
        last = self._sent
        if last is not None and not self._acknowledged:
            return replace(last, period=self._period(now), ended_seconds=self._ended_seconds(now))
        fresh = self._next_report(now)
        if last is not None and fresh == replace(last, sequence=fresh.sequence, previous=fresh.previous):
            return last
        self._sent, self._acknowledged = fresh, False
        return fresh

    def _next_report(self, now: float) -> LeaseReport:
        last = self._sent
        return LeaseReport(
            lease=self.id,
            sequence=last.sequence + 1 if last else 1,
            previous=report_digest(last) if last else "",
            used=self.used,
            held=self.held,
            released=self.released,
            closed=self.reservations == 0 and (self.retired or self.fenced or now >= self.ends_at),
            overrun=self.overrun,
            would_block=self.would_block,
            unheld=self.unheld,
            account=None if self.superseded else self.account,
            granted=self.granted,
            period=self._period(now),
            ended_seconds=self._ended_seconds(now),
        )

    def _period(self, now: float) -> Literal["previous", "current", "next"]:
        return "previous" if now >= self.ends_at else "next" if now < self.starts_at else "current"

    def _ended_seconds(self, now: float) -> int:
        """In whole minutes, so that it is no news each time."""
        return max(0, math.ceil((now - self.ends_at) / 60) * 60)

    def acknowledge(self, state: LeaseState) -> None:
        """Take the coordinator's answer: progress, a fence, and rights that it asks back."""
        self.state = state.state or self.state
        self.survival = state.survival
        if self._sent is not None and state.sequence >= self._sent.sequence:
            self._acknowledged = True
            self._reported_used = self._sent.used
            self.done = self.done or self._sent.closed
        if state.fenced:
            self.fenced = True
        elif state.recalled:
            self.give_back(state.recalled)

    def is_copy(self, state: LeaseState) -> bool:
        """The coordinator knows a later report than we ever made: our state is a copy of another process's."""
        return state.sequence > (self._sent.sequence if self._sent else 0)

    @property
    def unreported(self) -> int:
        """Use that no acknowledged report holds yet, so that no `AccountState.settled` has it for certain."""
        return self.used - self._reported_used

    @property
    def uncharged(self) -> int:
        """Use that a coordinator does not charge which fences this lease now: beyond its rights, and not reported."""
        return self.uncharged_with(0)

    def uncharged_with(self, more: int) -> int:
        """`uncharged` once so much more is used."""
        return max(0, self.used + more - max(self.granted - self.released, self._reported_used))

    # --- in the log -------------------------------------------------------------------------------------------

    def recall_hold(self, amount: int) -> None:
        """
        What the log says to be held fitted when it was booked; an overrun may have taken its room since.

        Raises LedgerError for what cannot have fitted.
        """
        if amount < 0 or self.used + self.held + amount > self.granted - self.released + self.overrun:
            raise LedgerError(f"lease {self.id} never had room for {amount}")
        self.held += amount
        self.reservations += 1

    @property
    def sent(self) -> LeaseReport | None:
        """The last report that was made."""
        return self._sent

    def record(self, meaning: Meaning | None) -> LeaseRecord:
        """All that the log keeps of it; what is held is said by the open attempts."""
        return LeaseRecord(
            id=self.id,
            account=self.account,
            meaning=None if self.superseded else meaning,
            granted=self.granted,
            released=self.released,
            used=self.used,
            overrun=self.overrun,
            would_block=self.would_block,
            unheld=self.unheld,
            survival=self.survival,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            fenced=self.fenced,
            state=self.state,
            sent=self._sent,
        )

    def recall_record(self, record: LeaseRecord) -> None:
        """Become what the log says, but for what is held: open attempts said that before."""
        self.granted, self.released = record.granted, record.released
        self.used, self.overrun, self.would_block = record.used, record.overrun, record.would_block
        self.unheld, self.survival = record.unheld, record.survival
        self.starts_at, self.ends_at = record.starts_at, record.ends_at
        self.fenced, self.state = record.fenced, record.state
        if record.meaning is None:
            self.supersede()
        if record.sent is not None:
            self.recall_report(record.sent)

    def recall_report(self, report: LeaseReport) -> None:
        """
        A report that the log has is the last one. It is sent again until it is acknowledged, and others follow it.

        Raises LedgerError if it tells of other use than these books.
        """
        last = self._sent.sequence if self._sent else 0
        if report.used > self.used or report.overrun > self.overrun or report.sequence < last:
            raise LedgerError(f"lease {self.id}: report {report.sequence} tells more than was written before it")
        self._sent, self._acknowledged = report, False
        self.released = max(self.released, report.released)
        self.would_block = max(self.would_block, report.would_block)
        self.retired = self.retired or report.closed
