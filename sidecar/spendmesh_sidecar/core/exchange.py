"""
One client request from admission to settlement: says the next step, and learns from the shell how it went.

admit -> route -> reserve -> attempt -> evaluate -> settle. It never calls anything that waits; `now` (monotonic
seconds) and `now_unix` come in, a `Step` goes out. Whoever drives it calls `close` in the end, whatever happens.
"""

from __future__ import annotations

from collections.abc import Sequence

from spendmesh_sidecar.core.admission import Plan, admit, enforced, subject_of
from spendmesh_sidecar.core.answer import decide, no_answer, response_headers
from spendmesh_sidecar.core.attempts import Attempts, ClientRetry
from spendmesh_sidecar.core.call_times import call_times
from spendmesh_sidecar.core.failures.breaker import Breakers, Rng
from spendmesh_sidecar.core.failures.concurrency import Limiters
from spendmesh_sidecar.core.failures.restraints import Restraints
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.failures.retry_rules import final
from spendmesh_sidecar.core.failures.shadow_retries import Shadow, ShadowRetries, shadow_of
from spendmesh_sidecar.core.failures.target_health import TargetHealth
from spendmesh_sidecar.core.ledger import waiting
from spendmesh_sidecar.core.ledger.expectation import expecting
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.metering import Meter, meter_of
from spendmesh_sidecar.core.ledger.reservation import Booked, Booking, WorstCost, worst_cost_of
from spendmesh_sidecar.core.ledger.rights import Denial
from spendmesh_sidecar.core.ledger.view import still_in_flight, tightest_left
from spendmesh_sidecar.core.ledger.waiting import Waits
from spendmesh_sidecar.core.phases import (
    DEADLINE_SECONDS,
    LEASE_WAIT_SECONDS,
    ExchangeError as ExchangeError,
    LeaseWait,
    Phase,
)
from spendmesh_sidecar.core.policy_view import PolicyView
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.refusals import budget_refusal, out_of_reach, out_of_time, unanswered
from spendmesh_sidecar.core.router import PassedOver, Route
from spendmesh_sidecar.core.sending import attempt_step
from spendmesh_sidecar.core.settlement import Flight, bill
from spendmesh_sidecar.core.types import (
    Acquire,
    Decision,
    Kind,
    Outcome,
    ParsedRequest,
    Refusal,
    Respond,
    Settlement,
    Shortfall,
    Step,
    Wait,
)


