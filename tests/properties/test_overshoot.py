"""
The bound of a limit that reserves less than calls may cost, against clients and providers that want to break it: they
choose what calls may cost, what is expected of them, how many run at once, how each ends, and when a sidecar is killed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from fake_bank import Bank
from memory_log import MemoryLog, again, logged
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.exposure import extend
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec

AMOUNT = 10_000
PERCENT = 20
MOST = AMOUNT * (100 + PERCENT) // 100
WINDOW = WindowSpec(period="Hour")
EXPECTED = LimitSpec(
    name="expected", currency="USD", amount=AMOUNT, window=WINDOW, reservation="Expected", overshoot_percent=PERCENT
)
STRICT = LimitSpec(name="strict", currency="USD", amount=AMOUNT + 500, window=WINDOW)
BUDGETS = (BudgetSpec(name="team-a/team", limits=(EXPECTED, STRICT)),)
LOOSE, FIRM = (AccountRef(budget="team-a/team", limit=name) for name in ("expected", "strict"))
HOLDERS = st.integers(0, 2)


@dataclass
class Sidecar:
    """One holder, its log, and what its calls may still cost."""

    ledger: Ledger
    log: MemoryLog
    open: dict[str, int] = field(default_factory=dict)


class OvershootMachine(RuleBasedStateMachine):
    """Three sidecars under one budget, and a provider that bills what it likes up to a call's worst case."""

    @initialize(share=st.integers(0, 3))
    def start(self, share: int) -> None:
        self.now = 10.0
        self.count = 0
        self.bank = Bank(BUDGETS, share=share)
        self.sidecars = [Sidecar(*logged(f"holder-{index}", BUDGETS, self.now)) for index in range(3)]
        self.billed = 0
        self.adrift = 0
        """What a provider may still bill for calls of killed sidecars, which the books have at their worst."""
        self.unknown = 0
        """Rights of sidecars that were lost with their log: of these the books know no more than the rights."""

    @rule(index=HOLDERS, worst=st.integers(0, 3_000), percent=st.integers(0, 100), count=st.integers(1, 6))
    def call(self, index: int, worst: int, percent: int, count: int) -> None:
        """Some calls at once, with whatever expectation the client has taught."""
        sidecar = self.sidecars[index]
        loose = Charge(LOOSE, "Cost", worst, least=worst * percent // 100)
        for _ in range(count):
            self.count += 1
            name = f"call-{self.count}/attempt-1"
            lacking = sidecar.ledger.reserve((loose, Charge(FIRM, "Cost", worst)), name, self.now)
            if lacking:
                wants = sidecar.ledger.wants_for(lacking, self.now)
                leases, _ = self.bank.acquire(sidecar.ledger.nonce, wants)
                for lease in leases:
                    sidecar.ledger.merge(lease, self.now)
                lacking = sidecar.ledger.reserve((loose, Charge(FIRM, "Cost", worst)), name, self.now)
            if not lacking:
                sidecar.open[name] = worst

    @rule(index=HOLDERS, percent=st.integers(0, 100), count=st.integers(1, 6), oldest=st.booleans())
    def end(self, index: int, percent: int, count: int, oldest: bool) -> None:
        sidecar = self.sidecars[index]
        for _ in range(min(count, len(sidecar.open))):
            name = list(sidecar.open)[0 if oldest else -1]
            cost = sidecar.open.pop(name) * percent // 100
            self.billed += cost
            sidecar.ledger.settle(name, Quantities(cost, "USD"), self.now)

    @rule(index=HOLDERS, percent=st.integers(0, 100), count=st.integers(1, 4))
    def a_stream_shows_more(self, index: int, percent: int, count: int) -> None:
        """It holds more of what it exposes, or, where that does not fit, goes on or is cut: the books do not care."""
        sidecar = self.sidecars[index]
        for name in list(sidecar.open)[:count]:
            entries = sidecar.ledger.open_attempts.entries(name)
            parts = [(entry, entry.exposed * percent // 100) for entry in entries if entry.exposed]
            lacking = extend(parts, self.now)
            assert not lacking or all(lack.need > 0 for lack in lacking)

    @rule(index=HOLDERS)
    def nothing_was_billed(self, index: int) -> None:
        sidecar = self.sidecars[index]
        if sidecar.open:
            name, _ = sidecar.open.popitem()
            sidecar.ledger.void(name)

    @rule(index=HOLDERS, recalled=st.integers(0, 2_000), answered=st.booleans(), idle=st.booleans())
    def report(self, index: int, recalled: int, answered: bool, idle: bool) -> None:
        self.now += 60.0 if idle else 0.1
        ledger = self.sidecars[index].ledger
        reports = ledger.reports(self.now)
        self.sidecars[index].log.flush()  # what is told is in the log before
        states = self.bank.report(ledger.nonce, reports)
        if answered:
            ledger.acknowledged([replace(state, recalled=recalled) for state in states], self.now)

    @rule(index=HOLDERS, keep=st.integers(0, 500))
    def kill(self, index: int, keep: int) -> None:
        """kill -9: the next process charges what was in flight at its worst, and the provider bills what it likes."""
        sidecar = self.sidecars[index]
        nonce = sidecar.ledger.nonce
        ledger, log = again(sidecar.log.crash(keep), BUDGETS, self.now)
        assert ledger.nonce == nonce
        self.adrift += sum(sidecar.open.values())
        self.sidecars[index] = Sidecar(ledger, log)

    @rule(index=HOLDERS)
    def lose(self, index: int) -> None:
        """The pod is gone with its log; its rights stay charged in full, and another takes its place."""
        sidecar = self.sidecars[index]
        rights = self.bank.leases.get((LOOSE, sidecar.ledger.nonce))
        self.unknown += rights.granted - rights.released if rights else 0
        self.adrift += sum(sidecar.open.values())
        self.count += 1
        self.sidecars[index] = Sidecar(*logged(f"heir-{self.count}", BUDGETS, self.now))

    @invariant()
    def what_may_be_billed_stays_within_the_stated_bound(self) -> None:
        """Whatever the clients do next, and whatever is billed for what runs."""
        if not hasattr(self, "sidecars"):
            return
        running = sum(sum(sidecar.open.values()) for sidecar in self.sidecars)
        assert self.billed + self.adrift + running <= MOST

    @invariant()
    def a_strict_limit_beside_it_is_never_exceeded(self) -> None:
        if hasattr(self, "sidecars"):
            running = sum(sum(sidecar.open.values()) for sidecar in self.sidecars)
            assert self.billed + self.adrift + running <= STRICT.amount

    @invariant()
    def exposure_is_what_open_calls_do_not_hold(self) -> None:
        for sidecar in getattr(self, "sidecars", ()):
            for ref, account in sidecar.ledger.accounts.items():
                for lease in account.leases.values():
                    worst = sum(sidecar.open.values())
                    assert lease.exposed == (worst - lease.held if ref == LOOSE else 0)

    def teardown(self) -> None:
        """When all has ended at its worst and was reported, the books say at least what was billed."""
        for index, sidecar in enumerate(getattr(self, "sidecars", ())):
            self.end(index, 100, len(sidecar.open), True)
            for _ in range(2):
                self.bank.sync(sidecar.ledger, self.now)
            assert sidecar.ledger.open_reservations == 0
        if hasattr(self, "sidecars"):
            assert self.billed + self.adrift <= self.bank.charged(LOOSE) + self.unknown * PERCENT // 100
            assert self.bank.charged(LOOSE) <= MOST


OvershootMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_no_client_spends_more_than_the_amount_and_its_overshoot = OvershootMachine.TestCase
