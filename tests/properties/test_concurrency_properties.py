"""Laws of a target's limit under any order of calls, ends, hints and edits."""

from __future__ import annotations

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spendmesh_sidecar.core.failures.concurrency import Limiter, LimiterError, Slot
from spendmesh_sidecar.core.specs import ConcurrencySpec

SPECS = st.builds(
    ConcurrencySpec,
    minimum=st.integers(1, 5),
    maximum=st.integers(5, 30),
    increase=st.integers(1, 5),
    decrease_percent=st.integers(1, 90),
)


class LimiterMachine(RuleBasedStateMachine):
    """A provider that throttles when it likes, and calls that end in any order."""

    slots = Bundle("slots")
    ended = Bundle("ended")

    @initialize(spec=SPECS)
    def start(self, spec: ConcurrencySpec) -> None:
        self.limiter, self.now = Limiter(spec), 0.0
        self.running: dict[int, tuple[Slot, int]] = {}
        self.decreases, self.paused_until = 0, 0.0

    @rule(seconds=st.floats(0.001, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(spec=SPECS)
    def another_spec(self, spec: ConcurrencySpec) -> None:
        self.limiter.obey(spec)

    @rule(target=slots)
    def call(self) -> Slot:
        assert self.limiter.has_room == (len(self.running) < int(self.limiter.limit))
        slot = self.limiter.take()
        self.running[id(slot)] = (slot, self.decreases)
        return slot

    @rule(target=ended, slot=consumes(slots), good=st.booleans())
    def ends(self, slot: Slot, good: bool) -> Slot:
        before = self.limiter.limit
        (self.limiter.good if good else self.limiter.done)(slot)
        del self.running[id(slot)]
        grown = self.limiter.limit - before
        assert 0 <= grown <= self.limiter.spec.increase / before + 1e-9 if good else grown == 0
        return slot

    @rule(target=ended, slot=consumes(slots), hint=st.floats(0, 60))
    def is_throttled(self, slot: Slot, hint: float) -> Slot:
        """Once for all calls that were in flight together, and once in a pause that the provider asked for."""
        before, used, taken_after = self.limiter.limit, len(self.running), self.running.pop(id(slot))[1]
        self.limiter.throttled(slot, self.now, hint)
        spec = self.limiter.spec
        if taken_after < self.decreases or self.now < self.paused_until:
            assert self.limiter.limit == before
        else:
            lowered = min(before, used) * (1 - spec.decrease_percent / 100)
            assert self.limiter.limit == pytest.approx(max(spec.minimum, lowered))
            self.decreases, self.paused_until = self.decreases + 1, self.now + hint
        return slot

    @rule(slot=ended)
    def a_slot_is_given_back_once(self, slot: Slot) -> None:
        with pytest.raises(LimiterError):
            self.limiter.done(slot)

    @invariant()
    def the_limit_is_within_its_bounds(self) -> None:
        assert self.limiter.spec.minimum <= self.limiter.limit <= self.limiter.spec.maximum
        assert self.limiter.in_flight == len(self.running)


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase
