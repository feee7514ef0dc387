"""
Ejection of one target that keeps failing, and the way back through a single probe.

A breaker sees only what tells about the target: server errors and broken connections count, throttling and slow
answers count softly, a cancelled call or a 4xx does not. Two signals, because failures in a row react at once but miss
a target that fails every second call, and a share sees that but needs a number of calls. Left out: what becomes of a
call that finds every target ejected (`attempts`), and anything about money.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spendmesh_sidecar.core.failures.breaker_states import (
    BESIDE,
    TRANSITIONS,
    BreakerError as BreakerError,
    Event,
    Permit as Permit,
    Reason as Reason,
    Rng as Rng,
    State as State,
    Verdict as Verdict,
    beside,
)
from spendmesh_sidecar.core.failures.failure_window import FailureWindow
from spendmesh_sidecar.core.specs import BreakerSpec

JITTER = 0.5
"""Added fraction of an ejection, drawn anew each time (Linkerd's jitter ratio), so that pods do not return as one."""
PROBE_LEASE_SECONDS = 60.0
"""A probe that tells nothing for so long is given up, and the next call probes: a probe that is never settled would
otherwise eject for ever (resilience4j #544). Linkerd and Polly wait one ejection or break, 5 s to 60 s."""
FORCED_RETRY_SECONDS = 60.0
"""What a client is told while `ForcedOpen` stands: nobody knows when a person will change it."""

MAX_BREAKERS = 256
"""Targets that are remembered: model names come from clients, and a policy has a few dozen targets."""

HARD: frozenset[Reason] = frozenset({"dishonest_usage"})
"""Ejections that also hold where no other target is left: a call would be billed falsely."""


@dataclass(slots=True)
class Breaker:
    """
    One target's breaker: `breaker_states.TRANSITIONS` says which state follows, here is when.

    | event        | when                                                                                          |
    |--------------|-----------------------------------------------------------------------------------------------|
    | tripped      | the n-th failure in a row; a bad call, if they are too large a share of enough calls; `trip`   |
    | due          | leave is asked for after the ejection, which doubles each time up to a maximum, with jitter   |
    | recovered    | the probe's first good byte, or its good end                                                  |
    | relapsed     | the probe fails, is throttled or slow                                                         |
    | switched_off | leave is asked for under a policy that ejects nothing                                         |

    A probe that is cancelled or refused says nothing: the next call probes. Results of an older generation are dropped,
    so that slow answers from before an ejection do not decide a probe (Polly #216).
    """

    spec: BreakerSpec
    generation: int = BESIDE + 1
    ejections: int = 0
    """In a row, without a quiet time between: the exponent of the next ejection."""
    reason: Reason | None = None
    """Of the last ejection."""
    ejected_for: dict[Reason, int] = field(default_factory=dict)
    """All ejections by reason, for metrics."""
    probes: int = 0
    bypasses: int = 0
    """Calls that went to it although it was ejected."""
    _state: State = "serving"
    _failures: int = 0
    _window: FailureWindow = field(init=False)
    _ejected_until: float = 0.0
    _serving_since: float = 0.0
    _last_ejection_seconds: float = 0.0
    _hinted_until: float = 0.0
    _probe: Permit | None = None
    _probe_until: float = 0.0

    def __post_init__(self) -> None:
        self._window = FailureWindow(self.spec.failure_interval_ms)

    def obey(self, spec: BreakerSpec) -> None:
        """Go on under another spec; counted calls are kept unless the interval changed."""
        if spec.failure_interval_ms != self.spec.failure_interval_ms:
            self._window = FailureWindow(spec.failure_interval_ms)
        self.spec = spec

    def state(self, now: float) -> State:
        """As metrics and `/status` say it."""
        if self.spec.mode == "ForcedOpen":
            return "ejected"
        return "probing" if self._state == "ejected" and now >= self._ejected_until else self._state

    @property
    def worth(self) -> int:
        """How much is lost with it: 0 a few counted calls at most, 1 failures in a row or a history, 2 an ejection."""
        if self._state != "serving":
            return 2
        return 1 if self._failures or self.generation > BESIDE + 1 else 0

    @property
    def hard(self) -> bool:
        """No call goes to it while it is ejected, whatever the policy says about the last target."""
        return self.spec.mode == "ForcedOpen" or self.reason in HARD

    def reopens_in(self, now: float) -> float:
        """Seconds until a call may be let through; 0 when one may now."""
        spec = self.spec
        if spec.mode == "ForcedOpen":
            return FORCED_RETRY_SECONDS
        if self._state == "serving" or spec.consecutive_5xx_errors == 0:
            return 0.0
        if self._state == "ejected":
            return max(0.0, self._ejected_until - now)
        return max(0.0, self._probe_until - now) if self._probe is not None else 0.0

    def permit(self, now: float) -> Permit | None:
        """Leave for one call, or None. While probing, only one call at a time has leave."""
        if self._state == "serving" and self.spec.mode != "ForcedOpen":
            return Permit(self.generation)
        if self.reopens_in(now) > 0:
            return None
        if self.spec.consecutive_5xx_errors == 0:
            self._move(Event.SWITCHED_OFF)
            return Permit(self.generation)
        if self._state == "ejected":
            self._move(Event.DUE)
        self._probe = Permit(self.generation, probe=True)
        self._probe_until = now + PROBE_LEASE_SECONDS
        self.probes += 1
        return self._probe

    def bypass(self) -> Permit:
        """Leave for a call although the target is ejected: its result decides nothing."""
        self.bypasses += 1
        return beside()

    def begun(self, permit: Permit, now: float, rng: Rng, *, waited_seconds: float = 0.0) -> Permit:
        """
        The target began a good answer, so long after it was asked. Ends a probe, since an answer can take minutes.

        Answers the permit to settle at the end, under which a broken stream still counts.
        """
        longest = self.spec.slow_first_byte_ms
        slow = 0 < longest < waited_seconds * 1000
        if not permit.probe or permit.settled:
            permit.slow = slow
            return permit
        self.settle(permit, Verdict.SOFT_FAILURE if slow else Verdict.SUCCESS, now, rng)
        return Permit(self.generation) if self._state == "serving" else beside()

    def settle(self, permit: Permit, verdict: Verdict, now: float, rng: Rng) -> None:
        """Count a call's result. Every permit is settled exactly once; raises BreakerError the second time."""
        if permit.settled:
            raise BreakerError("this permit was settled before")
        permit.settled = True
        if permit.generation != self.generation:
            return
        if permit.slow and verdict is Verdict.SUCCESS:
            verdict = Verdict.SOFT_FAILURE
        if permit.probe:
            self._settle_probe(permit, verdict, now, rng)
        elif verdict is Verdict.SUCCESS:
            self._failures = 0
            self._window.add(now, bad=False)
            if self.ejections and now - self._serving_since >= self._last_ejection_seconds:
                self.ejections = 0
        elif verdict is not Verdict.NEUTRAL:
            self._failed(verdict, now, rng)

    def hint(self, until: float) -> None:
        """
        Another sidecar has ejected this target until then: meanwhile a failure is judged by its share of however few
        calls. Alone it ejects nothing, so that one sidecar with a broken network does not close a target to all.
        """
        self._hinted_until = max(self._hinted_until, until)

    def hinted(self, now: float) -> bool:
        """Whether another sidecar's ejection is known to stand."""
        return now < self._hinted_until

    def trip(self, now: float, rng: Rng, reason: Reason) -> None:
        """Eject at once. What is ejected already stays so for as long as it was going to."""
        if self._state != "ejected" and self.spec.consecutive_5xx_errors > 0:
            self._eject(Event.TRIPPED, now, rng, reason)

    def _failed(self, verdict: Verdict, now: float, rng: Rng) -> None:
        spec = self.spec
        self._window.add(now, bad=True)
        if verdict is Verdict.FAILURE:
            self._failures += 1
        if spec.consecutive_5xx_errors == 0:
            return
        if verdict is Verdict.FAILURE and self._failures >= spec.consecutive_5xx_errors:
            self._eject(Event.TRIPPED, now, rng, "consecutive")
            return
        if spec.failure_percent == 0:
            return
        calls, bad = self._window.totals(now)
        # throttling is often one key's own: under a hint too it takes the usual number of calls
        least = 1 if verdict is Verdict.FAILURE and self.hinted(now) else spec.min_requests
        if calls >= least and bad * 100 >= calls * spec.failure_percent:
            self._eject(Event.TRIPPED, now, rng, "ratio")

    def _settle_probe(self, permit: Permit, verdict: Verdict, now: float, rng: Rng) -> None:
        if permit is not self._probe:
            return  # lost before: another probe has taken its place
        self._probe = None
        if verdict is Verdict.SUCCESS:
            self._move(Event.RECOVERED)
            self._serving_since, self._hinted_until = now, 0.0
        elif verdict is not Verdict.NEUTRAL:
            self._eject(Event.RELAPSED, now, rng, self.reason if self.hard and self.reason else "probe")

    def _eject(self, event: Event, now: float, rng: Rng, reason: Reason) -> None:
        self._move(event)
        base, longest = self.spec.base_ejection_ms / 1000, self.spec.max_ejection_ms / 1000
        # the exponent is capped where any base has long reached its maximum; larger ones only overflow
        seconds = min(longest, base * 2 ** min(self.ejections, 32))
        self._last_ejection_seconds = min(longest, seconds * (1 + JITTER * rng.random()))
        self._ejected_until = now + self._last_ejection_seconds
        self.ejections += 1
        self.reason = reason
        self.ejected_for[reason] = self.ejected_for.get(reason, 0) + 1

    def _move(self, event: Event) -> None:
        after = TRANSITIONS.get((self._state, event))
        if after is None:
            raise BreakerError(f"{event.value} cannot happen to a target that is {self._state}")
        self._state, self._failures, self._probe = after, 0, None
        self.generation += 1
        self._window.clear()


@dataclass(slots=True)
class Breakers:
    """
    The breakers of one sidecar by target (`alias/model`); they outlive policy swaps.

    Past `MAX_BREAKERS` the oldest that has nothing to remember makes room, else the oldest that serves.
    """

    _breakers: dict[str, Breaker] = field(default_factory=dict)

    def of(self, key: str, spec: BreakerSpec) -> Breaker:
        """The target's breaker, under the spec now in force."""
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._forget_one()
            breaker = self._breakers[key] = Breaker(spec)
        elif breaker.spec is not spec:
            breaker.obey(spec)
        return breaker

    def items(self) -> Iterator[tuple[str, Breaker]]:
        """All targets that are remembered, for metrics and `/status`."""
        yield from self._breakers.items()

    def _forget_one(self) -> None:
        del self._breakers[min(self._breakers, key=lambda key: self._breakers[key].worth)]
