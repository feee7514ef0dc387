"""Laws of the breaker under any order of calls, results, lost results and pauses."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spendmesh_sidecar.core.breaker import JITTER, PROBE_LEASE_SECONDS, Breaker, BreakerError, Permit, Verdict
from spendmesh_sidecar.core.specs import BreakerSpec

ROUNDING = 1e-6
"""Seconds: sums of floats on both sides differ in their last bits."""


class BreakerMachine(RuleBasedStateMachine):
    """Calls that get leave or not, and results that come in any order, late, or never."""

    permits = Bundle("permits")
    settled = Bundle("settled")

    @initialize(failures=st.integers(1, 4), base=st.integers(100, 10_000), seed=st.integers(0, 2**16))
    def start(self, failures: int, base: int, seed: int) -> None:
        self.spec = BreakerSpec(consecutive_5xx_errors=failures, base_ejection_ms=base, max_ejection_ms=base * 4)
        self.breaker = Breaker(self.spec)
        self.rng = random.Random(seed)
        self.now = 100.0
        self.probes: dict[int, tuple[Permit, float]] = {}
        self.failures_in_a_row = 0

    @rule(seconds=st.floats(0, 100, allow_nan=False))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits)
    def call(self) -> Permit | None:
        state, wait = self.breaker.state(self.now), self.breaker.reopens_in(self.now)
        permit = self.breaker.permit(self.now)
        assert (permit is None) == (wait > 0)
        if state == "serving":
            assert permit is not None and not permit.probe
        if permit is not None and permit.probe:
            before = self.probes.get(permit.generation)
            if before is not None:
                lost = self.now - before[1] >= PROBE_LEASE_SECONDS - ROUNDING
                assert before[0].settled or lost, "two probes at once in one generation"
            self.probes[permit.generation] = (permit, self.now)
        return permit

    @rule(target=settled, permit=consumes(permits), verdict=st.sampled_from(list(Verdict)))
    def result(self, permit: Permit | None, verdict: Verdict) -> Permit | None:
        if permit is None:
            return None
        stale = permit.generation != self.breaker.generation
        before = (self.breaker.state(self.now), self.breaker.generation)
        self.breaker.settle(permit, verdict, self.now, self.rng)
        after = (self.breaker.state(self.now), self.breaker.generation)
        if stale or verdict is Verdict.NEUTRAL:
            assert after == before, "a stale or neutral result changed the state"
        elif not permit.probe:
            self.failures_in_a_row = self.failures_in_a_row + 1 if verdict is Verdict.FAILURE else 0
            assert (after[0] == "ejected") == (self.failures_in_a_row >= self.spec.consecutive_5xx_errors)
        if after[1] != before[1]:
            self.failures_in_a_row = 0
        return permit

    @rule(permit=settled)
    def a_permit_settles_once(self, permit: Permit | None) -> None:
        if permit is not None:
            with pytest.raises(BreakerError):
                self.breaker.settle(permit, Verdict.SUCCESS, self.now, self.rng)

    @invariant()
    def an_ejection_ends(self) -> None:
        longest = max(self.spec.max_ejection_ms / 1000, PROBE_LEASE_SECONDS)
        assert 0 <= self.breaker.reopens_in(self.now) <= longest + ROUNDING

    @rule()
    def a_target_that_works_again_serves_again(self) -> None:
        """Liveness: whatever happened, after the longest wait one good probe brings the target back."""
        later = self.now + max(self.spec.max_ejection_ms / 1000 * (1 + JITTER), PROBE_LEASE_SECONDS) + ROUNDING
        permit = self.breaker.permit(later)
        assert permit is not None
        self.breaker.settle(permit, Verdict.SUCCESS, later, self.rng)
        assert self.breaker.state(later) == "serving"
        self.now = later
        self.failures_in_a_row = 0


BreakerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase
