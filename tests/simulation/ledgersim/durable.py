"""
What must hold of the durable books after each commit: sums, monotone counters, conservation, the limit, the invoice.

It keeps its own sums (what was billed in each period, what each lease settled) and compares. Where reality forces a
deviation (a backup was restored, a state was copied) its size is computed from what is known at that instant and
allowed, never more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledgersim.workload import budgets
from spendmesh_operator.ledger.accounts import Account, AccountKey, Lease
from spendmesh_operator.ledger.books import Books

if TYPE_CHECKING:
    from ledgersim.world import World


class Violation(AssertionError):
    """A promise of the ledger does not hold in this history; `check` says which one."""

    def __init__(self, check: str, sentence: str) -> None:
        super().__init__(f"{check}: {sentence}")
        self.check = check


@dataclass(slots=True)
class Track:
    """One account as the checker knows it."""

    charged: int = 0
    closed_used: int = 0
    billed: int = 0
    forgiven: int = 0
    """How much the books may lack: rights that a restored backup forgot."""
    written_off: int = 0
    """Closed at their whole charge, because nobody spoke for them any more."""
    leases: dict[str, Lease] = field(default_factory=dict)
    account: Account | None = None
    observed: bool = False


def _granted(charged: int, leases: Mapping[str, Lease], account: Account | None) -> int:
    """What of the charge is there by grants: copies, breaches and what a restored backup forgot come on top."""
    beyond = sum(lease.charge - lease.rights for lease in leases.values())
    return charged - beyond - (account.taken_back if account is not None else 0)


class DurableChecks:
    """Hears of each commit, and raises Violation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accounts: dict[AccountKey, Track] = defaultdict(Track)
        self.key_of: dict[str, AccountKey] = {}
        """Of every lease that was ever durable."""
        self.settled_in: dict[str, int] = defaultdict(int)
        """What each lease has settled, by the sidecar's own calls."""
        self.copies: set[str] = set()
        """Nonces that two processes speak under."""
        self.violation: Violation | None = None
        self.epoch = 0
        self._restored = False
        self._free_since: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)

    def violated(self, check: str, sentence: str) -> Violation:
        """Kept, because what is raised inside of a process is the process's to catch."""
        self.violation = self.violation or Violation(check, sentence)
        return self.violation

    def committed(self, books: Books) -> None:
        """The store holds new books."""
        world = self.world
        if books.epoch > self.epoch:
            world.happened["ledger: epoch raised"] += 1
        elif books.epoch < self.epoch and not self._restored:
            raise self.violated("epoch", f"{books.epoch} after {self.epoch}")
        self.epoch = books.epoch
        found = books.holdings.accounts
        for key, track in self.accounts.items():
            if track.account is not None and key not in found:
                self._dropped(key, track)
        for key, account in found.items():
            self._compare(key, account)
        world.trace("commit", books.epoch, [(key, account.charged) for key, account in found.items()])

    def restored(self, lost: Books, back: Books) -> None:
        """The store went back in time: what was known since may be lacking in the books, and no more than that."""
        self._restored = True
        for key, account in lost.holdings.accounts.items():
            track, older = self.accounts[key], back.holdings.accounts.get(key)
            closed = older.closed_used if older is not None else 0
            known = older.leases if older is not None else {}
            track.forgiven += max(0, account.closed_used - closed)
            track.forgiven += sum(
                max(0, lease.charge - (known[name].charge if name in known else 0))
                for name, lease in account.leases.items()
            )
        for key, track in self.accounts.items():
            older = back.holdings.accounts.get(key)
            if key not in lost.holdings.accounts and older is not None:
                track.forgiven += max(0, track.charged - older.charged)  # dropped since, and back as it was before
            track.account = older
            track.leases = dict(older.leases) if older is not None else {}
            track.charged = older.charged if older is not None else 0
            track.closed_used = older.closed_used if older is not None else 0

    def _dropped(self, key: AccountKey, track: Track) -> None:
        """An ended period is forgotten: what it came to stays as it was."""
        self.world.happened["ledger: account dropped"] += 1
        assert track.account is not None
        if any(not lease.quarantined for lease in track.leases.values()) and not self._long_ended(key, track.account):
            raise self.violated("drop", f"{key.budget}/{key.limit} was dropped with open leases before its time")
        track.forgiven += sum(lease.granted for lease in track.leases.values() if lease.holder.nonce in self.copies)
        track.account = None
        track.leases = {}

    def _compare(self, key: AccountKey, account: Account) -> None:
        track = self.accounts[key]
        track.observed = track.observed or account.mode == "Observe"
        charged, before = account.charged, track.charged
        self._check_sums(key, account)
        if account.leases != track.leases:
            self._compare_leases(key, account, track)
        elif account.closed_used != track.closed_used and not self._restored:
            raise self.violated("conservation", f"{key.budget}: closed use moved without a lease that closed")
        if charged > before and not track.observed:
            cap = self._cap(key)
            granted = _granted(charged, account.leases, account)
            if cap is not None and granted > max(cap, _granted(before, track.leases, track.account)):
                raise self.violated("charged <= limit", f"{key.budget}/{key.limit}: {before} -> {charged} of {cap}")
        track.charged, track.closed_used, track.account = charged, account.closed_used, account
        track.leases = dict(account.leases)
        self.check_invoice(key, track)
        self._note_free(key, account)

    def _check_sums(self, key: AccountKey, account: Account) -> None:
        charge = sum(lease.charge for lease in account.leases.values())
        if account.closed_used + account.corrected + charge != account.charged:
            raise self.violated("sums", f"{key.budget}/{key.limit}: {account.charged} is not the sum of its leases")
        for lease in account.leases.values():
            if lease.charge < lease.rights or lease.rights < 0 or lease.released > lease.granted:
                raise self.violated("sums", f"lease {lease.id}: charge {lease.charge}, rights {lease.rights}")

    def _cap(self, key: AccountKey) -> int | None:
        """The largest amount that any living policy says; None: nobody says any."""
        found = []
        for terms in self.world.replicas.terms_in_force():
            spec = budgets(terms, self.world.history.zone).get(key.budget)
            if spec is not None:
                found += [limit.amount for limit in spec.limits if limit.name == key.limit]
        return max(found, default=None)

    def _compare_leases(self, key: AccountKey, account: Account, track: Track) -> None:
        for name, lease in account.leases.items():
            known = self.key_of.setdefault(name, key)
            if known != key:
                self._moved(name, lease, known, key)
            before = track.leases.get(name)
            if before is not lease and before != lease:
                self._compare_lease(key, before, lease)
        gone = [lease for name, lease in track.leases.items() if name not in account.leases]
        if gone or account.closed_used != track.closed_used:
            self._check_closed(key, account, track, gone)

    def _moved(self, name: str, lease: Lease, old: AccountKey, new: AccountKey) -> None:
        """Restored books ask the holder which period a forgotten lease was of; near a boundary it may say the next."""
        if not self._restored or (old.budget, old.limit) != (new.budget, new.limit):
            raise self.violated("lease", f"{name} is in two accounts: {old} and {new}")
        self.world.happened["ledger: taken back into another period"] += 1
        self.accounts[old].forgiven += lease.granted
        self.key_of[name] = new

    def _compare_lease(self, key: AccountKey, before: Lease | None, lease: Lease) -> None:
        happened = self.world.happened
        if before is None:
            happened["ledger: grant"] += 1
            return
        for name in ("granted", "released", "used", "overrun", "would_block", "sequence"):
            if getattr(lease, name) < getattr(before, name):
                raise self.violated("monotone", f"lease {lease.id}: {name} fell")
        if before.holder != lease.holder:
            raise self.violated("lease", f"{lease.id} changed hands")
        happened["ledger: top-up"] += lease.granted > before.granted
        happened["ledger: report"] += lease.sequence > before.sequence
        happened["ledger: given back"] += lease.released > before.released
        if lease.quarantined and lease.quarantined != before.quarantined:
            happened[f"ledger: quarantined, {lease.quarantined}"] += 1
        if lease.quarantined == "breach" and not (self._restored or lease.holder.nonce in self.copies):
            raise self.violated("breach", f"lease {lease.id} is used beyond its rights: {lease}")
        if before.quarantined and not lease.quarantined:
            happened["ledger: revived"] += 1

    def _check_closed(self, key: AccountKey, account: Account, track: Track, gone: list[Lease]) -> None:
        """Conservation: a lease closes at what its holder settled; one that ended in quarantine at its charge."""
        delta = account.closed_used - track.closed_used
        if any(lease.holder.nonce in self.copies for lease in gone) or self._restored or track.observed:
            track.forgiven += sum(lease.granted for lease in gone)
            track.written_off += max(0, delta)
            self.world.happened["ledger: closed"] += len(gone)
            return
        least = most = 0
        for lease in gone:
            settled = self.settled_in[lease.id]
            self.world.happened["ledger: closed"] += 1
            in_full = lease.quarantined or self._long_ended(key, account)
            least += min(settled, lease.charge) if in_full else settled
            most += max(settled, lease.charge) if in_full else settled
        if not least <= delta <= most:
            raise self.violated(
                "conservation", f"{key.budget}/{key.limit}: leases closed at {delta}, settled {least} to {most}"
            )
        track.written_off += delta - least

    def _long_ended(self, key: AccountKey, account: Account) -> bool:
        """By the clock of some coordinator the period may be dropped: who is silent then closes at its charge."""
        newest = max(replica.process.unix() for replica in self.world.replicas.all)
        return newest >= 2 * account.end - key.start

    def check_invoice(self, key: AccountKey, track: Track) -> None:
        """No loss: what was billed is charged, at every instant."""
        if track.observed or track.billed <= track.charged + track.forgiven:
            return
        copied = sum(
            lease.granted for lease in track.leases.values() if lease.holder.nonce in self.copies and not lease.forked
        )
        if track.billed > track.charged + track.forgiven + copied:
            raise self.violated(
                "invoice <= ledger", f"{key.budget}/{key.limit}: billed {track.billed}, charged {track.charged}"
            )

    def _note_free(self, key: AccountKey, account: Account) -> None:
        noted = self._free_since[key.budget, key.limit]
        noted.append((self.world.scheduler.now, account.limit.amount - account.charged))
