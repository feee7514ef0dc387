"""
Laws of a ledger that is killed again and again, at any byte of its log: what was sent stays charged, what was told to
the coordinator is never told otherwise, and no right is spent twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memory_log import again, logged
from spendmesh_sidecar.core.ledger.charges import Quantities, Subject, charges
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Lease, LeaseReport, LeaseState, report_digest
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec

WINDOW = WindowSpec(period="Hour")
LIMITS = (
    LimitSpec(name="money", currency="USD", amount=10_000, window=WINDOW),
    LimitSpec(name="calls", unit="Requests", amount=500, window=WINDOW),
)
BUDGETS = (
    BudgetSpec(name="team-a/team", limits=LIMITS),
    BudgetSpec(name="team-a/watch", mode="Observe", limits=LIMITS[:1]),
)
ANY = Subject("small-1", "team-a/openai")
ACCOUNTS = tuple(AccountRef(budget=b.name, limit=limit.name) for b in BUDGETS for limit in b.limits)
STATE = AccountState(amount=10_000, settled=0, charged=10_000, resets_in_ms=100_000)


@dataclass
class Granted:
    """The coordinator's side of one lease."""

    account: AccountRef
    ends_at: float
    granted: int = 0
    last: LeaseReport | None = None
    fenced: bool = False


@dataclass
class Sent:
    """An attempt that has left: the provider bills it, whatever becomes of the sidecar."""

    bound: Quantities
    billed: Quantities
    alive: bool = True
    """Its process can still settle it."""
    settled: Quantities | None = None


@dataclass
class Invoice:
    """What the provider has billed, and the most that the books may say instead."""

    attempts: dict[str, Sent] = field(default_factory=dict)

    def billed(self, ref: AccountRef) -> int:
        return sum(_of(ref, sent.settled or sent.billed) for sent in self.attempts.values())

    def worst(self, ref: AccountRef) -> int:
        return sum(max(_of(ref, sent.bound), _of(ref, sent.settled or sent.bound)) for sent in self.attempts.values())


def _of(ref: AccountRef, amount: Quantities) -> int:
    return amount.in_unit("Cost" if ref.limit == "money" else "Requests")


