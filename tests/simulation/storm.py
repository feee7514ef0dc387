"""
Sidecars, a coordinator and a failing provider on one clock, which is a heap: thousands of exchanges in seconds.

Every message between them can be late or lost, a sidecar can be killed, and the policy changes in the middle. The same
seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from exchange_world import MONTH, ROUTING, chat, policy
from fake_bank import Bank
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import Breakers
from spendmesh_sidecar.core.failures.retry_budget import RetryBudget
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef, Denial, Lease, LeaseReport, LeaseState, Want
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.specs import BudgetSpec, RetrySpec, RoutingSpec
from spendmesh_sidecar.core.types import Acquire, Attempt, Hints, Kind, ParsedRequest, Respond, Step, Wait
from spendmesh_sidecar.policy import Policy
from storm_provider import StormProvider

UNIX = 1_790_000_000
RETRY = RetrySpec(name="team-a/default", budget_percent=20, min_retry_count=1, min_retry_interval_ms=10_000)


@dataclass(frozen=True)
class Weather:
    """What a run is made of. Probabilities are of one message or one call."""

    budgets: tuple[BudgetSpec, ...]
    calls: int = 2_000
    seconds: float = 300.0
    sidecars: int = 4
    message_loss: float = 0.05
    kills: int = 0
    storm: tuple[float, float] = (0.3, 0.6)
    """Part of the time in which the first provider storms."""
    away: tuple[float, float] = (0.7, 0.75)
    """Part of the time in which the coordinator answers nothing."""


class Coordinator(Protocol):
    """Who grants: the test's own bank, or our coordinator's books."""

    away: bool

    def acquire(self, nonce: str, wants: tuple[Want, ...]) -> tuple[tuple[Lease, ...], tuple[Denial, ...]]: ...

    def report(self, nonce: str, reports: tuple[LeaseReport, ...]) -> tuple[LeaseState, ...]: ...

    def charged(self, account: AccountRef) -> int: ...

    def tell(self, now: float) -> None: ...


@dataclass
class Sidecar:
    """One holder of rights. A kill replaces everything in it."""

    name: str
    ledger: Ledger
    retry_budgets: RetryBudgets = field(default_factory=RetryBudgets)
    breakers: Breakers = field(default_factory=Breakers)
    began: float = 0.0
    alive: bool = True


class Storm:
    """One seeded run; `run` plays it to its end and leaves the results in the attributes."""

    def __init__(self, seed: int, weather: Weather, bank: Coordinator | None = None) -> None:
        self.seed, self.weather = seed, weather
        self.rng = random.Random(seed)
        self.provider = StormProvider(random.Random(seed + 1))
        self.policy: Policy = policy(budgets=weather.budgets, retry=RETRY)
        self.bank: Coordinator = bank or Bank(weather.budgets)
        self.bank.tell(0.0)
        self.pricing = Pricing((), "storm")
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.incarnations = 0
        self.sidecars = [self._born(place) for place in range(weather.sidecars)]
        self.all_sidecars = list(self.sidecars)
        self.happened: Counter[str] = Counter()
        self.retries = self.recovered = self.settled_nanos = 0

    # --- the clock ---

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, what))

    def run(self) -> Storm:
        weather = self.weather
        for number in range(weather.calls):
            self.at(self.rng.uniform(0, weather.seconds), lambda number=number: self._call(number))  # type: ignore[misc]
        for kind, (begin, end) in (("storm", weather.storm), ("away", weather.away)):
            self.at(begin * weather.seconds, lambda kind=kind: self._switch(kind, on=True))  # type: ignore[misc]
            self.at(end * weather.seconds, lambda kind=kind: self._switch(kind, on=False))  # type: ignore[misc]
        for _ in range(weather.kills):
            self.at(self.rng.uniform(0.1, 0.9) * weather.seconds, self._kill)
        for part in (0.4, 0.5, 0.8):
            self.at(part * weather.seconds, self._swap_policy)
        for sidecar in self.sidecars:
            self._tick(sidecar)
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            self.bank.tell(self.now)
            what()
            self._check()
        self._drain()
        return self

    def _check(self) -> None:
        """The law after every event, at every lease."""
        for sidecar in self.sidecars:
            for account in sidecar.ledger.accounts.values():
                for lease in account.leases.values():
                    rights = lease.granted - lease.released + lease.overrun
                    assert 0 <= lease.used + lease.held <= rights, f"seed {self.seed} at {self.now}: {lease}"

    # --- what happens from outside ---

    def _switch(self, kind: str, *, on: bool) -> None:
        if kind == "storm":
            self.provider.storming = frozenset({"openai"}) if on else frozenset()
        else:
            self.bank.away = on

    def _swap_policy(self) -> None:
        """Another routing, and the observed budget comes and goes; enforced limits stay."""
        self.happened["policy swap"] += 1
        other = "economy" if self.policy.routing and self.policy.routing.default_tier == "standard" else "standard"
        parts = {name: getattr(ROUTING, name) for name in ROUTING.__struct_fields__}
        enforced = tuple(spec for spec in self.weather.budgets if spec.mode == "Enforce")
        budgets = enforced if len(self.policy.budgets) > len(enforced) else self.weather.budgets
        self.policy = policy(budgets=budgets, retry=RETRY, routing=RoutingSpec(**{**parts, "default_tier": other}))
        for sidecar in self.sidecars:
            sidecar.ledger.set_budgets(budgets, self.now)

    def _born(self, place: int) -> Sidecar:
        self.incarnations += 1
        name = f"pod-{place}/{self.incarnations}"
        return Sidecar(name, Ledger(name, self.policy.budgets, self.now), began=self.now)

    def _kill(self) -> None:
        """kill -9: nothing is closed or reported; what it was granted stays charged."""
        place = self.rng.randrange(len(self.sidecars))
        self.happened["kill"] += 1
        self.happened["killed in flight"] += self.sidecars[place].ledger.open_reservations
        self.sidecars[place].alive = False
        self.sidecars[place] = self._born(place)
        self.all_sidecars.append(self.sidecars[place])
        self._tick(self.sidecars[place])

    # --- leases ---

    def _tick(self, sidecar: Sidecar) -> None:
        """Twice a second: top-ups; every two seconds: a report."""
        if not sidecar.alive or self.now > self.weather.seconds + 700:
            return
        wants = sidecar.ledger.wants(self.now)
        if wants and not self.bank.away:
            leases, denials = self.bank.acquire(sidecar.name, wants)
            sidecar.ledger.denied(denials, self.now)
            self._deliver(sidecar, leases)
        if int(self.now * 2) % 4 == 0:
            self._report(sidecar)
        self.at(0.5, lambda: self._tick(sidecar))

    def _report(self, sidecar: Sidecar, *, reliable: bool = False) -> None:
        reports = sidecar.ledger.reports(self.now)
        if not reliable and (self.bank.away or self._lost("report lost")):
            return
        states = self.bank.report(sidecar.name, reports)
        if reliable or not self._lost("acknowledgement lost"):
            sidecar.ledger.acknowledged(states, self.now)
        assert not sidecar.ledger.copied

    def _deliver(self, sidecar: Sidecar, leases: tuple[Lease, ...], *, reliable: bool = False) -> None:
        if reliable or not self._lost("lease lost"):
            for lease in leases:
                sidecar.ledger.merge(lease, self.now)

    def _lost(self, what: str) -> bool:
        lost = self.rng.random() < self.weather.message_loss
        self.happened[what] += lost
        return lost

    # --- calls ---

    def _call(self, number: int) -> None:
        sidecar = self.rng.choice(self.sidecars)
        draw = self.rng.random
        request = chat(
            self.rng.choice(["auto", "auto", "auto", "spendmesh/economy", "spendmesh/premium"]),
            maximum=self.rng.choice([None, 50, 200, 800]),
            input_tokens=self.rng.randint(50, 2_000),
            hints=Hints(task="extract" if draw() < 0.3 else "", user_plan="enterprise" if draw() < 0.05 else ""),
        )
        exchange = Exchange(
            request,
            self.policy,
            ledger=sidecar.ledger,
            retry_budgets=sidecar.retry_budgets,
            breakers=sidecar.breakers,
            pricing=self.pricing,
            request_id=f"call-{number}",
            rng=self.rng,
        )
        self._do(sidecar, exchange, request, exchange.begin(self.now, UNIX))

    def _do(self, sidecar: Sidecar, exchange: Exchange, request: ParsedRequest, step: Step) -> None:
        """Do one step and schedule the report of how it went."""

        def later(seconds: float, report: Callable[[], Step | None]) -> None:
            def happen() -> None:
                if not sidecar.alive:
                    return
                following = report()
                if following is None:
                    self._end(exchange)
                else:
                    self._do(sidecar, exchange, request, following)

            self.at(seconds, happen)

        match step:
            case Attempt():
                answer = self.provider.send(step, request)
                outcome = answer.outcome
                if outcome is None:
                    later(answer.seconds, lambda: None)
                else:
                    later(answer.seconds, lambda: exchange.observe(outcome, self.now, UNIX))
            case Wait(seconds):
                if self.rng.random() < 0.02:
                    self.happened["client gone while waiting"] += 1
                    later(seconds / 2, lambda: None)
                else:
                    later(seconds, lambda: exchange.resume(self.now, UNIX))
            case Acquire():
                self.happened["acquire"] += 1
                self._acquire(sidecar, exchange, step, later)
            case Respond():
                self._end(exchange)

    def _acquire(
        self,
        sidecar: Sidecar,
        exchange: Exchange,
        step: Acquire,
        later: Callable[[float, Callable[[], Step | None]], None],
    ) -> None:
        if self.bank.away or self._lost("acquire lost"):
            later(step.wait_seconds, lambda: exchange.acquired(None, self.now, UNIX))
            return
        leases, denials = self.bank.acquire(sidecar.name, sidecar.ledger.wants_for(step.shortfalls, self.now))
        if leases and self._lost("lease lost"):
            later(step.wait_seconds, lambda: exchange.acquired(None, self.now, UNIX))
            return

        def arrive() -> Step:
            for lease in leases:
                sidecar.ledger.merge(lease, self.now)
            return exchange.acquired(denials, self.now, UNIX)

        later(self.rng.uniform(0.01, min(0.5, step.wait_seconds)), arrive)

    def _end(self, exchange: Exchange) -> None:
        exchange.close(self.now)
        exchange.close(self.now)
        self.retries += exchange.retries
        settlements = exchange.decision.settlements
        self.recovered += exchange.retries > 0 and settlements[-1].kind is Kind.SUCCESS
        self.settled_nanos += sum(one.cost_nanos for one in settlements)
        self.happened[exchange.refusal.code if exchange.refusal else "answered"] += 1
        self.happened[f"reason {exchange.decision.reason.split(':')[0]}"] += 1
        if exchange.retry_denied:
            self.happened[f"retry denied: {exchange.retry_denied}"] += 1

    def _drain(self) -> None:
        """As a sidecar that is told to stop: use that has no lease is told in one that is asked for."""
        self.bank.away = False
        for sidecar in self.sidecars:
            sidecar.ledger.drain()
            for _ in range(3):
                self._report(sidecar, reliable=True)
                if wants := sidecar.ledger.wants(self.now):
                    self._deliver(sidecar, self.bank.acquire(sidecar.name, wants)[0], reliable=True)

    # --- results ---

    @property
    def ledger_nanos(self) -> int:
        """What counts against the limit in the end: closed leases at their use, killed holders' in full."""
        return self.bank.charged(MONTH)

    def retry_budget(self, sidecar: Sidecar) -> RetryBudget:
        return sidecar.retry_budgets.of(self.policy.retry)
