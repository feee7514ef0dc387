"""
A small world around the books: sidecars with their own log, a wire that loses, repeats and reorders, coordinators
that crash and race on one store, and a provider that keeps its own invoice. Drawn by Hypothesis or by a seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from msgspec.structs import replace

from ledger_desk import begun
from ledger_samples import REF, START_MS, budget, limits_of
from spendmesh_operator.ledger.books.accounts import AccountKey, Holder, HolderFenced
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.document.sections import Document, decode, encode, take_changes
from spendmesh_sidecar.protocol import (
    AcquireReply,
    AcquireRequest,
    Lease,
    LeaseReport,
    ReportReply,
    ReportRequest,
    Want,
    report_digest,
)

AMOUNT = 1000
HOUR_MS = 3_600_000
PODS = ("pod-a", "pod-b", "pod-c")
Crash = Literal["", "before commit", "after commit"]


class Violation(AssertionError):
    """A promise of the ledger does not hold in this history."""


@dataclass
class Held:
    """One attempt under way: what is reserved, and what the provider will have billed."""

    worst: int
    billed: int


@dataclass
class LocalLease:
    """A lease in a sidecar's log."""

    id: str
    key: AccountKey
    granted: int
    released: int = 0
    used: int = 0
    billed: int = 0
    attempts: list[Held] = field(default_factory=list)
    last: LeaseReport | None = None
    closed: bool = False

    @property
    def held(self) -> int:
        return sum(attempt.worst for attempt in self.attempts)

    @property
    def free(self) -> int:
        return self.granted - self.released - self.used - self.held


@dataclass
class Sidecar:
    """One pod's sidecar; `leases` is what its log keeps over kill -9."""

    uid: str
    nonce: str
    leases: dict[str, LocalLease] = field(default_factory=dict)

    @property
    def holder(self) -> Holder:
        return Holder(self.uid, f"team-a/{self.uid}", self.nonce)


@dataclass
class Replica:
    """A coordinator and the version of the store that it believes in."""

    books: Books
    version: int


@dataclass(frozen=True)
class Broken:
    """Switches that break the protocol, one at a time (facts: the five variants that a weaker protocol has)."""

    refund_on_silence: bool = False
    reveal_before_persist: bool = False
    in_flight_is_zero: bool = False
    deltas: bool = False
    no_nonce: bool = False
    forget: bool = False


