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

from ledgersim.rows import RowChecks, granted_of
from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Lease
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.periods import Span
from spendmesh_sidecar.core.ledger.partitions import OTHER
from spendmesh_sidecar.core.specs import LimitSpec

if TYPE_CHECKING:
    from ledgersim.disk import Written
    from ledgersim.world import World


Noted = tuple[float, int]
"""From when on, and how much."""
ALWAYS = Span(0, 2**62)
"""Of a rolling window: what is charged in one of its parts is missing in all that count with it."""


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


class DurableChecks(RowChecks):
    """Hears of each commit, and raises Violation."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.accounts: dict[AccountKey, Track] = defaultdict(Track)
        self.key_of: dict[str, AccountKey] = {}
        """Of every lease that was ever durable."""
        self.settled_in: dict[str, int] = defaultdict(int)
        """What each lease has settled, by the sidecar's own calls."""
        self.copies: set[str] = set()
        """Nonces that two processes speak under."""
        self._epochs: dict[str, int] = {}
        """The newest of each cluster."""
        self._restored = False
        self._free_since: dict[tuple[str, str, tuple[str, ...]], dict[Span, list[Noted]]] = defaultdict(dict)
        """By limit and value, and by period: what was left, and since when."""

    def committed(self, written: Written) -> None:
        """The store holds new books."""
        world, before = self.world, self._epochs.get(written.member, 0)
        if written.epoch > before:
            world.happened["ledger: epoch raised"] += 1
        elif written.epoch < before and not self._restored:
            raise self.violated("epoch", f"{written.epoch} after {before}")
        self._epochs[written.member] = written.epoch
        for key in sorted(written.dropped):
            self._dropped(key, self.accounts[key])
        for key, account in written.accounts.items():
            self._compare(key, account)
        self.check_rows(written)
        self.check_values(written)
        for account in written.accounts.values():
            self._note_free(account)
        charged = [(key, account.charged) for key, account in written.accounts.items()]
        world.trace("commit", written.member, written.epoch, charged)

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
            track.forgiven += max(0, self._copied(account.leases) - self._copied(known))
        for key, track in self.accounts.items():
            older = back.holdings.accounts.get(key)
            if key not in lost.holdings.accounts and older is not None:
                track.forgiven += max(0, track.charged - older.charged)  # dropped since, and back as it was before
            track.account = older
            track.leases = dict(older.leases) if older is not None else {}
            track.charged = older.charged if older is not None else 0
            track.closed_used = older.closed_used if older is not None else 0
        self.forget_rows(back)

    def _dropped(self, key: AccountKey, track: Track) -> None:
        """
        An ended period is forgotten: what it came to stays as it was. A value's account on which nothing was ever
        spent is forgotten at once, and may be opened again, also twice between two commits.
        """
        if track.account is None:
            return
        self.world.happened["ledger: account dropped"] += 1
        if key.per and not track.closed_used and not any(self.settled_in[lease] for lease in track.leases):
            self.world.happened["ledger: blank account dropped"] += 1
            track.charged, track.account, track.leases = 0, None, {}
            return
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
            cap = self.cap(key)
            granted = granted_of(charged, account.leases, account)
            if cap is not None and granted > max(cap, granted_of(before, track.leases, track.account)):
                raise self.violated("charged <= limit", f"{key.budget}/{key.limit}: {before} -> {charged} of {cap}")
        track.charged, track.closed_used, track.account = charged, account.closed_used, account
        track.leases = dict(account.leases)
        self.check_invoice(key, track)

    def _check_sums(self, key: AccountKey, account: Account) -> None:
        charge = sum(lease.charge for lease in account.leases.values())
        if account.closed_used + account.corrected + charge != account.charged:
            raise self.violated("sums", f"{key.budget}/{key.limit}: {account.charged} is not the sum of its leases")
        for lease in account.leases.values():
            if lease.charge < lease.rights or lease.rights < 0 or lease.released > lease.granted:
                raise self.violated("sums", f"lease {lease.id}: charge {lease.charge}, rights {lease.rights}")

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
        newest = max(replica.process.unix() for replica in self.world.replicas())
        return newest >= 2 * account.counts_until - key.start

    def check_invoice(self, key: AccountKey, track: Track) -> None:
        """No loss: what was billed is charged, at every instant."""
        if track.observed or track.billed <= track.charged + track.forgiven:
            return
        if track.billed > track.charged + track.forgiven + self._copied(track.leases):
            raise self.violated(
                "invoice <= ledger", f"{key.budget}/{key.limit}: billed {track.billed}, charged {track.charged}"
            )

    def _copied(self, leases: Mapping[str, Lease]) -> int:
        """What may be spent twice, until somebody notices."""
        return sum(lease.granted for lease in leases.values() if lease.holder.nonce in self.copies and not lease.forked)

    def _note_free(self, account: Account) -> None:
        key = account.key
        period = account.span if account.limit.window.type == "Calendar" else ALWAYS
        noted = self._free_since[key.budget, key.limit, key.per].setdefault(period, [])
        noted.append((self.world.scheduler.now, account.limit.amount - account.charged - self.charged_beside(account)))

    def least_free(self, budget: str, limit: LimitSpec, user: str, since: float) -> int:
        """
        What the accounts that a user's calls may be counted on had at least left, since a true time, in the periods
        that ran meanwhile.
        """
        began, found = self.world.history.base_unix, []
        for per in {(user,), (OTHER,)} if limit.per else {()}:
            for period, noted in self._free_since[budget, limit.name, per].items():
                if began + since < period.end and period.start <= began + self.world.scheduler.now:
                    at_first = [free for at, free in noted if at < since][-1:]
                    found += at_first + [free for at, free in noted if at >= since]
        return min(found, default=limit.amount)
