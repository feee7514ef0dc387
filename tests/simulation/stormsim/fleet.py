"""One run: calls arrive at pods, every pod's own exchanges decide, the provider answers in its order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from exchange_world import CHAT, UNIX, price
from spendmesh_sidecar.core.breaker import Breakers
from spendmesh_sidecar.core.concurrency import Limiters
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.ledger import Ledger
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.prices import Pricing
from spendmesh_sidecar.core.restraints import Restraints
from spendmesh_sidecar.core.retry_budget import RetryBudgets
from spendmesh_sidecar.core.specs import ProviderSpec, RoutingSpec, TargetSpec, TierSpec
from spendmesh_sidecar.core.types import (
    Attempt,
    Bounds,
    Kind,
    Outcome,
    ParsedRequest,
    Respond,
    Step,
    Usage,
    Wait,
)
from spendmesh_sidecar.policy import Policy
from stormsim.provider import TRIGGER, WORKERS, FifoProvider
from stormsim.rows import Row

SECONDS: Final = TRIGGER[1] + 330
BIN_SECONDS: Final = 10
BINS: Final = int(SECONDS // BIN_SECONDS)
INPUT_TOKENS, OUTPUT_TOKENS = 1_000, 1_000
USD_PER_CALL: Final = 0.01
"""A thousand tokens of input at 2 USD a million, and as many of output at 8."""
SDK_BACKOFF_SECONDS, SDK_LONGEST_SECONDS = 0.5, 8.0
"""Of the SDKs of OpenAI and Anthropic; a quarter of it at most is taken off at random."""

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
_REQUEST = ParsedRequest(
    CHAT,
    b"{}",
    {},
    _MODEL,
    stream=False,
    bounds=Bounds(input_tokens=INPUT_TOKENS, max_output_tokens=OUTPUT_TOKENS, output_field="max_completion_tokens"),
)
_ANSWER = Outcome(
    Kind.SUCCESS,
    200,
    committed=True,
    complete=True,
    usage=Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS),
    output_bytes=4 * OUTPUT_TOKENS,
)
_LATE = broken(Kind.TIMEOUT)


@dataclass(frozen=True)
class Line:
    """What is run: one line of the table."""

    row: Row
    pods: int
    offered: int
    """Calls a second, over all pods."""
    workers: int = WORKERS
    """Of the provider, which serve a call a second each."""

    def __str__(self) -> str:
        return f"{self.row.name}, {self.pods} pods, {self.offered}/s"


@dataclass
class Counts:
    """How often in each `BIN_SECONDS`."""

    calls: list[int]
    sent: list[int]
    retries: list[int]
    """Of those sent, what was not a call's first try."""
    good: list[int]
    """Calls that were answered."""
    wasted: list[int]
    """Answers that came when nobody waited any more."""

    @classmethod
    def blank(cls) -> Counts:
        """Nothing yet."""
        return cls(*([0] * BINS for _ in range(5)))


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
    """One call of an app, over all tries of its SDK."""

    pod: Pod
    exchange: Exchange
    tries: int = 1


class Fleet:
    """`run` plays a line with one seed and answers what was counted."""

    def __init__(self, line: Line, seed: int) -> None:
        self.line = line
        self.rng = Random(f"{seed}: {line}")
        self.provider = FifoProvider(self.rng, line.workers)
        self.policy = Policy(
            cluster="storm",
            namespace="storm",
            price_table="0" * 64,
            providers=(_PROVIDER,),
            routing=_ROUTING,
            retry=line.row.spec,
        )
        self.pricing = Pricing((), "storm")
        self.pods = [Pod(Ledger(f"pod-{number}/1", (), 0.0)) for number in range(line.pods)]
        self.now = 0.0
        self.counts = Counts.blank()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def run(self) -> Counts:
        """To the end of the last bin."""
        self._arrival()
        end, events = BINS * BIN_SECONDS, self._events
        while events and events[0][0] < end:
            self.now, _, what, arguments = heapq.heappop(events)
            what(*arguments)
        return self.counts

    def _at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, arguments))

    def _arrival(self) -> None:
        self._at(self.now + self.rng.expovariate(self.line.offered), self._arrival)
        if self.now == 0.0:
            return
        self.counts.calls[int(self.now // BIN_SECONDS)] += 1
        pod = self.pods[int(self.rng.random() * len(self.pods))]
        call = Call(pod, self._exchange(pod))
        self._do(call, call.exchange.begin(self.now, UNIX))

    def _exchange(self, pod: Pod) -> Exchange:
        return Exchange(
            _REQUEST,
            self.policy,
            ledger=pod.ledger,
            retry_budgets=pod.retry_budgets,
            breakers=pod.breakers,
            pricing=self.pricing,
            request_id=f"call-{self._number}",
            rng=self.rng,
            restraints=pod.restraints,
            limiters=pod.limiters,
        )

    def _do(self, call: Call, step: Step) -> None:
        match step:
            case Attempt():
                self._send(call, step)
            case Wait(seconds):
                self._at(self.now + seconds, self._resume, call)
            case Respond():
                self._end(call)
            case _:
                raise AssertionError(f"no budget in money is here to ask for {step}")

    def _send(self, call: Call, step: Attempt) -> None:
        place = int(self.now // BIN_SECONDS)
        self.counts.sent[place] += 1
        self.counts.retries[place] += step.number > 1 or call.tries > 1
        done, given_up = self.provider.send(self.now), self.now + step.timeout_seconds
        if done <= given_up:
            self._at(done, self._observe, call, _ANSWER)
            return
        self._at(given_up, self._observe, call, _LATE)
        if (executed := int(done // BIN_SECONDS)) < BINS:
            self.counts.wasted[executed] += 1

    def _observe(self, call: Call, outcome: Outcome) -> None:
        if outcome is _ANSWER:
            self.counts.good[int(self.now // BIN_SECONDS)] += 1
        self._do(call, call.exchange.observe(outcome, self.now, UNIX))

    def _resume(self, call: Call) -> None:
        self._do(call, call.exchange.resume(self.now, UNIX))

    def _end(self, call: Call) -> None:
        settlements = call.exchange.decision.settlements
        call.exchange.close(self.now)
        answered = bool(settlements) and settlements[-1].kind is Kind.SUCCESS
        if answered or call.tries > self.line.row.client_retries:
            return
        pause = min(SDK_LONGEST_SECONDS, SDK_BACKOFF_SECONDS * 2 ** (call.tries - 1))
        self._at(self.now + pause * (1 - 0.25 * self.rng.random()), self._again, call)

    def _again(self, call: Call) -> None:
        call.tries += 1
        call.exchange = self._exchange(call.pod)
        self._do(call, call.exchange.begin(self.now, UNIX))
