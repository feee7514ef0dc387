"""Whole exchanges of some pods with one provider, on one clock, which is a heap; what a try brings is a subclass's."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from exchange_world import CHAT, UNIX, price
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import Breakers
from spendmesh_sidecar.core.failures.concurrency import Limiters
from spendmesh_sidecar.core.failures.restraints import Restraints
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.specs import ProviderSpec, RetrySpec, RoutingSpec, TargetSpec, TierSpec
from spendmesh_sidecar.core.types import Attempt, Bounds, Kind, Outcome, ParsedRequest, Respond, Step, Usage, Wait
from spendmesh_sidecar.policy import Policy

INPUT_TOKENS, OUTPUT_TOKENS = 1_000, 1_000
USD_PER_CALL: Final = 0.01
"""A thousand tokens of input at 2 USD a million, and as many of output at 8."""

_MODEL = "medium-1"
_PROVIDER = ProviderSpec(
    alias="openai",
    ref="storm/openai",
    dialect="OpenAI",
    base_url="https://provider.example/v1",
    prices=(price(_MODEL, 2, 8),),
)
_TIER = TierSpec(name="standard", targets=(TargetSpec(name="medium", provider="openai", model=_MODEL),))
_ROUTING = RoutingSpec(name="storm/chat", tiers=(_TIER,), default_tier="standard")
_BOUNDS = Bounds(input_tokens=INPUT_TOKENS, max_output_tokens=OUTPUT_TOKENS, output_field="max_completion_tokens")
REQUEST: Final = ParsedRequest(CHAT, b"{}", {}, _MODEL, stream=False, bounds=_BOUNDS)
ANSWER: Final = Outcome(
    Kind.SUCCESS,
    200,
    committed=True,
    complete=True,
    usage=Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS),
    output_bytes=4 * OUTPUT_TOKENS,
)


@dataclass
class Pod:
    """What calls of one sidecar share."""

    ledger: Ledger
    retry_budgets: RetryBudgets = field(default_factory=RetryBudgets)
    breakers: Breakers = field(default_factory=Breakers)
    restraints: Restraints = field(default_factory=Restraints)
    limiters: Limiters = field(default_factory=Limiters)


@dataclass(slots=True)
class Call:
    """One call of an app, over all tries of its own."""

    pod: Pod
    exchange: Exchange
    tries: int = 1
    about: Any = None
    """What the subclass has to know of it."""


class Driver:
    """`call` begins one; `send` says how a try ends, and `pause` when a client tries anew that was not answered."""

    def __init__(self, retry: RetrySpec, pods: int, rng: Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.policy = Policy(
            cluster="storm",
            namespace="storm",
            price_table="0" * 64,
            providers=(_PROVIDER,),
            routing=_ROUTING,
            retry=retry,
        )
        self.pods = [Pod(Ledger(f"pod-{number}/1", (), 0.0)) for number in range(pods)]
        self._pricing = Pricing((), "storm")
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def send(self, call: Call, step: Attempt) -> tuple[float, Outcome]:
        """When a try that is sent now ends, and how."""
        raise NotImplementedError

    def pause(self, call: Call) -> float | None:
        """Seconds until the client tries anew after a failure; None: it does not."""
        raise NotImplementedError

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Do something later."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, arguments))

    def play(self, until: float) -> None:
        """All that happens before a moment."""
        while self._events and self._events[0][0] < until:
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)

    def call(self, about: Any = None) -> None:
        """A call arrives at one of the pods."""
        pod = self.pods[int(self.rng.random() * len(self.pods))]
        call = Call(pod, self._exchange(pod), about=about)
        self._do(call, call.exchange.begin(self.now, UNIX))

    def _exchange(self, pod: Pod) -> Exchange:
        self._number += 1
        return Exchange(
            REQUEST,
            self.policy,
            ledger=pod.ledger,
            retry_budgets=pod.retry_budgets,
            breakers=pod.breakers,
            pricing=self._pricing,
            request_id=f"call-{self._number}",
            rng=self.rng,
            restraints=pod.restraints,
            limiters=pod.limiters,
        )

    def _do(self, call: Call, step: Step) -> None:
        match step:
            case Attempt():
                ends, outcome = self.send(call, step)
                self.at(ends, self._observe, call, outcome)
            case Wait(seconds):
                self.at(self.now + seconds, self._resume, call)
            case Respond():
                self._end(call)
            case _:
                raise AssertionError(f"no budget in money is here to ask for {step}")

    def _observe(self, call: Call, outcome: Outcome) -> None:
        self._do(call, call.exchange.observe(outcome, self.now, UNIX))

    def _resume(self, call: Call) -> None:
        self._do(call, call.exchange.resume(self.now, UNIX))

    def _end(self, call: Call) -> None:
        settlements = call.exchange.decision.settlements
        call.exchange.close(self.now)
        answered = bool(settlements) and settlements[-1].kind is Kind.SUCCESS
        self.ended(call, answered=answered)
        if not answered and (seconds := self.pause(call)) is not None:
            self.at(self.now + seconds, self._again, call)

    def ended(self, call: Call, *, answered: bool) -> None:
        """An exchange is over; the client may try anew."""

    def _again(self, call: Call) -> None:
        call.tries += 1
        call.exchange = self._exchange(call.pod)
        self._do(call, call.exchange.begin(self.now, UNIX))
