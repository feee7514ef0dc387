"""
The lease protocol under lost, repeated and reordered messages, crashes and races: charged <= limit, always, and
charged >= billed. Rows 1-6, 11 of the fault table; each weaker protocol is caught.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, integers, sampled_from

from ledger_world import PODS, Broken, Crash, Violation, World, walk

pods = sampled_from(PODS)
replicas = integers(0, 1)
amounts = integers(0, 400)
positions = integers(0, 1000)
crashes = sampled_from(list[Crash](["", "", "before commit", "after commit"]))

SEEDS = 300
STEPS = 160


class LedgerMachine(RuleBasedStateMachine):
    """Hypothesis draws the history, and shrinks it to the shortest one that breaks a promise."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(uid=pods, need=amounts, useful=amounts)
    def ask(self, uid: str, need: int, useful: int) -> None:
        self.world.ask(uid, need, useful)

    @rule(uid=pods, worst=integers(1, 300), billed=amounts)
    def spend(self, uid: str, worst: int, billed: int) -> None:
        self.world.spend(uid, worst, billed)

    @rule(uid=pods)
    def settle(self, uid: str) -> None:
        self.world.settle(uid)

    @rule(uid=pods, close=booleans(), release=sampled_from([0, 0, 10, 400]))
    def report(self, uid: str, close: bool, release: int) -> None:
        self.world.report(uid, close, release)

    @rule(index=positions, keep=booleans(), replica=replicas, crash=crashes)
    def deliver_up(self, index: int, keep: bool, replica: int, crash: Crash) -> None:
        self.world.deliver_up(index, keep, replica, crash)

    @rule(index=positions, keep=booleans())
    def deliver_down(self, index: int, keep: bool) -> None:
        self.world.deliver_down(index, keep)

    @rule(uid=pods, replica=replicas)
    def silence(self, uid: str, replica: int) -> None:
        self.world.silence(uid, replica)

    @rule(uid=pods)
    def kill(self, uid: str) -> None:
        self.world.kill(uid)

    @rule(uid=pods)
    def lose_log(self, uid: str) -> None:
        self.world.lose_log(uid)

    @rule(uid=pods, replica=replicas)
    def gone(self, uid: str, replica: int) -> None:
        self.world.gone(uid, replica)

    @rule(replica=replicas)
    def restart(self, replica: int) -> None:
        self.world.restart(replica)

    @rule(minutes=sampled_from([1, 45, 130]))
    def advance(self, minutes: int) -> None:
        self.world.advance(minutes)

    @invariant()
    def holds(self) -> None:
        self.world.check()


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


def test_no_history_overspends_or_loses_spend_and_every_fault_occurs() -> None:
    """Seeded walks hold all promises, and meet each fault often enough to have tested it."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        happened += walk(seed, STEPS).happened

    faults = ("crash before commit", "crash after commit", "conflict", "silence", "kill", "log lost", "restart")
    outcomes = ("spend", "settle", "granted", "denied", "fenced", "other nonce", "lease heard")
    assert {name: happened[name] for name in (*faults, *outcomes) if happened[name] < SEEDS // 10} == {}


def test_books_restored_from_a_backup_hold_all_that_living_sidecars_report() -> None:
    """
    Row 13: charged >= billed also after a restore, save under rights whose log is lost as well; and what is granted
    on the holders' word is at most the limit.
    """
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        happened += walk(seed, STEPS, restores=2).happened

    assert {name: happened[name] for name in ("restore", "spend", "granted") if happened[name] < SEEDS} == {}


@pytest.mark.parametrize(
    "broken",
    [
        Broken(refund_on_silence=True),
        Broken(reveal_before_persist=True),
        Broken(in_flight_is_zero=True),
        Broken(deltas=True),
        Broken(no_nonce=True),
        Broken(forget=True),
    ],
    ids=["refund on silence", "reveal before persist", "in flight is zero", "deltas", "no nonce", "forget"],
)
def test_each_weaker_protocol_is_caught(broken: Broken) -> None:
    """Without any one of the rules some history overspends or loses spend: the walks can see it."""
    with pytest.raises(Violation):
        for seed in range(4000):
            walk(seed, STEPS, broken, restores=2 if broken.forget else 0)