class World:
    """All of it. Each public method is one step; `check` raises Violation."""

    def __init__(self, broken: Broken = Broken()) -> None:
        self._numbers = 0
        self.broken = broken
        self.now_ms = START_MS
        self.limits = limits_of(budget(AMOUNT))
        self.invoice: Counter[AccountKey] = Counter()
        self.stored: dict[str, Document] = encode(begun(START_MS))
        self.version = 0
        self.replicas = [self._replica(), self._replica()]
        self.sidecars = {uid: Sidecar(uid, f"{uid}-0") for uid in PODS}
        self.to_coordinator: list[tuple[Holder, AcquireRequest | ReportRequest]] = []
        self.to_sidecar: list[tuple[str, Lease, AccountKey]] = []
        self.happened: Counter[str] = Counter()
        self.backups: list[dict[str, Any]] = []
        self.forgiven: Counter[AccountKey] = Counter()
        """Billed under rights that nobody can report any more after a restore: their sidecar's log is gone too."""

    # --- sidecars -----------------------------------------------------------------------------------------

    def ask(self, uid: str, need: int, useful: int) -> None:
        """A sidecar sends an acquire."""
        sidecar = self.sidecars[uid]
        wants = (Want(account=REF, need=need, want=max(need, useful)),)
        self._numbers += 1
        request = AcquireRequest(id=f"{uid}/{self._numbers}", nonce=sidecar.nonce, wants=wants)
        self.to_coordinator.append((sidecar.holder, request))

    def spend(self, uid: str, worst: int, billed: int) -> None:
        """Reserve on the running lease and dispatch: from now on the provider bills."""
        for lease in self.sidecars[uid].leases.values():
            if not lease.closed and lease.free >= worst and lease.key.start * 1000 <= self.now_ms:
                lease.attempts.append(Held(worst, min(worst, billed)))
                self.invoice[lease.key] += min(worst, billed)
                lease.billed += min(worst, billed)
                self.happened["spend"] += 1
                return

    def settle(self, uid: str) -> None:
        """The oldest attempt ends with its real cost."""
        for lease in self.sidecars[uid].leases.values():
            if lease.attempts:
                lease.used += lease.attempts.pop(0).billed
                self.happened["settle"] += 1
                return

    def kill(self, uid: str) -> None:
        """Kill -9 and start again from the log: what was in flight settles at its worst."""
        for lease in self.sidecars[uid].leases.values():
            for attempt in lease.attempts:
                lease.used += 0 if self.broken.in_flight_is_zero else attempt.worst
            lease.attempts.clear()
        self.happened["kill"] += 1

    def lose_log(self, uid: str) -> None:
        """The log is gone, and with it the nonce."""
        self._numbers += 1
        self.sidecars[uid] = Sidecar(uid, f"{uid}-{self._numbers}")
        self.happened["log lost"] += 1

    def report(self, uid: str, close: bool, release: int) -> None:
        """A sidecar sends what is new, cumulative since each lease was opened."""
        self.to_coordinator.append(self._report(uid, close, release))

    def _report(self, uid: str, close: bool, release: int) -> tuple[Holder, ReportRequest]:
        reports = []
        for lease in self.sidecars[uid].leases.values():
            if not lease.closed:
                lease.released += min(release, lease.free)
                lease.closed = close and not lease.attempts
                previous = report_digest(lease.last) if lease.last is not None else ""
                lease.last = LeaseReport(
                    lease=lease.id,
                    sequence=lease.last.sequence + 1 if lease.last is not None else 1,
                    previous=previous,
                    used=lease.used,
                    held=lease.held,
                    released=lease.released,
                    closed=lease.closed,
                    account=REF,
                    granted=lease.granted,
                    period=self._which(lease.key),
                )
            if lease.last is not None:
                reports.append(replace(lease.last, period=self._which(lease.key)))
        sidecar = self.sidecars[uid]
        return sidecar.holder, ReportRequest(nonce=sidecar.nonce, reports=tuple(reports))

    def _which(self, key: AccountKey) -> Literal["previous", "current"]:
        return "current" if key.start * 1000 + HOUR_MS > self.now_ms else "previous"

    # --- wire ---------------------------------------------------------------------------------------------

    def deliver_up(self, index: int, keep: bool, replica: int, crash: Crash) -> None:
        """A message reaches a coordinator, perhaps late, perhaps not for the last time."""
        if not self.to_coordinator:
            return
        index %= len(self.to_coordinator)
        holder, message = self.to_coordinator[index]
        if not keep:
            del self.to_coordinator[index]
        self._handle(self.replicas[replica], holder, message, crash)

    def deliver_down(self, index: int, keep: bool) -> None:
        """A granted lease reaches the pod that it was sent to, whichever incarnation lives there now."""
        if not self.to_sidecar:
            return
        index %= len(self.to_sidecar)
        uid, message, key = self.to_sidecar[index]
        if not keep:
            del self.to_sidecar[index]
        sidecar = self.sidecars[uid]
        if message.nonce != sidecar.nonce and not self.broken.no_nonce:
            self.happened["other nonce"] += 1
            return
        lease = sidecar.leases.get(message.id)
        if lease is None:
            sidecar.leases[message.id] = LocalLease(message.id, key, message.granted, message.released)
        else:
            lease.granted = max(lease.granted, message.granted)
            lease.released = max(lease.released, message.released)
        self.happened["lease heard"] += 1

    # --- coordinators -------------------------------------------------------------------------------------

    def silence(self, uid: str, replica: int) -> None:
        """A coordinator gives a holder up, for whatever its clock says."""
        self._commit(self.replicas[replica], lambda books: self._give_up(books, uid))
        self.happened["silence"] += 1

    def gone(self, uid: str, replica: int) -> None:
        """The pod is deleted; another one takes its place in this world, and starts with nothing."""
        self._commit(self.replicas[replica], lambda books: books.quarantine([uid], "gone"))
        self.lose_log(uid)

    def restart(self, replica: int) -> None:
        """A coordinator starts again from the store."""
        self.replicas[replica] = self._replica()
        self.happened["restart"] += 1

    def advance(self, minutes: int) -> None:
        """Time passes; periods end and are dropped in the end."""
        self.now_ms += minutes * 60_000
        self._commit(self.replicas[0], lambda books: books.sweep(self.now_ms, minutes * 60_000))

    def back_up(self) -> None:
        """Somebody copies the store."""
        self.backups.append(self.stored)

    def restore(self, index: int) -> None:
        """
        The store is what it once was. Every sidecar that lives reports while the books take back what they forgot.

        What was under way on the wire is lost with the connections.
        """
        if not self.backups:
            return
        self.stored = self.backups[index % len(self.backups)]
        self.version += 1
        self.replicas = [self._replica(), self._replica()]
        self.to_sidecar.clear()
        self.to_coordinator.clear()
        surviving: Counter[AccountKey] = Counter()
        for uid, sidecar in self.sidecars.items():
            self._forget_old(sidecar)
            for lease in sidecar.leases.values():
                surviving[lease.key] += lease.billed
            holder, request = self._report(uid, close=False, release=0)
            self._commit(
                self.replicas[0],
                lambda books, who=holder, what=request: books.report(
                    who, what, self.limits, self.now_ms, "taken back" if not self.broken.forget else "fenced"
                ),
            )
        self.forgiven = Counter({key: billed - surviving[key] for key, billed in self.invoice.items()})
        self.happened["restore"] += 1

    def _forget_old(self, sidecar: Sidecar) -> None:
        """A sidecar keeps no lease for longer than its period and the one after it, unless it streams for an hour."""
        oldest = self.now_ms // HOUR_MS * HOUR_MS - HOUR_MS
        sidecar.leases = {name: lease for name, lease in sidecar.leases.items() if lease.key.start * 1000 >= oldest}

    def _give_up(self, books: Books, uid: str) -> None:
        if not self.broken.refund_on_silence:
            books.quarantine([uid], "silent")
            return
        for account, lease in books.holdings.leases_of([uid]):
            books.holdings.close(account, lease, lease.used)

    def _handle(self, replica: Replica, holder: Holder, message: AcquireRequest | ReportRequest, crash: Crash) -> None:
        def change(books: Books) -> AcquireReply | ReportReply:
            if isinstance(message, AcquireRequest):
                return books.acquire(holder, message, self.limits, self.now_ms)
            if self.broken.deltas:
                return self._add_deltas(books, holder, message)
            return books.report(holder, message, self.limits, self.now_ms)

        if crash == "before commit":
            if self.broken.reveal_before_persist:
                self._tell(replica.books, holder, self._try(replica.books, change))
            self.replicas[self.replicas.index(replica)] = self._replica()
            self.happened["crash before commit"] += 1
            return
        reply = self._commit(replica, change)
        if crash == "after commit":
            self.replicas[self.replicas.index(replica)] = self._replica()
            self.happened["crash after commit"] += 1
            return
        self._tell(replica.books, holder, reply)

    def _add_deltas(self, books: Books, holder: Holder, message: ReportRequest) -> ReportReply:
        """The broken variant: what a report says is added, so a repeated one counts twice and a lost one never."""
        for report in message.reports:
            account = books.holdings.account_of(report.lease)
            if account is not None and report.closed:
                books.holdings.close(account, account.leases[report.lease], report.used // max(1, report.sequence))
        return ReportReply(leases=())

    def _tell(self, books: Books, holder: Holder, reply: object) -> None:
        if isinstance(reply, AcquireReply):
            self.happened["denied" if reply.denials else "granted"] += 1
            for lease in reply.leases:
                account = books.holdings.account_of(lease.id)
                if account is not None:
                    self.to_sidecar.append((holder.uid, lease, account.key))
        elif isinstance(reply, ReportReply):
            self.happened["fenced"] += sum(state.fenced for state in reply.leases)

    def _commit(self, replica: Replica, change: Callable[[Books], Any]) -> Any:
        """Compare and swap; a loser reads again and evaluates again from scratch."""
        while True:
            revision = replica.books.revision
            reply = self._try(replica.books, change)
            if replica.books.revision == revision:
                return reply
            if replica.version == self.version:
                self.version += 1
                replica.version = self.version
                self._store(replica.books)
                return reply
            self.happened["conflict"] += 1
            fresh = self._replica()
            replica.books, replica.version = fresh.books, fresh.version

    def _store(self, books: Books) -> None:
        """Section by section, as stores get them."""
        changes = take_changes(books)
        kept = {name: document for name, document in self.stored.items() if name not in changes.drop}
        self.stored = {**kept, **changes.put}
        if self.version % 8 == 0 and (differs := _differing(self.stored, books)):
            raise Violation(f"what was written section by section is not what the books hold: {differs}")

    def _try(self, books: Books, change: Callable[[Books], Any]) -> Any:
        try:
            return change(books)
        except HolderFenced:
            self.happened["holder fenced"] += 1
            return None

    def _replica(self) -> Replica:
        books = decode(self.stored, "test")
        self._numbers += 1
        books.begin_life(f"c{self._numbers}-", self.now_ms)
        return Replica(books, self.version)

    # --- promises -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """C <= L always; C >= what the provider billed; every sidecar within its rights (I1, I2, no loss)."""
        books = decode(self.stored, "test")
        for key, account in books.holdings.accounts.items():
            if account.charged > AMOUNT + account.taken_back or account.taken_back > AMOUNT:
                raise Violation(f"charged {account.charged} of {AMOUNT}")
            if account.charged < self.invoice[key] - self.forgiven[key]:
                raise Violation(f"charged {account.charged}, billed {self.invoice[key]}")
            if account.recount() != account.totals:
                raise Violation("sums differ from leases")
        for key, billed in self.invoice.items():
            if billed - self.forgiven[key] > AMOUNT:
                raise Violation(f"billed {billed} of {AMOUNT} in period {key.start}")
        for sidecar in self.sidecars.values():
            for lease in sidecar.leases.values():
                if lease.free < 0:
                    raise Violation(f"lease {lease.id}: used and held exceed its rights")


def _differing(stored: dict[str, Document], books: Books) -> list[str]:
    """
    Sections that would read differently, were all books written now. What time it is, is noted once an hour; the pace
    for a forecast with the next change of its account.
    """
    found, whole = encode(decode(stored, "test")), encode(books)
    for sections in (found, whole):
        del sections["head"]["believedMs"]
        for section in sections.values():
            section.pop("pace", None)
    return [name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name)]