class Exchange:
    """
    The life of one client request.

    Call `begin`, then do each step and report it with the method that the step's docstring names, until `Respond`;
    then `close`. Raises ExchangeError for a report that no step asked for.
    """

    def __init__(
        self,
        request: ParsedRequest,
        policy: PolicyView,
        *,
        ledger: Ledger,
        retry_budgets: RetryBudgets,
        breakers: Breakers,
        pricing: Pricing,
        request_id: str,
        rng: Rng,
        restraints: Restraints | None = None,
        limiters: Limiters | None = None,
        earlier_tries: int = 0,
        deadline_seconds: float = DEADLINE_SECONDS,
        lease_wait_seconds: float = LEASE_WAIT_SECONDS,
    ) -> None:
        self.request, self.policy, self.request_id = request, policy, request_id
        self.refusal: Refusal | None = None
        """Our own answer, if that is what the client gets."""
        self._ledger, self._pricing = ledger, pricing
        self._retry_budgets, self._breakers, self._rng = retry_budgets, breakers, rng
        self._restraints, self._limiters = restraints or Restraints(), limiters or Limiters()
        self._earlier_tries = earlier_tries
        self._deadline_seconds, self._lease_wait_seconds = deadline_seconds, lease_wait_seconds
        self._enforced = enforced(policy.budgets)
        self._phase, self._now, self._unverified = Phase.NEW, 0.0, False
        self._plan: Plan | None = None
        self._shadow: ShadowRetries | None = None
        self._tries: Attempts | None = None
        self._booking: Booking | None = None
        self._shortfalls: tuple[Shortfall, ...] = ()
        self._waits: tuple[Waits, ...] = ()
        self._lease_wait: LeaseWait | None = None
        self._flight: Flight | None = None
        self._last: Outcome | None = None
        self._stopped: Refusal | None = None
        self._settlements: list[Settlement] = []

    # --- reports of the driver --------------------------------------------------------------------------------

    def begin(self, now: float, now_unix: int) -> Step:
        """Admit and route the request, and reserve its first try."""
        self._enter(Phase.NEW, now)
        plan = admit(self.request, self.policy, self._ledger, self._pricing, now, now_unix)
        if isinstance(plan, Refusal):
            return self._refuse(plan)
        self._plan = plan
        retry, budgets = self.policy.retry, self._retry_budgets
        self._times = call_times(retry, self.request, now, self._deadline_seconds)
        health = TargetHealth(retry, self._breakers, self._rng, self._limiters)
        shared = (budgets.of(retry), health, self._rng, self._restraints)
        of_client = (self.request.client_retry, self._earlier_tries)
        self._tries = Attempts(retry, *shared, plan.targets, self._times.deadline, *of_client)
        self._shadow = shadow_of(self.policy, budgets, self.request.client_retry)
        if self.request.client_retry and (refusal := self._tries.charge_client(now, self._cost(now_unix))):
            return self._refuse(refusal)
        return self._next(now, now_unix)

    def acquired(self, denials: tuple[Denial, ...] | None, now: float, now_unix: int) -> Step:
        """
        After `Acquire`: the leases are merged into the ledger, or these denials came; None: no answer in time.

        Whatever came, what is here now is tried first: other calls may have settled meanwhile.
        """
        self._enter(Phase.ACQUIRING, now)
        self._waits_no_longer()
        assert self._booking is not None and self._tries is not None
        if denials is None:
            self._ledger.unanswered(now)
        elif denials:
            self._ledger.denied(denials, now, self._shortfalls)
        if not self._tries.stands(self._booking.priced, now):
            return self._next(now, now_unix)  # ejected while this call waited
        booked = self._booking.try_book(now, shrink=True)
        if not isinstance(booked, tuple):
            return self._send(self._booking, booked, now, now_unix)
        if denials is None:
            return self._refuse(unanswered(booked))
        assert self._lease_wait is not None
        if denials and not self._waits_anew(self._lease_wait, self._booking, now):
            return self._denied(denials, self._booking)
        return self._ask(booked, now)  # another call took what was granted

    def started(self, now: float) -> None:
        """Optional: a good answer's first byte arrived. Lets a breaker's probe end before the answer does."""
        self._now = now
        if self._flight is not None and self._tries is not None:
            self._flight.permit = self._tries.begun(self._flight.permit, now, streamed=self.request.stream)

    def meter(self) -> Meter | None:
        """How far the stream that has begun is covered; None: to its end."""
        budgets = self.policy.budgets
        return meter_of(self._ledger, budgets, self.request, self._flight, self._lease_wait_seconds)

    def stop(self, refusal: Refusal) -> None:
        """Before `observe` of a stream that its `meter` ended: what the client is told."""
        self._stopped = refusal

    def observe(self, outcome: Outcome, now: float, now_unix: int, *, client_gone: bool = False) -> Step:
        """After `Attempt`: settle it, and decide whether another try is made. For a client that has left none is."""
        self._enter(Phase.ATTEMPTING, now)
        assert self._tries is not None
        self._settle(outcome, now, now_unix)
        self._last = outcome
        if self._shadow is not None and self._tries.last is not None:
            self._shadow.observe(outcome, self._tries.number, self._tries.last, now, self._cost(now_unix))
        delay = None
        if not (client_gone or outcome.committed or outcome.kind is Kind.SUCCESS):
            delay = self._tries.next_delay(outcome, now, self._cost(now_unix))
        if delay is None:
            return self._finish()
        if delay <= 0:
            return self._next(now, now_unix)
        self._phase = Phase.WAITING
        return Wait(delay)

    def resume(self, now: float, now_unix: int) -> Step:
        """After `Wait`: make the try that was paid for."""
        self._enter(Phase.WAITING, now)
        return self._next(now, now_unix)

    def close(self, now: float) -> None:
        """
        The end, however it came; safe to call again. An attempt that was not observed settles at the worst case, and a
        retry that was paid but not sent is refunded.
        """
        self._now = now
        self._phase = Phase.DONE
        self._waits_no_longer()
        if self._flight is not None:
            self._settle(Outcome(Kind.CLIENT_GONE, committed=True), now, None)
        if self._tries is not None:
            self._tries.refund()

    # --- what the shell tells others --------------------------------------------------------------------------

    @property
    def decision(self) -> Decision:
        """Why the call went where it went, and what each attempt so far came to."""
        return decide(self.policy, self._plan, self._tries, tuple(self._settlements))

    def response_headers(self, final: bool) -> list[tuple[str, str]]:
        """Our headers for the client. Not `final`: a stream is about to begin, so its cost is not known yet."""
        sent = self._tries.last if self._tries else None
        subject = subject_of(sent.candidate, self.request.hints) if sent else None
        known = () if self._unverified else self.policy.budgets  # what nobody verified says nothing of a budget
        left = tightest_left(self._ledger, known, self._now, self.request.hints, subject)
        return response_headers(self.request_id, self.decision, self.refusal, left, self.retry_denied, final=final)

    @property
    def retries(self) -> int:
        """Attempts that were sent after the first."""
        return max(0, self._tries.number - 1) if self._tries else 0

    @property
    def sent(self) -> int:
        """Attempts that were sent, at least in part."""
        return self._tries.sent if self._tries else 0

    @property
    def final(self) -> bool:
        """Another try would bring no other answer."""
        return self.refusal is None and self._last is not None and final(self._last)

    @property
    def retry_denied(self) -> str:
        """Why the last failure was not retried (`retry_rules.Denied`); or empty."""
        return self._tries.denied if self._tries else ""

    @property
    def client_retry(self) -> ClientRetry:
        """What became of a retry that the client made on its own; empty: it is none."""
        return self._tries.of_client if self._tries else ""

    @property
    def observed_retries(self) -> Sequence[Shadow]:
        """What an observed RetryBudget would have done after each failure."""
        return self._shadow.decisions if self._shadow is not None else ()

    @property
    def passed_over(self) -> tuple[PassedOver, ...]:
        """Targets that did not get the call, with the reason."""
        routed = self._plan.route.passed_over + self._plan.unpriced if self._plan else ()
        return routed + tuple(self._tries.passed_over.values() if self._tries else ())

    @property
    def observed(self) -> Route | None:
        """What an observed RoutingPolicy would have chosen."""
        return self._plan.observed if self._plan else None

    # --- inside -----------------------------------------------------------------------------------------------

    def _enter(self, expected: Phase, now: float) -> None:
        if self._phase is not expected:
            raise ExchangeError(f"{self.request_id}: {expected.value}() was called, {self._phase.value}() is due")
        self._now = now
        self._phase = Phase.DONE

    def _cost(self, now_unix: int) -> WorstCost:
        return worst_cost_of(self.request.bounds, now_unix)

    def _next(self, now: float, now_unix: int) -> Step:
        """Choose a target and reserve the try on it."""
        assert self._tries is not None
        priced = self._tries.pick(now)
        if now >= self._tries.deadline:
            return self._refuse(out_of_time())
        if priced is None:
            if (wait := self._tries.wait_for_pause(now)) is None:
                return self._refuse(out_of_reach(self._tries.why_none, self._tries.reopens_in(now)))
            self._phase = Phase.WAITING
            return Wait(wait)
        reservation = f"{self.request_id}/attempt-{self._tries.number + 1}"
        booking = Booking(self._ledger, self.policy.budgets, priced, self.request, reservation, now_unix)
        if not self.request.operation.billed:
            return self._send(booking, None, now, now_unix)
        booked = booking.try_book(now, shrink=self._ledger.silent(now))
        if not isinstance(booked, tuple):
            return self._send(booking, booked, now, now_unix)
        self._booking = booking
        if self._lease_wait is None:
            self._lease_wait = LeaseWait(self._lease_wait_seconds, self._tries.deadline, now)
        if standing := self._ledger.standing_denials(booked, now):
            return self._denied(standing, booking)
        return self._ask(booked, now)

    def _ask(self, shortfalls: tuple[Shortfall, ...], now: float) -> Step:
        assert self._lease_wait is not None and self._booking is not None
        if now >= self._lease_wait.until and not self._waits_anew(self._lease_wait, self._booking, now):
            return self._denied(still_in_flight(self._ledger, shortfalls, now), self._booking)
        self._shortfalls, self._phase = shortfalls, Phase.ACQUIRING
        self._waits = self._ledger.waits_of(self._booking.smallest(), now)
        waiting.begin(self._waits)
        return Acquire(shortfalls, self._lease_wait.until - now)

    def _waits_anew(self, wait: LeaseWait, booking: Booking, now: float) -> bool:
        """Whether the period is over that rights were granted or denied for, to it or to calls before it; once."""
        charges = booking.smallest()
        return not wait.renewed and self._ledger.period_ended(charges, wait.since, now) and wait.renew(now)

    def _waits_no_longer(self) -> None:
        waiting.end(self._waits)
        self._waits = ()

    def _denied(self, denials: tuple[Denial, ...], booking: Booking) -> Step:
        return self._refuse(budget_refusal(denials, self.policy.budgets, booking.needs(), booking.largest_output))

    def _send(self, booking: Booking, booked: Booked | Refusal | None, now: float, now_unix: int) -> Step:
        if isinstance(booked, Refusal):
            return self._refuse(booked)
        assert self._tries is not None and self._plan is not None
        priced = booking.priced
        permit = self._tries.dispatch(priced, now)
        self._flight = Flight(self._tries.number, booking.reservation, priced, booked, permit, now_unix)
        self._unverified = self._unverified or (booked is not None and booked.unverified)
        self._booking = self._lease_wait = None
        self._phase = Phase.ATTEMPTING
        return attempt_step(self._flight, self._plan.include_usage, self._times, now)

    def _settle(self, outcome: Outcome, now: float, now_unix: int | None) -> None:
        flight, self._flight = self._flight, None
        assert flight is not None and self._tries is not None
        found = bill(self.request, flight, outcome, self._pricing, enforced=self._enforced, ended_unix=now_unix)
        if flight.booked is not None:
            if found.quantities is None:
                self._ledger.void(flight.reservation)
            else:
                self._ledger.settle(flight.reservation, found.quantities, now)
                if expecting(self.policy.budgets):
                    subject = subject_of(flight.priced.candidate, self.request.hints)
                    self._ledger.expectations.learn(self.policy.budgets, subject, flight.booked.worst, found.quantities)
        self._settlements.append(found.settlement)
        self._tries.settle(flight.permit, outcome, now, trip=found.excess, cost_nanos=found.settlement.cost_nanos)

    def _finish(self) -> Step:
        """No further try: the last answer is the client's, or ours where the provider gave none."""
        assert self._last is not None and self._tries is not None
        self.refusal = self._stopped or no_answer(self._last, self._tries)
        if self.refusal is not None:
            return Respond(self.refusal)
        return Respond(None, "upstream" if self._tries.observed else "false")

    def _refuse(self, refusal: Refusal) -> Step:
        """Our own answer; but where a provider has answered already, that says more."""
        self._phase = Phase.DONE
        if self._tries is not None:
            self._tries.refund()
        if self._last is not None:
            return self._finish()
        self.refusal = refusal
        return Respond(refusal)
