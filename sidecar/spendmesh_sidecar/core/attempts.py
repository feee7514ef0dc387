"""
Which target is tried next, whether another try is worth it, and how long to wait before it.

Retries stay on the target while there is a retry to spare; the last one goes to the next target (failover), and so
does any retry that waiting cannot help: no connection, or a Retry-After longer than we wait. Every retry is paid from
the retry budget when it is decided, save where the pod has no key for a provider: that was no try. Left out: money
(`reservation`, `settlement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.breaker import Breakers, Permit, Rng, Verdict
from spendmesh_sidecar.core.error_classes import TREATMENTS
from spendmesh_sidecar.core.retry_budget import RetryBudget, Withdrawal
from spendmesh_sidecar.core.router import PassedOver
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Kind, Outcome

Denied = Literal["", "budget", "attempts", "deadline", "retry_after", "no_target"]


def verdict(outcome: Outcome) -> Verdict:
    """What an outcome says about its target: only server errors and broken connections speak against it."""
    if outcome.kind is Kind.SUCCESS:
        return Verdict.SUCCESS
    if outcome.kind in (Kind.CONNECT, Kind.CUT):
        return Verdict.FAILURE
    if outcome.kind in (Kind.CLIENT_GONE, Kind.KEY_MISSING, Kind.UNWRITTEN):
        return Verdict.NEUTRAL
    broke = outcome.kind in (Kind.TIMEOUT, Kind.TRANSIENT, Kind.AMBIGUOUS)
    if outcome.status is None or outcome.status < 400:  # no answer in time, or an error inside a 200
        return Verdict.FAILURE if broke else Verdict.NEUTRAL
    return Verdict.FAILURE if outcome.status >= 500 else Verdict.NEUTRAL


def retryable(outcome: Outcome, spec: RetrySpec) -> bool:
    """Whether another try may help: nothing went downstream yet, and the policy lists the code or nothing was sent."""
    if outcome.committed:
        return False
    again = TREATMENTS[outcome.kind].again
    if again in ("Listed", "Ambiguous"):
        return (outcome.like_status or outcome.status) in spec.codes
    return again == "Unsent"


class Attempts(Struct, gc=False):
    """The tries of one exchange."""

    spec: RetrySpec
    budget: RetryBudget
    breakers: Breakers
    rng: Rng
    targets: tuple[Priced, ...]
    deadline: float
    """Monotonic seconds; checked before every try and every wait (linkerd1 #2369 retried for 5 h past it)."""
    number: int = 0
    last: Priced | None = None
    denied: Denied = ""
    """Why the last failure was not tried again."""
    passed_over: dict[str, PassedOver] = {}
    """Targets that were ejected when they were looked at."""
    _failures: dict[str, int] = {}
    _keyless: set[str] = set()
    """Providers that this pod has no key for; a try at one of them was none."""
    _not_before: dict[str, float] = {}
    """When a target's Retry-After is over: a minimum, by whatever way one comes back to it."""
    _chosen: Priced | None = None
    """Of the retry that was paid for."""
    _leave: bool = False
    _paid: Withdrawal | None = None

    @property
    def observed(self) -> bool:
        """A lone Observe RetryBudget: no retry and no ejection of ours."""
        return self.spec.mode == "Observe"

    def pick(self, now: float) -> Priced | None:
        """The healthy target to try now; the others' reasons go to `passed_over`."""
        if self._chosen is not None and self.healthy(self._chosen, now):
            return self._chosen
        return self._healthy(now, 0.0)

    def _healthy(self, now: float, longest: float) -> Priced | None:
        """The first healthy target that may be called within so many seconds."""
        for priced in self._order():
            key = priced.candidate.key
            if priced.candidate.provider.alias in self._keyless:
                self.passed_over[key] = PassedOver(key, "this pod has no key for it")
                continue
            pause = self._pause(priced, now)
            if not self.healthy(priced, now):
                wait = self._breaker_wait(priced, now)
                self.passed_over[key] = PassedOver(key, f"ejected for {wait:.1f} s more")
            elif pause > longest:
                self.passed_over[key] = PassedOver(key, f"asked not to be called for {pause:.1f} s more")
            else:
                return priced
        return None

    def _pause(self, priced: Priced, now: float) -> float:
        """Seconds until the target's Retry-After is over, also when another one was tried since."""
        return max(0.0, self._not_before.get(priced.candidate.key, now) - now)

    def healthy(self, priced: Priced, now: float) -> bool:
        """Whether a target may be tried now."""
        return self.observed or self._breaker_wait(priced, now) <= 0

    def reopens_in(self, now: float) -> float:
        """Seconds until the first target may be tried again."""
        return min(self._breaker_wait(priced, now) for priced in self.targets)

    def dispatch(self, priced: Priced, now: float, *, first_of_client: bool) -> Permit | None:
        """The try is sent now. None: breakers are only observed."""
        self.number += 1
        self.last = priced
        self._paid = self._chosen = None
        if self.number == 1 and first_of_client:
            self.budget.deposit(now)
        if self.observed:
            return None
        permit = self.breakers.of(priced.candidate.key, self.spec.breaker).permit(now)
        assert permit is not None  # picked as healthy in this same step
        return permit

    def begun(self, permit: Permit | None, now: float) -> Permit | None:
        """A good answer began; the permit to settle at its end."""
        if permit is None or self.last is None:
            return None
        return self.breakers.of(self.last.candidate.key, self.spec.breaker).begun(permit, now)

    def settle(self, permit: Permit | None, outcome: Outcome, now: float, *, trip: bool = False) -> None:
        """Tell the target's breaker how the try went; `trip` ejects it at once."""
        if permit is None or self.last is None:
            return
        breaker = self.breakers.of(self.last.candidate.key, self.spec.breaker)
        breaker.settle(permit, verdict(outcome), now, self.rng)
        if trip:
            breaker.trip(now, self.rng)

    def next_delay(self, outcome: Outcome, now: float) -> float | None:
        """
        Decide another try after a failure and pay for it: seconds to wait before it, or None to stop here.

        Never waits for the budget, and never waits after the last try.
        """
        decided = self._decide(outcome, now)
        self.denied = decided if isinstance(decided, str) else ""
        return None if isinstance(decided, str) else decided

    def _decide(self, outcome: Outcome, now: float) -> float | Denied:
        if self.observed or self.last is None or not retryable(outcome, self.spec):
            return ""
        if outcome.kind is Kind.KEY_MISSING:
            return self._without_key(self.last, now)
        key = self.last.candidate.key
        self._failures[key] = self._failures.get(key, 0) + 1
        left = self.spec.attempts - (self.number - 1 - len(self._keyless))
        if left <= 0:
            return "attempts"
        longest = self.spec.max_backoff_ms / 1000
        asked = _seconds(outcome.retry_after_seconds)
        self._not_before[key] = now + asked
        self._leave = outcome.kind is Kind.CONNECT or asked > longest or left == 1
        chosen = self._healthy(now, longest)
        if chosen is None:
            return "retry_after" if any(self.healthy(priced, now) for priced in self.targets) else "no_target"
        delay = self._pause(chosen, now)
        if chosen is self.last:
            delay += self._jitter(longest - delay)
        if now + delay >= self.deadline:
            return "deadline"
        self._paid = self.budget.try_withdraw(now)
        self._chosen = chosen if self._paid is not None else None
        return "budget" if self._paid is None else delay

    def _without_key(self, last: Priced, now: float) -> float | Denied:
        """Another provider, at once and unpaid: no provider has more work by it, and waiting brings no key."""
        self._keyless.add(last.candidate.provider.alias)
        self._chosen = self._healthy(now, 0.0)
        return 0.0 if self._chosen is not None else "no_target"

    def refund(self) -> None:
        """A retry that was paid is not sent after all."""
        if self._paid is not None:
            self.budget.refund(self._paid)
            self._paid = None

    def _jitter(self, room: float) -> float:
        """Full jitter over an exponentially growing back-off (AWS: least work of all variants), within `room`."""
        grown: float = self.spec.backoff_ms / 1000 * 2 ** min(self.number - 1, 32)
        return self.rng.random() * max(0.0, min(grown, room))

    def _order(self) -> Sequence[Priced]:
        if len(self.targets) == 1:
            return self.targets
        if self._leave:
            return sorted(self.targets, key=lambda priced: self._failures.get(priced.candidate.key, 0))
        return sorted(self.targets, key=lambda priced: priced is not self.last)

    def _breaker_wait(self, priced: Priced, now: float) -> float:
        return self.breakers.of(priced.candidate.key, self.spec.breaker).reopens_in(now)


def _seconds(retry_after: float | None) -> float:
    """A provider's Retry-After as a minimum; nonsense (negative, NaN) counts as none."""
    return retry_after if retry_after is not None and retry_after > 0 else 0.0
