"""
Ejection of one target that keeps failing, and the way back through a single probe.

States are `serving`, `ejected`, `probing` ("open" and "closed" mean opposite things in different projects).
A breaker sees only what tells about the target: server errors and broken connections count, a cancelled call, a
4xx or a 429 does not. Left out: choosing another target (`router`), and anything about money.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from msgspec import Struct

from spendmesh_sidecar.core.specs import BreakerSpec

JITTER = 0.5
"""Added fraction of an ejection, drawn anew each time (Linkerd's jitter ratio), so that pods do not return as one."""
PROBE_LEASE_SECONDS = 60.0
"""A probe that tells nothing for so long is given up, and the next call probes: a probe that is never settled would
otherwise eject for ever (resilience4j #544). Linkerd and Polly wait one ejection or break, 5 s to 60 s."""


MAX_BREAKERS = 256
"""Targets that are remembered: model names come from clients, and a policy has a few dozen targets."""


class Rng(Protocol):
    """Chance, handed in: `random.Random` in the shell, seeded in tests."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class BreakerError(RuntimeError):
    """A permit was settled twice: a defect of the caller."""


class Verdict(Enum):
    """What one call says about its target."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    """Nothing: cancelled, refused by the provider for the caller's own reasons, or throttled."""


State = Literal["serving", "ejected", "probing"]


class Permit(Struct, gc=False):
    """Leave to make one call. Its result counts only in the generation it was given in."""

    generation: int
    probe: bool
    settled: bool = False


@dataclass(slots=True)
class Breaker:
    """
    The transition table; what is not in it changes nothing.

    | state   | event                            | next    |
    |---------|----------------------------------|---------|
    | serving | n-th consecutive failure         | ejected |
    | ejected | permit asked after the ejection  | probing |
    | probing | the probe succeeds               | serving |
    | probing | the probe fails                  | ejected (twice as long) |
    | probing | the probe is neutral or lost     | probing (the next call probes) |

    Each transition begins a generation; results of older generations are dropped, so that slow answers from before
    an ejection do not decide a probe (Polly #216).
    """

    spec: BreakerSpec
    generation: int = 0
    ejections: int = 0
    """In a row, without a quiet time between: the exponent of the next ejection."""
    _state: State = "serving"
    _failures: int = 0
    _ejected_until: float = 0.0
    _serving_since: float = 0.0
    _last_ejection_seconds: float = 0.0
    _probe: Permit | None = None
    _probe_until: float = 0.0

    def state(self, now: float) -> State:
        """As metrics and `/status` say it."""
        return "probing" if self._state == "ejected" and now >= self._ejected_until else self._state

    @property
    def worth(self) -> int:
        """How much is lost with it: 0 nothing (a new one would be the same), 1 a count of failures, 2 an ejection."""
        if self._state != "serving":
            return 2
        return 1 if self._failures or self.generation else 0

    def reopens_in(self, now: float) -> float:
        """Seconds until a call may be let through; 0 when one may now."""
        if self.spec.consecutive_5xx_errors == 0:
            return 0.0
        if self._state == "ejected":
            return max(0.0, self._ejected_until - now)
        if self._state == "probing" and self._probe is not None:
            return max(0.0, self._probe_until - now)
        return 0.0

    def permit(self, now: float) -> Permit | None:
        """Leave for one call, or None. While probing, only one call at a time has leave."""
        if self._state != "serving" and self.spec.consecutive_5xx_errors == 0:
            self._move("serving")  # ejection was switched off since
        if self._state == "serving":
            return Permit(self.generation, probe=False)
        if self.reopens_in(now) > 0:
            return None
        if self._state == "ejected":
            self._move("probing")
        self._probe = Permit(self.generation, probe=True)
        self._probe_until = now + PROBE_LEASE_SECONDS
        return self._probe

    def begun(self, permit: Permit, now: float) -> Permit:
        """
        The target began a good answer. Ends a probe at its first byte, since an answer can take minutes.

        Answers the permit to settle at the end, under which a broken stream still counts.
        """
        if not permit.probe or permit.settled:
            return permit
        self.settle(permit, Verdict.SUCCESS, now, _NoChance())
        return Permit(self.generation, probe=False)

    def settle(self, permit: Permit, verdict: Verdict, now: float, rng: Rng) -> None:
        """Count a call's result. Every permit is settled exactly once; raises BreakerError the second time."""
        if permit.settled:
            raise BreakerError("this permit was settled before")
        permit.settled = True
        if permit.generation != self.generation:
            return
        if permit.probe:
            self._settle_probe(permit, verdict, now, rng)
        elif verdict is Verdict.SUCCESS:
            self._failures = 0
            if now - self._serving_since >= self._last_ejection_seconds:
                self.ejections = 0
        elif verdict is Verdict.FAILURE:
            self._failures += 1
            if 0 < self.spec.consecutive_5xx_errors <= self._failures:
                self._eject(now, rng)

    def trip(self, now: float, rng: Rng) -> None:
        """Eject at once: the target was caught at something that no number of good answers excuses."""
        if self._state != "ejected" and self.spec.consecutive_5xx_errors > 0:
            self._eject(now, rng)

    def _settle_probe(self, permit: Permit, verdict: Verdict, now: float, rng: Rng) -> None:
        if permit is not self._probe:
            return  # lost before: another probe has taken its place
        self._probe = None
        if verdict is Verdict.SUCCESS:
            self._move("serving")
            self._serving_since = now
        elif verdict is Verdict.FAILURE:
            self._eject(now, rng)

    def _eject(self, now: float, rng: Rng) -> None:
        base, longest = self.spec.base_ejection_ms / 1000, self.spec.max_ejection_ms / 1000
        # the exponent is capped where any base has long reached its maximum; larger ones only overflow
        seconds = min(longest, base * 2 ** min(self.ejections, 32))
        self._last_ejection_seconds = min(longest, seconds * (1 + JITTER * rng.random()))
        self._ejected_until = now + self._last_ejection_seconds
        self.ejections += 1
        self._probe = None
        self._move("ejected")

    def _move(self, state: State) -> None:
        self._state = state
        self._failures = 0
        self.generation += 1


class _NoChance:
    """For settlements that draw nothing."""

    def random(self) -> float:
        return 0.0


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
            breaker.spec = spec
        return breaker

    def items(self) -> Iterator[tuple[str, Breaker]]:
        """All targets that are remembered, for metrics and `/status`."""
        yield from self._breakers.items()

    def _forget_one(self) -> None:
        del self._breakers[min(self._breakers, key=lambda key: self._breakers[key].worth)]
