"""The breaker beside a naive one, under any order of calls, results, lost results, cancelled calls and other specs."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec.structs import replace

from spendmesh_sidecar.core.failures.breaker import (
    FORCED_RETRY_SECONDS,
    JITTER,
    PROBE_LEASE_SECONDS,
    Breaker,
    BreakerError,
    Permit,
    Reason,
    Verdict,
)
from spendmesh_sidecar.core.failures.failure_window import SLOTS
from spendmesh_sidecar.core.specs import BreakerSpec

ROUNDING = 1e-6
"""Seconds: sums of floats on both sides differ in their last bits."""

SPECS = st.builds(
    BreakerSpec,
    mode=st.sampled_from(("Enforce", "Enforce", "Observe", "ForcedOpen")),
    consecutive_5xx_errors=st.integers(0, 4),
    failure_percent=st.sampled_from((0, 30, 50, 100)),
    failure_interval_ms=st.just(10_000),
    min_requests=st.integers(1, 6),
    slow_first_byte_ms=st.sampled_from((0, 2_000)),
    base_ejection_ms=st.integers(100, 10_000),
    max_ejection_ms=st.integers(10_000, 40_000),
)


class Naive:
    """The same promises in the plainest way: everything that happened in this state, in a list."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.state = rng, "serving"
        self.results: list[tuple[float, Verdict]] = []
        self.until, self.in_a_row, self.length, self.served_since = 0.0, 0, 0.0, 0.0
        self.probe: tuple[Permit, float] | None = None
        self.hinted_until = 0.0

    def enter(self, state: str) -> None:
        self.state, self.results, self.probe = state, [], None

    def wait(self, spec: BreakerSpec, now: float) -> float:
        if spec.mode == "ForcedOpen":
            return FORCED_RETRY_SECONDS
        if self.state == "serving" or spec.consecutive_5xx_errors == 0:
            return 0.0
        if self.state == "ejected":
            return max(0.0, self.until - now)
        return 0.0 if self.probe is None else max(0.0, self.probe[1] + PROBE_LEASE_SECONDS - now)

    def eject(self, spec: BreakerSpec, now: float) -> None:
        grown = min(spec.base_ejection_ms * 2**self.in_a_row, spec.max_ejection_ms) / 1000
        self.length = min(grown * (1 + JITTER * self.rng.random()), spec.max_ejection_ms / 1000)
        self.until, self.in_a_row = now + self.length, self.in_a_row + 1
        self.enter("ejected")

    def count(self, spec: BreakerSpec, verdict: Verdict, now: float) -> None:
        if verdict is Verdict.NEUTRAL:
            return
        self.results.append((now, verdict))
        if verdict is Verdict.SUCCESS:
            if now - self.served_since >= self.length:
                self.in_a_row = 0
            return
        slots = SLOTS * 1000 / spec.failure_interval_ms
        recent = [one for at, one in self.results if int(now * slots) - int(at * slots) < SLOTS]
        bad = [one for one in recent if one is not Verdict.SUCCESS]
        row = 0
        for _, one in self.results:
            row = 0 if one is Verdict.SUCCESS else row + (one is Verdict.FAILURE)
        hinted = verdict is Verdict.FAILURE and now < self.hinted_until
        too_many = (
            len(recent) >= (1 if hinted else spec.min_requests)
            and len(bad) * 100 >= len(recent) * spec.failure_percent > 0
        )
        in_a_row = verdict is Verdict.FAILURE and row >= spec.consecutive_5xx_errors
        if spec.consecutive_5xx_errors and (in_a_row or too_many):
            self.eject(spec, now)

    def probed(self, spec: BreakerSpec, verdict: Verdict, now: float) -> None:
        self.probe = None
        if verdict is Verdict.SUCCESS:
            self.enter("serving")
            self.served_since, self.hinted_until = now, 0.0
        elif verdict is not Verdict.NEUTRAL:
            self.eject(spec, now)


