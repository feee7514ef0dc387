"""
Which target is tried next, whether another try is worth it, and how long to wait before it.

Retries stay on the target while there is a retry to spare; the last one goes to the next target (failover), and so
does any retry that waiting cannot help: no connection, or a hint longer than we wait. Every retry is paid from the
retry budget when it is decided, save where the pod has no key for a provider: that was no try. A first try is never
paid for, but it waits while its target is paused. Left out: what a failure means (`error_classes`), and money
(`reservation`, `settlement`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.failures.backoff import HINT_JITTER, after_hint, backoff
from spendmesh_sidecar.core.failures.breaker import Permit, Rng
from spendmesh_sidecar.core.failures.error_classes import TREATMENTS, Weight
from spendmesh_sidecar.core.failures.restraints import SHORTEST_PAUSE_SECONDS, Restraints
from spendmesh_sidecar.core.failures.retry_budget import RetryBudget, Withdrawal
from spendmesh_sidecar.core.failures.retry_rules import Denied, hint_of, retryable, weight_of
from spendmesh_sidecar.core.failures.target_health import TargetHealth
from spendmesh_sidecar.core.ledger.reservation import WorstCost
from spendmesh_sidecar.core.refusals import client_retry_unpaid
from spendmesh_sidecar.core.router import PassedOver
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Kind, Outcome, Refusal

ClientRetry = Literal["", "charged", "counted", "denied"]


class Attempts(Struct, gc=False):
    """The tries of one exchange."""

    spec: RetrySpec
    budget: RetryBudget
    health: TargetHealth
    rng: Rng
    restraints: Restraints
    targets: tuple[Priced, ...]
    deadline: float
    """Monotonic seconds; checked before every try and every wait (linkerd1 #2369 retried for 5 h past it)."""
    client_retry: int = 0
    """Which retry of its own the client says this is: it earns nothing."""
    earlier: int = 0
    """Tries that were made for the client's own tries before this one: they are the same call's."""
    of_client: ClientRetry = ""
    """What became of that."""
    number: int = 0
    last: Priced | None = None
    denied: Denied = ""
    """Why the last failure was not tried again."""
    passed_over: dict[str, PassedOver] = {}
    """Targets that could not be called when they were looked at."""
    _failures: dict[str, int] = {}
    _keyless: set[str] = set()
    """Providers that this pod has no key for; a try at one of them was none."""
    _not_before: dict[str, float] = {}
    """When a target's hint is over: a minimum, by whatever way one comes back to it."""
    _last_backoff: float = 0.0
    _chosen: Priced | None = None
    """Of the retry that was paid for."""
    _leave: bool = False
    _ambiguous: bool = False
    """An ambiguous failure has been tried again."""
    _waits_until: float = 0.0
    """The latest end of waits for pauses, once there was one."""
    _paid: Withdrawal | None = None
    _sent: Withdrawal | None = None
    """What the try in flight was paid with."""
    _asks: int = 0
    """The try in flight asks an account again that was out of money."""

    @property
    def sent(self) -> int:
        """Tries so far, without those that the pod had no key for: they were none."""
        return self.number - len(self._keyless)

    @property
    def why_none(self) -> str:
        """Why no target can be called, for people."""
        return "; ".join(f"{one.target}: {one.reason}" for one in self.passed_over.values())

    @property
    def observed(self) -> bool:
        """A lone Observe RetryBudget: no retry of ours, and ejections are only counted."""
        return self.spec.mode == "Observe"

    def charge_client(self, now: float, worst_cost: WorstCost) -> Refusal | None:
        """Pay for a retry that the client makes on its own, as the policy wants it; the refusal where it cannot be."""
        self.of_client = "counted"
        if self.observed or self.spec.client_retries == "Count":
            return None
        denied = self._pay(self.targets[0], "Timeout", now, worst_cost)  # what else makes an SDK ask again
        self._chosen = None
        self.of_client = "denied" if denied else "charged"
        return client_retry_unpaid(self.client_retry, self.spec) if denied else None

    def pick(self, now: float) -> Priced | None:
        """The target to try now; the others' reasons go to `passed_over`."""
        if self._chosen is not None and self._free(self._chosen, now):
            return self._chosen
        return self._callable(now, 0.0)

    def stands(self, priced: Priced, now: float) -> bool:
        """Whether a target that was picked a while ago would be called now too."""
        return self._free(priced, now) or self.pick(now) is priced

    def wait_for_pause(self, now: float) -> float | None:
        """
        Where `pick` found none: seconds until a paused target may be called, with chance added; None: that is too long,
        or however often the pause was prolonged, too long by now.
        """
        longest = self.spec.max_wait_ms / 1000
        open_now = [priced for priced in self.targets if not self._obstacle(priced, now)] or self._spared(now)
        pauses = [pause for priced in open_now if (pause := self._pause(priced, now)) > 0]
        shortest = min(pauses, default=math.inf)
        if shortest > longest:
            return None
        until = now + after_hint(shortest, self.rng)
        self._waits_until = self._waits_until or now + longest * (1 + HINT_JITTER)
        return until - now if until < self.deadline and until <= self._waits_until else None

    def _callable(self, now: float, longest: float) -> Priced | None:
        """The first target that may be called within so many seconds, else one that the policy wants called."""
        for priced in self._order():
            why = self._obstacle(priced, now)
            if not why and (pause := self._pause(priced, now)) > longest:
                why = f"asked not to be called for {pause:.1f} s more"
            if not (why := why or self.health.crowded(priced)):
                return priced
            self.passed_over[priced.candidate.key] = PassedOver(priced.candidate.key, why)
        return next((priced for priced in self._spared(now) if self._pause(priced, now) <= longest), None)

    def _spared(self, now: float) -> list[Priced]:
        """
        Those that the policy wants called where no target is free: full ones, else ejected ones, the first due first.
        """
        if open_now := [priced for priced in self._order() if not self._obstacle(priced, now)]:
            return open_now if self.health.overcrowds else []
        left = [priced for priced in self.targets if self.health.spared(priced) and not self._barrier(priced, now)]
        if not self.health.overcrowds:
            left = [priced for priced in left if not self.health.crowded(priced)]

        def due(priced: Priced) -> tuple[int, float]:
            failed = self._failures.get(priced.candidate.key, 0) if self._leave else 0
            return failed, self.health.ejected_for(priced, now)

        return sorted(left, key=due)

    def _obstacle(self, priced: Priced, now: float) -> str:
        """Why a target cannot be called, for whatever pause it has; empty: it can."""
        return self._barrier(priced, now) or self.health.obstacle(priced, now)

    def _barrier(self, priced: Priced, now: float) -> str:
        """Why no call can go to a target, whatever its breaker says; empty: one can."""
        if priced.candidate.provider.alias in self._keyless:
            return "this pod has no key for it"
        if self.observed or (wait := self._unpaid(priced, now)) <= 0:
            return ""
        return f"its account is out of money, asked again in {wait:.1f} s"

    def _pause(self, priced: Priced, now: float) -> float:
        """Seconds until the target's hint is over, whichever call got it, also when another one was tried since."""
        if self.observed:
            return 0.0
        candidate = priced.candidate
        own = self._not_before.get(candidate.key, now) - now if self._not_before else 0.0
        pause = max(own, self.restraints.paused_for(candidate.provider, candidate.target.model, now))
        return pause if pause >= SHORTEST_PAUSE_SECONDS else 0.0

    def _unpaid(self, priced: Priced, now: float) -> float:
        return self.restraints.unpaid_for(priced.candidate.provider, now)

    def _free(self, priced: Priced, now: float) -> bool:
        """Whether a target may be tried now."""
        return self.observed or (self._reopens_in(priced, now) <= 0 and not self.health.crowded(priced))

    def reopens_in(self, now: float) -> float:
        """Seconds until the first target may be tried again."""
        return min(self._reopens_in(priced, now) for priced in self.targets)

    def _reopens_in(self, priced: Priced, now: float) -> float:
        return max(self.health.ejected_for(priced, now), self._unpaid(priced, now), self._pause(priced, now))

    def dispatch(self, priced: Priced, now: float) -> Permit:
        """The try is sent now."""
        self.number += 1
        self.last = priced
        self._sent, self._paid, self._chosen = self._paid, None, None
        if not self.observed:
            if self.number == 1 and not self.client_retry and self.spec.deposit_on == "Request":
                self.budget.deposit(now)
            self._asks = self.restraints.sent(priced.candidate.provider, now, self.spec.unpaid_probe_ms / 1000)
        return self.health.take(priced, now)

    def begun(self, permit: Permit, now: float, *, streamed: bool) -> Permit:
        """The first byte of a good answer came; the permit to settle at its end."""
        return permit if self.last is None else self.health.begun(self.last, permit, now, streamed=streamed)

    def settle(self, permit: Permit, outcome: Outcome, now: float, *, trip: bool = False, cost_nanos: int = 0) -> None:
        """Tell everybody how the try went, and what it cost; `trip` ejects the target at once."""
        if self._sent is not None:
            self.budget.settle(self._sent, cost_nanos)
            self._sent = None
        if self.last is None:
            return
        if not self.observed:
            self._heed(outcome, self.last, now)
        self.health.settle(self.last, permit, outcome, now, trip=trip)

    def _heed(self, outcome: Outcome, last: Priced, now: float) -> None:
        """Keep what the answer says beyond this try: a credit, a hint, an account that pays or does not."""
        candidate = last.candidate
        if outcome.kind is Kind.SUCCESS:
            if not self.client_retry and self.spec.deposit_on == "Success":
                self.budget.deposit(now)
            if self._asks:
                self.restraints.paid(candidate.provider, self._asks)
        elif outcome.kind is Kind.UNPAID:
            probe_seconds = self.spec.unpaid_probe_ms / 1000
            self.restraints.out_of_money(candidate.provider, outcome.error_code, now, probe_seconds)
        elif TREATMENTS[outcome.kind].again in ("Listed", "Ambiguous") and (asked := hint_of(outcome)) > 0:
            self._not_before[candidate.key] = now + asked
            self.restraints.pause(candidate.provider, candidate.target.model, asked, now)

    def next_delay(self, outcome: Outcome, now: float, worst_cost: WorstCost) -> float | None:
        """
        Decide another try after a failure and pay for it: seconds to wait before it, or None to stop here.

        Never waits for the budget, and never waits after the last try.
        """
        decided = self._decide(outcome, now, worst_cost)
        self.denied = decided if isinstance(decided, str) else ""
        return None if isinstance(decided, str) else decided

    def _decide(self, outcome: Outcome, now: float, worst_cost: WorstCost) -> float | Denied:
        if self.observed or self.last is None or not retryable(outcome, self.spec):
            return ""
        if outcome.kind is Kind.KEY_MISSING:
            return self._without_key(self.last, now)
        treatment, key = TREATMENTS[outcome.kind], self.last.candidate.key
        self._failures[key] = self._failures.get(key, 0) + 1
        left = self.spec.attempts - (self.earlier + self.sent - 1)
        if left <= 0:
            return "attempts"
        if treatment.again == "Ambiguous" and self.spec.ambiguous != "AsRetryable":
            if self._ambiguous or self.spec.ambiguous == "Never":
                return "ambiguous"
            self._ambiguous, left = True, 1
        longest = self.spec.max_wait_ms / 1000
        self._leave = treatment.again in ("Unsent", "Elsewhere") or hint_of(outcome) > longest or left == 1
        chosen = self._callable(now, 0.0 if treatment.again == "Elsewhere" else longest)
        if chosen is None:
            return self._nowhere(outcome, now)
        delay = self._delay(outcome, chosen, now)
        if now + delay >= self.deadline:
            return "deadline"
        return self._pay(chosen, treatment.weight, now, worst_cost) or delay

    def _nowhere(self, outcome: Outcome, now: float) -> Denied:
        if outcome.kind is Kind.UNPAID:
            return ""
        left = [each for each in self.targets if not self._barrier(each, now)]
        left = [each for each in left if self.health.spared(each) or self.health.ejected_for(each, now) <= 0]
        if any(self._pause(each, now) <= 0 and self.health.crowded(each) for each in left):
            return "concurrency"
        return "retry_after" if left else "no_target"

    def _delay(self, outcome: Outcome, chosen: Priced, now: float) -> float:
        pause = self._pause(chosen, now)
        hinted = after_hint(pause, self.rng) if pause else 0.0
        if chosen is not self.last:
            return hinted
        throttled = outcome.kind is Kind.THROTTLED and not pause
        self._last_backoff = backoff(self.spec, self.number, self._last_backoff, self.rng, throttled=throttled)
        return max(hinted, self._last_backoff)

    def _pay(self, chosen: Priced, weight: Weight, now: float, worst_cost: WorstCost) -> Denied:
        """Take a retry out of the budget; empty: it is paid."""
        paid = self.budget.pay(now, weight_of(weight, self.spec), lambda: worst_cost(chosen))
        if isinstance(paid, str):
            return paid
        self._paid, self._chosen = paid, chosen
        return ""

    def _without_key(self, last: Priced, now: float) -> float | Denied:
        """Another provider, at once and unpaid: no provider has more work by it, and waiting brings no key."""
        self._keyless.add(last.candidate.provider.alias)
        self._chosen = self._callable(now, 0.0)
        return 0.0 if self._chosen is not None else "no_target"

    def refund(self) -> None:
        """A retry that was paid is not sent after all."""
        if self._paid is not None:
            self.budget.refund(self._paid)
            self._paid = None

    def _order(self) -> Sequence[Priced]:
        if len(self.targets) == 1:
            return self.targets
        if self._leave:
            return sorted(self.targets, key=lambda priced: self._failures.get(priced.candidate.key, 0))
        return sorted(self.targets, key=lambda priced: priced is not self.last)
