"""Laws of the sidecar's ledger against a coordinator whose messages are lost, late, repeated and reordered."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.charges import Charge, Quantities, Subject, charges
from spendmesh_sidecar.core.ledger.lease import LedgerError
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import (
    AccountRef,
    AccountState,
    Lease,
    LeaseReport,
    LeaseState,
    Want,
    report_digest,
)
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, OverrideSpec, PerSpec, WindowSpec
from spendmesh_sidecar.core.types import Hints

WINDOW = WindowSpec(period="Hour")
CAP_TOKENS = 400
LAUNCH = OverrideSpec(name="launch", amount=5_000, starts=0, ends=10**9)
LIMITS = (
    LimitSpec(name="money", currency="USD", amount=10_000, window=WINDOW, overrides=(LAUNCH,)),
    LimitSpec(name="calls", unit="Requests", amount=50, window=WINDOW),
    LimitSpec(
        name="tokens", unit="TotalTokens", amount=5_000, window=WINDOW, on_unverifiable="Allow", allow_cap=CAP_TOKENS
    ),
)
EACH = LimitSpec(name="each", currency="USD", amount=3_000, window=WINDOW, per=(PerSpec(type="User"),))
USERS = ("ana", "ben", "cat")
ENFORCED = BudgetSpec(name="team-a/team", limits=(*LIMITS, EACH))
OBSERVED = BudgetSpec(name="team-a/watch", mode="Observe", limits=LIMITS[:1])
BUDGETS = (ENFORCED, OBSERVED)
ACCOUNTS = (
    *(AccountRef(budget=b.name, limit=limit.name) for b in BUDGETS for limit in b.limits if not limit.per),
    *(AccountRef(budget=ENFORCED.name, limit=EACH.name, per=(user,)) for user in USERS),
)
OVERRIDE = AccountRef(budget=ENFORCED.name, limit="money", override="launch")
UNITS = {"money": "Cost", "calls": "Requests", "tokens": "TotalTokens", "each": "Cost"}
PERIOD_MS = 100_000


@dataclass
class Granted:
    """The coordinator's side of one lease."""

    id: str
    account: AccountRef
    """As in the message: with the override."""
    starts_at: float
    ends_at: float
    granted: int = 0
    reports: list[LeaseReport] = field(default_factory=list)
    recalled: int = 0
    fenced: bool = False

    @property
    def counts_on(self) -> AccountRef:
        """The limit that its use is of."""
        return replace(self.account, override="")


def quantities(cost: int, tokens: int) -> Quantities:
    return Quantities(cost, "USD", tokens, 0)


