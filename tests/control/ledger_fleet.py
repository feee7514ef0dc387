"""
Many sidecars and one coordinator on one clock: the real ledger of each pod against the real books, without I/O.

Only time and the wire are made: a message arrives at once or, while the coordinator is `away`, not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from ledger_desk import begun
from ledger_samples import REF, START_MS, acquire, budget, limits_of
from spendmesh_operator.ledger.books.accounts import Account, Holder, LimitInForce
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.protocol import AccountRef, ReportRequest, Want

STEP_SECONDS = 0.25
REPORT_STEPS = 8
SWEEP_STEPS = 4
PATIENCE_SECONDS = 45.0
"""Nobody was served for so long, though idle rights come back within 30 s: the budget is at its end."""


@dataclass
class Fleet:
    """The coordinator, its clock and its pods."""

    budget: BudgetSpec
    began_ms: int = START_MS
    now: float = 0.0
    away: bool = False
    pods: list[Pod] = field(default_factory=list)
    false_refusals: list[str] = field(default_factory=list)
    """Refusals although the free rights covered the call."""
    truly_spent: int = 0
    """What providers have billed, in all periods."""

    def __post_init__(self) -> None:
        self.books = begun(self.began_ms)
        self.limits: Callable[[AccountRef], LimitInForce | None] = limits_of(self.budget)
        self._born = self._steps = 0

    @property
    def now_ms(self) -> int:
        return self.began_ms + int(self.now * 1000)

    @property
    def account(self) -> Account:
        """Of the running period."""
        (account,) = self.books.current(self.now_ms)
        return account

    def start(self, workload: str = "") -> Pod:
        """A new pod, which asks for its first rights as a sidecar does when it starts."""
        self._born += 1
        pod = Pod(self, self._born, workload)
        self.pods.append(pod)
        pod.top_up()
        return pod

    def kill(self, pod: Pod) -> None:
        """The pod and its log are gone, without a word; the API server tells the coordinator."""
        self.pods.remove(pod)
        self.books.quarantine([pod.holder.uid], "gone")

    def run(self, seconds: float, each_step: Callable[[], object] = lambda: None) -> None:
        """Let time pass: top-ups in each step, reports every two seconds, a sweep every second."""
        for _ in range(round(seconds / STEP_SECONDS)):
            self._steps += 1
            self.now += STEP_SECONDS
            for position, pod in enumerate(list(self.pods)):
                pod.top_up()
                if (self._steps + position) % REPORT_STEPS == 0:
                    pod.report()
            if self._steps % SWEEP_STEPS == 0 and not self.away:
                self.books.sweep(self.now_ms, round(SWEEP_STEPS * STEP_SECONDS * 1000))
            each_step()

    def exhaust(self, racers: Sequence[Pod], worst: int, rng: Random) -> None:
        """All call as often as they are served, at half to all of their worst case, until nobody is any more."""
        tried_at = dict.fromkeys(racers, 0.0)
        served_at = 0.0

        def race() -> None:
            nonlocal served_at
            for racer in racers:
                if self.now >= tried_at[racer]:
                    if racer.call(worst, rng.randrange(worst // 2, worst + 1)):
                        served_at = self.now
                    else:
                        tried_at[racer] = self.now + rng.uniform(0.5, 2.0)  # a client that heeds Retry-After

        while self.now - served_at < PATIENCE_SECONDS:
            self.run(1.0, race)
        for racer in racers:
            racer.report()


class Pod:
    """One sidecar's ledger, and the calls of its application."""

    def __init__(self, fleet: Fleet, number: int, workload: str) -> None:
        self.holder = Holder(f"uid-{number}", f"team-a/pod-{number}", f"nonce-{number}", workload)
        self.ledger = Ledger(self.holder.nonce, (fleet.budget,), fleet.now)
        self.served = self.refused = self.round_trips = 0
        self.heard_last = ""
        """Reason of the last refusal."""
        self._fleet = fleet
        self._requests = 0

    def call(self, worst: int, billed: int | None) -> bool:
        """One call from reservation to settlement; `billed` None: a failure that costs nothing. Whether it went."""
        name = self.begin(worst)
        if name is None:
            return False
        if billed is None:
            self.ledger.void(name)
        else:
            self._fleet.truly_spent += billed
            self.ledger.settle(name, Quantities(cost_nanos=billed, currency="USD"), self._fleet.now)
        return True

    def begin(self, worst: int) -> str | None:
        """Reserve as a sidecar does: from what is here, else by one question. None: refused."""
        now = self._fleet.now
        charge = (Charge(account=REF, unit="Cost", amount=worst),)
        name = f"{self.holder.uid}/{self.served}/{self.refused}"
        lacking = self.ledger.reserve(charge, name, now)
        if lacking and not self.ledger.standing_denials(lacking, now):
            self._acquire(self.ledger.wants_for(lacking, now))
            lacking = self.ledger.reserve(charge, name, now)
        if lacking:
            self.refused += 1
            return None
        self.served += 1
        return name

    def top_up(self) -> None:
        if wants := self.ledger.wants(self._fleet.now):
            self._acquire(wants)

    def report(self) -> None:
        """Tell the coordinator what was spent; it may ask rights back."""
        if self._fleet.away:
            return
        request = ReportRequest(nonce=self.holder.nonce, reports=self.ledger.reports(self._fleet.now))
        reply = self._fleet.books.report(self.holder, request, self._fleet.limits, self._fleet.now_ms)
        self.ledger.acknowledged(reply.leases, self._fleet.now)

    def _acquire(self, wants: tuple[Want, ...]) -> None:
        fleet = self._fleet
        if fleet.away:
            return
        self._requests += 1
        self.round_trips += 1
        request = acquire(f"r{self._requests}", self.holder.nonce, *wants)
        reply = fleet.books.acquire(self.holder, request, fleet.limits, fleet.now_ms)
        for lease in reply.leases:
            self.ledger.merge(lease, fleet.now)
        self.ledger.denied(reply.denials, fleet.now)
        needs = {want.account: want.need for want in wants}
        for denial in reply.denials:
            self.heard_last = denial.reason
            if denial.state is not None and needs[denial.account] <= denial.state.amount - denial.state.charged:
                fleet.false_refusals.append(f"{self.holder.name}: {needs[denial.account]} at {denial.state}")


def fleet_of(amount: int) -> Fleet:
    """A fleet on one hourly limit of so many nano-dollars, at the beginning of an hour."""
    return Fleet(budget(amount))
