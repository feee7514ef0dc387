"""
How many calls one target gets at once, learned from its throttling: additive increase, multiplicative decrease.

Why throttling and not latency: an answer takes as long as its output, so that a slow one says nothing of load. Why at
once: a provider that counts refused calls too, as OpenAI does, is not relieved by trying. Nothing waits here; what
becomes of a call that finds every target full is the policy's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from spendmesh_sidecar.core.specs import ConcurrencySpec

MAX_LIMITERS = 256
"""Targets that are remembered: model names come from clients, and a policy has a few dozen targets."""


class Slot(Struct, gc=False):
    """The place of one call. Given back exactly once."""

    epoch: int
    given_back: bool = False


class LimiterError(RuntimeError):
    """A slot was given back twice: a defect of the caller."""


@dataclass(slots=True)
class Limiter:
    """
    The limit of one target. It begins at the maximum, so that a target that never throttles is never limited.

    | end of a call                                        | the limit                                             |
    |------------------------------------------------------|-------------------------------------------------------|
    | throttled, sent after the last decrease and its hint | `decrease_percent` less than what was in flight       |
    | throttled otherwise                                  | stays: the same congestion (TCP: once a round trip)   |
    | good, while at least half of the limit was in use    | grows, by `increase` in each round trip               |
    | anything else                                        | stays                                                 |
    """

    spec: ConcurrencySpec
    limit: float = field(init=False)
    in_flight: int = 0
    full: int = 0
    """Calls that found no place, for metrics."""
    _epoch: int = 0
    """Decreases so far: a slot of an older one was taken before the last."""
    _held_until: float = 0.0

    def __post_init__(self) -> None:
        self.limit = float(self.spec.maximum)

    def obey(self, spec: ConcurrencySpec) -> None:
        """Go on under another spec, within its bounds."""
        self.spec = spec
        self.limit = min(max(self.limit, float(spec.minimum)), float(spec.maximum))

    @property
    def has_room(self) -> bool:
        """Whether another call may go now."""
        return self.in_flight < int(self.limit)

    def take(self) -> Slot:
        """A call is sent, also beyond the limit where the policy says so."""
        self.in_flight += 1
        return Slot(self._epoch)

    def good(self, slot: Slot) -> None:
        """The call succeeded."""
        used = self.in_flight
        self.done(slot)
        if used * 2 >= self.limit < self.spec.maximum:
            self.limit = min(float(self.spec.maximum), self.limit + self.spec.increase / self.limit)

    def throttled(self, slot: Slot, now: float, hint_seconds: float) -> None:
        """The provider throttled it, and asks for so long a pause (0: it does not say)."""
        used = self.in_flight
        self.done(slot)
        if slot.epoch != self._epoch or now < self._held_until:
            return
        self._epoch += 1
        self._held_until = now + hint_seconds
        lowered = min(self.limit, float(used)) * (100 - self.spec.decrease_percent) / 100
        self.limit = max(float(self.spec.minimum), lowered)

    def done(self, slot: Slot) -> None:
        """The call ended in any other way. Raises LimiterError the second time."""
        if slot.given_back:
            raise LimiterError("this slot was given back before")
        slot.given_back = True
        self.in_flight -= 1


@dataclass(slots=True)
class Limiters:
    """The limiters of one sidecar by target (`alias/model`); they outlive policy swaps. Past a bound, idle ones go."""

    _limiters: dict[str, Limiter] = field(default_factory=dict)

    def of(self, key: str, spec: ConcurrencySpec) -> Limiter:
        """The target's limiter, under the spec now in force."""
        limiter = self._limiters.get(key)
        if limiter is None:
            if len(self._limiters) >= MAX_LIMITERS:
                self._forget_idle()
            limiter = self._limiters[key] = Limiter(spec)
        elif limiter.spec is not spec:
            limiter.obey(spec)
        return limiter

    def items(self) -> Iterator[tuple[str, Limiter]]:
        """All targets that are remembered, for metrics and `/status`."""
        yield from self._limiters.items()

    def _forget_idle(self) -> None:
        """Those with calls in flight stay, however many: a new one would not know of them."""
        idle = [key for key, limiter in self._limiters.items() if not limiter.in_flight]
        if idle:
            del self._limiters[min(idle, key=lambda key: self._limiters[key]._epoch)]