class LedgerMachine(RuleBasedStateMachine):
    """One sidecar's ledger and a model of what it was granted and what it used."""

    open = Bundle("open")
    resolved = Bundle("resolved")

    @initialize()
    def start(self) -> None:
        self.now = 50.0
        self.ledger = Ledger("me", BUDGETS, self.now)
        self.leases: dict[str, Granted] = {}
        self.mailbox: list[Lease] = []
        self.used = dict.fromkeys(ACCOUNTS, 0)
        self.count = 0

    # --- the coordinator ---

    def _state(self) -> AccountState:
        return AccountState(amount=10_000, settled=0, charged=10_000, resets_in_ms=PERIOD_MS)

    def _message(self, granted: Granted, nonce: str = "me") -> Lease:
        unit = UNITS[granted.account.limit]
        return Lease(
            id=granted.id,
            nonce=nonce,
            account=granted.account,
            unit=unit,
            currency="USD" if unit == "Cost" else "",
            granted=granted.granted,
            survival=granted.granted // 4 if unit == "Requests" else 0,
            starts_in_ms=max(0, int((granted.starts_at - self.now) * 1000)),
            ends_in_ms=max(0, int((granted.ends_at - self.now) * 1000)),
            state=self._state(),
        )

    @rule(account=st.sampled_from((*ACCOUNTS, OVERRIDE)), amount=st.integers(0, 400), deliver=st.booleans())
    def grant(self, account: AccountRef, amount: int, deliver: bool) -> None:
        start = self.now - self.now % 100
        lease = f"{account.budget}/{account.limit}/{account.per}/{account.override}/{start}"
        granted = self.leases.setdefault(lease, Granted(lease, account, start, start + 100))
        if granted.fenced or (granted.reports and granted.reports[-1].closed):
            return
        granted.granted += amount
        self.mailbox.append(self._message(granted))
        if deliver:
            self.ledger.merge(self.mailbox[-1], self.now)

    @rule(data=st.data())
    def a_message_arrives_late_or_again(self, data: st.DataObject) -> None:
        if self.mailbox:
            message = data.draw(st.sampled_from(self.mailbox))
            late = Lease(**{name: getattr(message, name) for name in message.__struct_fields__})
            if self.now < self.leases[message.id].ends_at:
                self.ledger.merge(late, self.now)

    @rule(account=st.sampled_from(ACCOUNTS))
    def another_incarnations_lease_arrives(self, account: AccountRef) -> None:
        stranger = Granted("stranger", account, 0, self.now + 100, granted=10_000)
        assert not self.ledger.merge(self._message(stranger, nonce="other"), self.now)

    @rule(lost=st.booleans(), answer_lost=st.booleans(), recall=st.integers(0, 300), fence=st.integers(0, 20))
    def report(self, lost: bool, answer_lost: bool, recall: int, fence: int) -> None:
        reports = self.ledger.reports(self.now)
        assert len({report.lease for report in reports}) == len(reports)
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
        """What the coordinator checks: no fork, nothing falls, never more than granted but by overrun."""
        last = granted.reports[-1] if granted.reports else None
        if last is not None and report.sequence == last.sequence:
            assert report_digest(report) == report_digest(last), (
                "the same sequence with other content looks like a copied state"
            )
            return
        assert last is None or not last.closed, "a report after the closing one"
        assert report.sequence == (last.sequence + 1 if last else 1)
        assert report.previous == (report_digest(last) if last else "")
        if last is not None:
            assert report.used >= last.used and report.released >= last.released
            assert report.overrun >= last.overrun and report.would_block >= last.would_block
        assert report.used + report.held <= granted.granted - report.released + report.overrun
        assert not (report.closed and report.held)
        granted.reports.append(report)

    # --- the sidecar ---

    @rule()
    def nobody_answers(self) -> None:
        self.ledger.unanswered(self.now)

    @rule(seconds=st.floats(0, 60, allow_nan=False))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=open, cost=st.integers(0, 300), tokens=st.integers(0, 300), user=st.sampled_from(USERS))
    def reserve(self, cost: int, tokens: int, user: str) -> tuple[str, tuple[Charge, ...]] | None:
        wanted = charges(BUDGETS, quantities(cost, tokens), Subject("small-1", "team-a/openai", Hints(user=user)))
        free = {charge.account: self._free(charge.account) for charge in wanted}
        credit = {charge.account: self._credit(charge.account) for charge in wanted}
        before = self._books()
        self.count += 1
        name = f"request/attempt-{self.count}"
        lacking = self.ledger.reserve(wanted, name, self.now)
        expected = {
            (charge.account.budget, charge.account.limit): charge.amount - free[charge.account]
            for charge in wanted
            if not charge.observed and charge.amount > free[charge.account] + credit[charge.account]
        }
        assert {(lack.budget, lack.limit): lack.need for lack in lacking} == expected
        if lacking:
            assert self._books() == before, "a refused reservation booked something"
            return None
        return name, wanted

    @rule(target=resolved, one=consumes(open), cost=st.integers(0, 400), tokens=st.integers(0, 400))
    def settle(self, one: tuple[str, tuple[Charge, ...]] | None, cost: int, tokens: int) -> str | None:
        if one is None:
            return None
        actual = quantities(cost, tokens)
        self.ledger.settle(one[0], actual, self.now)
        for charge in one[1]:
            self.used[charge.account] += actual.in_unit(charge.unit)
        return one[0]

    @rule(target=resolved, one=consumes(open))
    def void(self, one: tuple[str, tuple[Charge, ...]] | None) -> str | None:
        if one is None:
            return None
        self.ledger.void(one[0])
        return one[0]

    @rule(name=resolved)
    def nothing_resolves_twice(self, name: str | None) -> None:
        if name is not None:
            before = self._books()
            with pytest.raises(LedgerError):
                self.ledger.settle(name, quantities(1, 1), self.now)
            with pytest.raises(LedgerError):
                self.ledger.void(name)
            assert self._books() == before

    @rule(gone=st.booleans())
    def the_policy_changes(self, gone: bool) -> None:
        self.ledger.set_budgets((OBSERVED,) if gone else BUDGETS, self.now)
        if gone:
            self.ledger.set_budgets(BUDGETS, self.now)

    @invariant()
    def rights_are_never_exceeded_but_by_overrun(self) -> None:
        for account in self.ledger.accounts.values():
            for lease in account.leases.values():
                known = self.leases[lease.id]
                assert lease.used + lease.held <= lease.granted - lease.released + lease.overrun
                assert lease.granted <= known.granted
                assert lease.unheld <= lease.overrun
                assert min(lease.used, lease.held, lease.released, lease.overrun, lease.free) >= 0

    @invariant()
    def nothing_that_was_used_is_lost(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for ref in ACCOUNTS:
            assert self._used_in_books(ref) == self.used[ref]

    def _used_in_books(self, ref: AccountRef) -> int:
        account = self.ledger.accounts.get(ref)
        live = {lease.id: lease.used for lease in account.leases.values()} if account else {}
        closed = sum(
            granted.reports[-1].used
            for granted in self.leases.values()
            if granted.counts_on == ref and granted.id not in live and granted.reports
        )
        return sum(live.values()) + closed + (account.debt.unleased if account else 0)

    def _grant_nothing(self, want: Want) -> None:
        """No right is asked for at the end: only a lease in which use is told that has none yet."""
        assert (want.need, want.want) == (0, 0)
        assert self.ledger.accounts[want.account].debt.unleased > 0
        start = self.now - self.now % 100
        granted = Granted(f"to tell {want.account}", want.account, start, start + 100)
        self.leases[granted.id] = granted
        self.ledger.merge(self._message(granted), self.now)

    def teardown(self) -> None:
        """At the end all closes: nothing is held, and the coordinator knows every unit."""
        if not hasattr(self, "ledger"):
            return
        for name in list(self.ledger.open_attempts):
            self.ledger.void(name)
        self.ledger.drain()
        for want in self.ledger.wants(self.now):
            self._grant_nothing(want)
        for _ in range(3):
            self.report(lost=False, answer_lost=False, recall=0, fence=0)
        assert self.ledger.settled_up
        unleased = {ref: account.debt.unleased for ref, account in self.ledger.accounts.items()}
        for ref in ACCOUNTS:
            reported = sum(g.reports[-1].used for g in self.leases.values() if g.counts_on == ref and g.reports)
            assert reported + unleased.get(ref, 0) == self.used[ref]

    def _credit(self, ref: AccountRef) -> int:
        account = self.ledger.accounts.get(ref)
        allowed = account.credit(self.now) if account else 0
        assert allowed <= (CAP_TOKENS if ref.limit == "tokens" and ref.budget == ENFORCED.name else 0)
        return allowed

    def _free(self, ref: AccountRef) -> int:
        account = self.ledger.accounts.get(ref)
        return account.free(self.now) if account else 0

    def _books(self) -> list[tuple[str, int, int]]:
        return [
            (lease.id, lease.used, lease.held)
            for account in self.ledger.accounts.values()
            for lease in account.leases.values()
        ]


LedgerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLedger = LedgerMachine.TestCase