class BreakerMachine(RuleBasedStateMachine):
    """Calls that get leave or not, and results that come in any order, late, or never."""

    permits = Bundle("permits")
    settled = Bundle("settled")

    @initialize(spec=SPECS, seed=st.integers(0, 2**16))
    def start(self, spec: BreakerSpec, seed: int) -> None:
        self.spec, self.breaker, self.now = spec, Breaker(spec), 100.0
        self.rng, self.naive = random.Random(seed), Naive(random.Random(seed))
        self.counting: set[int] = set()
        """Permits (by identity) whose result the naive one still counts: given in the state that it is in now."""
        self.kept: list[Permit | None] = []
        self.probes: dict[int, list[tuple[Permit, float]]] = {}

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 100)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(0, 20))
    def hint(self, seconds: float) -> None:
        """Another sidecar has ejected the target: a word that by itself moves nothing."""
        before = self.breaker.state(self.now), self.breaker.generation
        self.breaker.hint(self.now + seconds)
        self.naive.hinted_until = max(self.naive.hinted_until, self.now + seconds)
        assert (self.breaker.state(self.now), self.breaker.generation) == before

    @rule(spec=SPECS)
    def another_spec(self, spec: BreakerSpec) -> None:
        self.spec = spec
        self.breaker.obey(spec)

    @rule(target=permits)
    def call(self) -> Permit | None:
        expected, before = self.naive.wait(self.spec, self.now), self.naive.state
        permit = self.breaker.permit(self.now)
        self.kept.append(permit)  # so that no identity is used twice
        assert (permit is None) == (expected > 0)
        if permit is None:
            return self.breaker.bypass()
        if self.spec.consecutive_5xx_errors == 0 and before != "serving":
            self.move("serving")
        elif before == "ejected":
            self.move("probing")
        assert permit.probe == (self.naive.state == "probing")
        if permit.probe:
            earlier = self.probes.setdefault(permit.generation, [])
            assert all(one.settled or self.now - at >= PROBE_LEASE_SECONDS - ROUNDING for one, at in earlier), (
                "two probes at once in one generation"
            )
            earlier.append((permit, self.now))
            self.naive.probe = (permit, self.now)
        self.counting.add(id(permit))
        return permit

    def move(self, state: str) -> None:
        self.naive.enter(state)
        self.counting.clear()

    def told(self, permit: Permit, verdict: Verdict) -> None:
        """What the naive one makes of a result."""
        if id(permit) not in self.counting:
            return
        before = self.naive.state, len(self.naive.results)
        if not permit.probe:
            self.naive.count(self.spec, verdict, self.now)
        elif self.naive.probe is not None and self.naive.probe[0] is permit:
            self.naive.probed(self.spec, verdict, self.now)
        if self.naive.state != before[0]:
            self.counting.clear()

    @rule(target=settled, permit=consumes(permits), verdict=st.sampled_from(list(Verdict)))
    def result(self, permit: Permit, verdict: Verdict) -> Permit:
        slow = permit.slow and verdict is Verdict.SUCCESS
        self.told(permit, Verdict.SOFT_FAILURE if slow else verdict)
        self.breaker.settle(permit, verdict, self.now, self.rng)
        return permit

    @rule(target=permits, permit=consumes(permits), waited=st.sampled_from((0.5, 2.5)))
    def first_byte(self, permit: Permit, waited: float) -> Permit:
        slow = self.spec.slow_first_byte_ms > 0 and waited > 2
        if permit.probe:
            self.told(permit, Verdict.SOFT_FAILURE if slow else Verdict.SUCCESS)
        rest = self.breaker.begun(permit, self.now, self.rng, waited_seconds=waited)
        self.kept.append(rest)
        assert not rest.probe and not rest.settled
        if rest is not permit:
            assert permit.settled
            if self.naive.state == "serving":
                self.counting.add(id(rest))
        return rest

    @rule(permit=settled)
    def a_permit_settles_once(self, permit: Permit) -> None:
        with pytest.raises(BreakerError):
            self.breaker.settle(permit, Verdict.SUCCESS, self.now, self.rng)

    @rule(reason=st.sampled_from(("ratio", "dishonest_usage")))
    def trip(self, reason: Reason) -> None:
        if self.naive.state != "ejected" and self.spec.consecutive_5xx_errors:
            self.naive.eject(self.spec, self.now)
            self.counting.clear()
        self.breaker.trip(self.now, self.rng, reason)

    @invariant()
    def it_is_where_the_naive_one_is(self) -> None:
        due = self.naive.state == "ejected" and self.now >= self.naive.until
        shown = "ejected" if self.spec.mode == "ForcedOpen" else "probing" if due else self.naive.state
        assert self.breaker.state(self.now) == shown
        assert self.breaker.reopens_in(self.now) == pytest.approx(self.naive.wait(self.spec, self.now), abs=ROUNDING)

    @rule()
    def a_target_that_works_again_serves_again(self) -> None:
        """Liveness: whatever happened, after the longest wait one good probe brings the target back."""
        self.another_spec(replace(self.spec, mode="Enforce"))
        self.now += max(self.naive.wait(self.spec, self.now), PROBE_LEASE_SECONDS) + ROUNDING
        permit = self.call()
        assert permit is not None and permit.generation == self.breaker.generation
        self.result(permit, Verdict.SUCCESS)
        assert self.breaker.state(self.now) == "serving"


BreakerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase
