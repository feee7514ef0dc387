"""
Accounts and leases with their indexes, and the few steps by which they may change. Pure.

Each step keeps the indexes and the sums, counts a `revision` that must become durable, and never decides who gets
what: that is `granting` and `reporting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from spendmesh_operator.ledger.books.accounts import (
    Account,
    AccountKey,
    InvariantViolated,
    Lease,
    LimitInForce,
    QuarantineReason,
    terms_of,
)
from spendmesh_operator.ledger.books.milestones import amount_changed
from spendmesh_operator.ledger.books.partitions import Division
from spendmesh_operator.ledger.books.rolling import Beside, beside
from spendmesh_operator.ledger.document.pages import Pages

FORGOTTEN_PER_PAGE = 512
"""Limits of which ended periods were dropped; some 100 bytes each."""
CATCH_UP = 2
"""
How much faster than time itself the books follow a clock that is ahead of them. An ended period is kept for its own
length, so it may not be more: a clock that jumps ahead in a period cannot make the books drop it before it is over.
"""
DOUBT_MS = 86_400_000
"""A clock that is so far ahead of the books is told: either nobody kept them for so long, or it is wrong."""
NOTE_MS = 3_600_000
"""The time that the books believe becomes durable with other changes, or after so long."""


@dataclass(slots=True)
class PeriodAccounts:
    """All accounts of one limit in one period: one, or many if the limit is divided. They have one meaning."""

    keys: set[AccountKey] = field(default_factory=set)
    division: Division = field(default_factory=Division)

    def add(self, account: Account) -> None:
        """Count an account."""
        self.keys.add(account.key)
        if not account.key.override:
            self.division.count += 1
            self.division.opened[account.opened_by] += 1

    def remove(self, account: Account) -> None:
        """Count it no more."""
        self.keys.discard(account.key)
        if account.key.override:
            return
        self.division.count -= 1
        opened = self.division.opened
        opened[account.opened_by] -= 1
        if not opened[account.opened_by]:
            del opened[account.opened_by]


class Holdings:
    """All accounts of one ledger domain."""

    def __init__(self) -> None:
        self.accounts: dict[AccountKey, Account] = {}
        self.forgotten_before: dict[tuple[str, str], int] = {}
        """(budget, limit) -> start of the newest period that was dropped: it can never be opened again."""
        self.forgotten_pages: Pages[tuple[str, str]] = Pages(FORGOTTEN_PER_PAGE)
        self.believed_ms = 0
        """Unix time that the books believe to have come; 0: not known yet. Only what has ended by it is dropped."""
        self.revision = 0
        self.changed: set[AccountKey] = set()
        """Accounts with pages that must be written."""
        self.dropped: dict[AccountKey, int] = {}
        """Accounts whose stored pages must go, with the number of their pages."""
        self.alarms: list[str] = []
        """Sentences for the log and the metric, taken out by whoever tells them."""
        self.frozen: set[AccountKey] = set()
        """Accounts whose sums did not hold: they grant nothing until the books are read afresh."""
        self.noted_ms = 0
        """What of it is worth a write."""
        self._doubts = False
        self._key_of_lease: dict[str, AccountKey] = {}
        self._leases_of_pod: dict[str, set[str]] = {}
        self._silenced: set[str] = set()
        """Pods some of whose leases may open again at a sign of life."""
        self._periods: dict[tuple[str, str], dict[tuple[int, int], PeriodAccounts]] = {}

    # --- finding ------------------------------------------------------------------------------------------

    def account_of(self, lease_id: str) -> Account | None:
        """The account of a lease that is not closed."""
        key = self._key_of_lease.get(lease_id)
        return self.accounts[key] if key is not None else None

    def periods_of(self, budget: str, limit: str) -> Iterator[Account]:
        """All accounts of a limit, in any period and for any `per` value."""
        periods = self._periods.get((budget, limit), {})
        return (self.accounts[key] for period in periods.values() for key in period.keys)

    def period_samples(self, budget: str, limit: str) -> Iterator[Account]:
        """
        One account of each period of a limit on which anything is booked, overrides left out: all of one period have
        the same meaning.
        """
        for period in self._periods.get((budget, limit), {}).values():
            own = (self.accounts[key] for key in period.keys if not key.override)
            if (booked := next((account for account in own if not account.blank), None)) is not None:
                yield booked

    def division(self, budget: str, limit: str, start: int, end: int) -> Division:
        """How many accounts a limit has in a period; to be read."""
        period = self._periods.get((budget, limit), {}).get((start, end))
        return period.division if period is not None else Division()

    def leases_of(self, uids: Iterable[str]) -> list[tuple[Account, Lease]]:
        """All leases of these pods that are not closed."""
        found = []
        for uid in uids:
            for lease_id in sorted(self._leases_of_pod.get(uid, ())):
                account = self.accounts[self._key_of_lease[lease_id]]
                found.append((account, account.leases[lease_id]))
        return found

    def lease_ids(self) -> Iterator[str]:
        """All leases that are not closed."""
        return iter(self._key_of_lease)

    def beside(self, account: Account) -> Beside:
        """What counts together with an account (or a draft of one)."""
        return beside(self.accounts, account)

    def holders(self) -> frozenset[str]:
        """Uids of the pods that have a lease."""
        return frozenset(self._leases_of_pod)

    # --- changing -----------------------------------------------------------------------------------------

    def add_account(self, account: Account) -> None:
        """Open an account, with the leases that it may already have (from the stored document)."""
        self.accounts[account.key] = account
        self._periods_of(account).setdefault((account.key.start, account.end), PeriodAccounts()).add(account)
        for lease in list(account.leases.values()):
            self._index(account, lease)
        self.touch(account)

    def touch(self, account: Account) -> None:
        """Something of the account itself has changed: its first page must be written."""
        account.pages.changed.add(0)
        self._changed(account)

    def put(self, account: Account, lease: Lease) -> None:
        """Add or replace a lease."""
        account.put(lease)
        self._index(account, lease)
        self._changed(account)

    def close(self, account: Account, lease: Lease, used: int) -> None:
        """Settle a lease; what it did not use is free again."""
        charged = account.charged
        account.close(lease.id, used)
        del self._key_of_lease[lease.id]
        leases = self._leases_of_pod[lease.holder.uid]
        leases.discard(lease.id)
        if not leases:
            del self._leases_of_pod[lease.holder.uid]
            self._silenced.discard(lease.holder.uid)
        self._changed(account)
        if account.charged > charged:
            self.alarm(f"lease {lease.id}: closing it raised what {account.name} is charged")

    def quarantine(self, account: Account, lease: Lease, reason: QuarantineReason) -> bool:
        """Charge a lease in full and grant on it no more. A reason that a sign of life ends may get worse."""
        if lease.quarantined and not (lease.returns and lease.quarantined != reason != "silent"):
            return False
        self.put(account, replace(lease, quarantined=reason))
        return True

    def revive(self, uid: str, nonce: str) -> None:
        """End the quarantines that only silence had caused: their charge was never given back."""
        if uid not in self._silenced:
            return
        self._silenced.discard(uid)
        for account, lease in self.leases_of([uid]):
            if lease.holder.nonce == nonce and lease.returns:
                self.put(account, replace(lease, quarantined=""))
            elif lease.returns:
                self._silenced.add(uid)

    def refresh(self, account: Account, in_force: LimitInForce) -> None:
        """Let a changed amount, threshold or mode act at once, unless another cluster says something else."""
        if not in_force.differs and terms_of(account.limit, account.mode) != terms_of(in_force.limit, in_force.mode):
            account.limit, account.mode = in_force.limit, in_force.mode
            amount_changed(account, self.beside(account))
            self.touch(account)

    def resume(self, believed_ms: int) -> None:
        """What was believed when the books were written."""
        self.believed_ms = self.noted_ms = believed_ms

    def begin(self, now_ms: int) -> None:
        """
        A coordinator begins: before anything is booked, books that never said how far they are must believe something.

        Later a clock that is wrong may have opened periods of its own, which say nothing of the time.
        """
        if not self.believed_ms:
            starts = [key.start * 1000 for key in self.accounts]
            self.resume(max(starts, default=now_ms))
            self._doubts = True  # nothing to tell: the newest period may have begun long ago

    def believe(self, now_ms: int, elapsed_ms: int) -> None:
        """
        The clock reads `now_ms`, and by a clock that never jumps `elapsed_ms` have passed since the last time.

        A clock that goes back is believed at once: that only keeps more. One that is ahead is followed slowly, since
        nothing that it makes the books drop can be had again.
        """
        self.believed_ms = min(now_ms, self.believed_ms + CATCH_UP * elapsed_ms)
        if abs(self.believed_ms - self.noted_ms) >= NOTE_MS:
            self.noted_ms = self.believed_ms
            self.revision += 1
        ahead_ms = now_ms - self.believed_ms
        if ahead_ms > DOUBT_MS and not self._doubts:
            hours = ahead_ms // 3_600_000
            self.alarm(f"the clock is {hours} hours ahead of the books; no period that ended since is dropped yet")
        self._doubts = ahead_ms > DOUBT_MS

    def drop_ended(self) -> None:
        """
        Drop accounts whose leases are closed and that have ended to count as long ago as they did.

        A lease that is quarantined until then is settled at its whole charge. An account of a divided limit, or
        of an override, on which nothing was ever booked goes at once: values without spend take no room.
        """
        for key, account in list(self.accounts.items()):
            if (key.per or key.override) and account.blank:
                self.drop(account)
                continue
            if self.believed_ms < (2 * account.counts_until - key.start) * 1000:
                continue
            for lease in [lease for lease in account.leases.values() if lease.quarantined]:
                self.close(account, lease, lease.charge)
            if not account.leases:
                self.drop(account)
                self.forgotten_before[key.lineage] = max(key.start, self.forgotten_before.get(key.lineage, 0))
                self.forgotten_pages.note(key.lineage)

    def drop(self, account: Account) -> None:
        """Take an account out of the books, with its stored pages."""
        del self.accounts[account.key]
        periods, span = self._periods_of(account), (account.key.start, account.end)
        periods[span].remove(account)
        if not periods[span].keys:
            del periods[span]
        if not periods:
            del self._periods[account.key.budget, account.key.limit]
        self.changed.discard(account.key)
        # It may have been dropped, with more pages, and opened again since the last write.
        self.dropped[account.key] = max(len(account.pages), self.dropped.get(account.key, 0))
        self.revision += 1

    def _changed(self, account: Account) -> None:
        self.changed.add(account.key)
        self.revision += 1

    def _periods_of(self, account: Account) -> dict[tuple[int, int], PeriodAccounts]:
        return self._periods.setdefault((account.key.budget, account.key.limit), {})

    def _index(self, account: Account, lease: Lease) -> None:
        self._key_of_lease[lease.id] = account.key
        self._leases_of_pod.setdefault(lease.holder.uid, set()).add(lease.id)
        if lease.returns:
            self._silenced.add(lease.holder.uid)

    # --- checking -----------------------------------------------------------------------------------------

    def verify(self, account: Account) -> None:
        """I7: the sums are those of the leases. Raises InvariantViolated."""
        if account.recount() != account.totals:
            raise InvariantViolated(f"{account.name}: sums differ from the leases that they are of")

    def freeze(self, account: Account, violated: InvariantViolated) -> None:
        """Stop grants of one account, and say so once."""
        if account.key not in self.frozen:
            self.frozen.add(account.key)
            self.alarm(str(violated))

    def alarm(self, sentence: str) -> None:
        """Something that an operator of the platform must hear."""
        self.alarms.append(sentence)