class KilledMachine(RuleBasedStateMachine):
    """One holder over many processes, a coordinator that checks its reports, and a provider's invoice."""

    @initialize()
    def start(self) -> None:
        self.now = 50.0
        self.ledger, self.log = logged("me", BUDGETS, self.now)
        self.leases: dict[str, Granted] = {}
        self.invoice = Invoice()

    # --- coordinator --------------------------------------------------------------------------------------

    @rule(account=st.sampled_from(ACCOUNTS), amount=st.integers(0, 600), lost=st.booleans())
    def grant(self, account: AccountRef, amount: int, lost: bool) -> None:
        ends_at = self.now - self.now % 100 + 100
        lease = f"{account.budget}/{account.limit}/{ends_at}"
        granted = self.leases.setdefault(lease, Granted(account, ends_at))
        if granted.fenced or (granted.last is not None and granted.last.closed):
            return
        granted.granted += amount
        if lost:
            return
        message = Lease(
            id=lease,
            nonce="me",
            account=account,
            unit="Cost" if account.limit == "money" else "Requests",
            currency="USD" if account.limit == "money" else "",
            granted=granted.granted,
            ends_in_ms=int((ends_at - self.now) * 1000),
            state=STATE,
        )
        self.ledger.merge(message, self.now)

    @rule(lost=st.booleans(), answer_lost=st.booleans(), recall=st.integers(0, 300), fence=st.integers(0, 30))
    def report(self, lost: bool, answer_lost: bool, recall: int, fence: int) -> None:
        reports = self.ledger.reports(self.now)
        self.log.flush()  # written before it is told
        if lost:
            return
        states = []
        for report in reports:
            granted = self.leases[report.lease]
            self._receive(granted, report)
            granted.fenced = granted.fenced or fence == 1
            states.append(
                LeaseState(lease=report.lease, sequence=report.sequence, recalled=recall, fenced=granted.fenced)
            )
        if not answer_lost:
            self.ledger.acknowledged(states, self.now)
            assert not self.ledger.copied

    def _receive(self, granted: Granted, report: LeaseReport) -> None:
        """What the books check: one history, in which nothing falls and no right is spent twice."""
        last = granted.last
        if last is not None and report.sequence == last.sequence:
            assert report_digest(report) == report_digest(last), "two reports of one number look like a copied state"
            return
        assert report.sequence == (last.sequence + 1 if last else 1)
        assert report.previous == (report_digest(last) if last else "")
        assert last is None or (report.used >= last.used and report.released >= last.released and not last.closed)
        assert report.used - report.overrun + report.held <= granted.granted - report.released
        granted.last = report

    # --- sidecar ------------------------------------------------------------------------------------------

    @rule(seconds=st.floats(0, 60, allow_nan=False))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(bound=st.integers(0, 300), part=st.integers(0, 100))
    def send(self, bound: int, part: int) -> None:
        name = f"request-{len(self.invoice.attempts)}/attempt-1"
        worst, billed = Quantities(bound, "USD"), Quantities(bound * part // 100, "USD")
        if not self.ledger.reserve(charges(BUDGETS, worst, ANY), name, self.now):
            self.invoice.attempts[name] = Sent(worst, billed)

    @rule(index=st.integers(0, 50), cost=st.integers(0, 400), free=st.booleans())
    def resolve(self, index: int, cost: int, free: bool) -> None:
        living = [name for name, sent in self.invoice.attempts.items() if sent.alive]
        if not living:
            return
        name = living[index % len(living)]
        if free:
            self.ledger.void(name)
            self.invoice.attempts[name].settled = Quantities(0, "USD", requests=0)
        else:
            self.ledger.settle(name, Quantities(cost, "USD"), self.now)
            self.invoice.attempts[name].settled = Quantities(cost, "USD")
        self.invoice.attempts[name].alive = False

    @rule()
    def write_what_waits(self) -> None:
        self.log.flush()

    @rule()
    def begin_a_new_file(self) -> None:
        self.log.begin()

    @rule(gone=st.booleans())
    def policy_changes(self, gone: bool) -> None:
        self.ledger.set_budgets((BUDGETS[1],) if gone else BUDGETS, self.now)
        self.ledger.set_budgets(BUDGETS, self.now)

    @rule(keep=st.integers(0, 4_000), twice=st.booleans())
    def kill(self, keep: int, twice: bool) -> None:
        """At any byte of what was not written yet; the next process may die as soon as it has begun."""
        self.ledger, self.log = again(self.log.crash(keep), BUDGETS, self.now)
        if twice:
            self.ledger, self.log = again(self.log.crash(), BUDGETS, self.now)
        assert self.ledger.nonce == "me" and not self.ledger.open_reservations
        for sent in self.invoice.attempts.values():
            if sent.settled is None and sent.alive:
                sent.alive = False

    @rule()
    def killing_it_quietly_changes_nothing(self) -> None:
        """With nothing in flight and all written, the next process knows what this one knows."""
        if self.ledger.open_reservations:
            return
        self.log.flush()
        before = _books(self.ledger)
        self.ledger, self.log = again(self.log.crash(), BUDGETS, self.now)
        assert _books(self.ledger) == before

    # --- laws ---------------------------------------------------------------------------------------------

    @invariant()
    def no_right_is_spent_twice(self) -> None:
        for account in self.ledger.accounts.values():
            for lease in account.leases.values():
                assert lease.used + lease.held <= lease.granted - lease.released + lease.overrun
                assert lease.granted <= self.leases[lease.id].granted

    @invariant()
    def what_was_sent_stays_charged_and_never_more_than_its_worst(self) -> None:
        for ref in ACCOUNTS:
            assert self._settled(ref) + self._in_flight(ref) >= self.invoice.billed(ref)
            assert self._settled(ref) <= self.invoice.worst(ref)

    def _settled(self, ref: AccountRef) -> int:
        account = self.ledger.accounts.get(ref)
        live = {lease.id: lease.used for lease in account.leases.values()} if account else {}
        closed = (
            granted.last.used
            for lease, granted in self.leases.items()
            if granted.account == ref and lease not in live and granted.last is not None
        )
        return sum(live.values()) + sum(closed) + (account.debt.unleased if account else 0)

    def _in_flight(self, ref: AccountRef) -> int:
        alive = (sent for sent in self.invoice.attempts.values() if sent.alive)
        return sum(_of(ref, sent.bound) for sent in alive)


def _books(ledger: Ledger) -> dict[str, tuple[object, ...]]:
    """What matters of a ledger: rights, use, and what the coordinator was told."""
    found: dict[str, tuple[object, ...]] = {}
    for account in ledger.accounts.values():
        found[f"{account.ref.budget}/{account.ref.limit}"] = (account.debt.unleased,)
        for lease in account.leases.values():
            found[lease.id] = (
                lease.granted,
                lease.used,
                lease.held,
                lease.overrun,
                lease.fenced,
                lease.sent,
            )
    return found


KilledMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestKilled = KilledMachine.TestCase
