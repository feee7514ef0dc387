"""
What breakers and limits of concurrency say of the targets of one exchange, and what its tries tell them.

Here the policy's modes meet the breakers' states: what is only observed is asked and told the same, and obeyed by
nobody. Left out: pauses and accounts (`restraints`), and which target is tried (`attempts`).
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.failures.breaker import Breaker, Breakers, Permit, Rng
from spendmesh_sidecar.core.failures.concurrency import Limiters, Slot
from spendmesh_sidecar.core.failures.restraints import MAX_PAUSE_SECONDS
from spendmesh_sidecar.core.failures.retry_rules import hint_of, throttling, verdict
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Kind, Outcome


class TargetHealth(Struct, gc=False):
    """One try at a time: `take` before it, `begun` at its first good byte, `settle` at its end."""

    spec: RetrySpec
    breakers: Breakers
    rng: Rng
    limiters: Limiters
    _sent: float = 0.0
    """When the try in flight was."""
    _slot: Slot | None = None
    """Of the try in flight."""

    @property
    def observed(self) -> bool:
        """Nothing is refused, whatever the breakers decide."""
        return self.spec.breaker.mode == "Observe" or self.spec.mode == "Observe"

    def of(self, priced: Priced) -> Breaker:
        """The target's breaker."""
        return self.breakers.of(priced.candidate.key, self.spec.breaker)

    def ejected_for(self, priced: Priced, now: float) -> float:
        """Seconds until the target may be called; 0 where it may be now."""
        wait = self.of(priced).reopens_in(now)
        return wait if wait <= 0 or not self.observed else 0.0

    def obstacle(self, priced: Priced, now: float) -> str:
        """Why the target may not be called, for people; empty: it may."""
        if (wait := self.ejected_for(priced, now)) <= 0:
            return ""
        if self.spec.breaker.mode == "ForcedOpen":
            return f"RetryBudget {self.spec.name} says circuitBreaker.mode ForcedOpen"
        return f"ejected for {wait:.1f} s more"

    def crowded(self, priced: Priced) -> str:
        """Why the target takes no further call now, for people; empty: it has room, or nothing bounds it."""
        if (spec := self.spec.concurrency) is None or self.spec.mode == "Observe":
            return ""
        limiter = self.limiters.of(priced.candidate.key, spec)
        if limiter.has_room:
            return ""
        limiter.full += 1
        return f"at its limit of {int(limiter.limit)} calls at once"

    @property
    def overcrowds(self) -> bool:
        """Whether a full target may be called where no other has room."""
        return self.spec.concurrency is not None and self.spec.concurrency.on_limit == "Serve"

    def spared(self, priced: Priced) -> bool:
        """Whether an ejected target may be called where no other is left."""
        return self.spec.breaker.on_all_ejected == "Serve" and not self.of(priced).hard

    def take(self, priced: Priced, now: float) -> Permit:
        """The try is sent now, whether the breaker would let it or not."""
        self._sent = now
        if self.spec.concurrency is not None:
            self._slot = self.limiters.of(priced.candidate.key, self.spec.concurrency).take()
        breaker = self.of(priced)
        return breaker.permit(now) or breaker.bypass()

    def begun(self, priced: Priced, permit: Permit, now: float, *, streamed: bool) -> Permit:
        """
        The first byte of a good answer came; the permit to settle at its end.

        Only a streamed one can be slow: others come when they are whole.
        """
        waited = now - self._sent if streamed else 0.0
        return self.of(priced).begun(permit, now, self.rng, waited_seconds=waited)

    def settle(self, priced: Priced, permit: Permit, outcome: Outcome, now: float, *, trip: bool) -> None:
        """How the try went; `trip` ejects the target at once: it reported usage that cannot be."""
        breaker = self.of(priced)
        breaker.settle(permit, verdict(outcome), now, self.rng)
        if self._slot is not None:
            self._give_back(priced, self._slot, outcome, now)
        if trip:
            breaker.trip(now, self.rng, "dishonest_usage")

    def _give_back(self, priced: Priced, slot: Slot, outcome: Outcome, now: float) -> None:
        self._slot = None
        assert self.spec.concurrency is not None
        limiter = self.limiters.of(priced.candidate.key, self.spec.concurrency)
        if outcome.kind is Kind.SUCCESS:
            limiter.good(slot)
        elif throttling(outcome):
            limiter.throttled(slot, now, min(hint_of(outcome), MAX_PAUSE_SECONDS))
        else:
            limiter.done(slot)