def walk(seed: int, steps: int, broken: Broken = Broken(), restores: int = 0) -> World:
    """A random history; `restores` weighs backups and restores in it. Raises Violation with its seed."""
    rng = Random(seed)
    world = World(broken)
    crashes: list[Crash] = ["", "", "", "before commit", "after commit"]
    actions: list[tuple[int, Callable[[str], None]]] = [
        (9, lambda uid: world.ask(uid, rng.choice([0, 20, 60, 250]), rng.randrange(0, 300))),
        (14, lambda uid: world.spend(uid, rng.randrange(1, 120), rng.randrange(0, 120))),
        (6, world.settle),
        (7, lambda uid: world.report(uid, rng.random() < 0.4, rng.choice([0, 0, 10, 200]))),
        (
            20,
            lambda _: world.deliver_up(rng.randrange(1000), rng.random() < 0.3, rng.randrange(2), rng.choice(crashes)),
        ),
        (14, lambda _: world.deliver_down(rng.randrange(1000), rng.random() < 0.4)),
        (2, lambda uid: world.silence(uid, rng.randrange(2))),
        (2, world.kill),
        (1, world.lose_log),
        (1, lambda uid: world.gone(uid, rng.randrange(2))),
        (1, lambda _: world.restart(rng.randrange(2))),
        (1, lambda _: world.advance(rng.choice([1, 20, 90]))),
        (restores, lambda _: world.back_up()),
        (restores, lambda _: world.restore(rng.randrange(1000))),
    ]
    weights = [weight for weight, _ in actions]
    for _ in range(steps):
        ((_, action),) = rng.choices(actions, weights)
        action(rng.choice(PODS))
        try:
            world.check()
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}") from violation
    return world
