"""
A provider for the storm: fails in every way it can, and keeps its own invoice.

It prices by its own table of whole nano-dollars per token and shares no code with what it checks.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from spendmesh_sidecar.core.types import Attempt, Kind, Outcome, ParsedRequest, Usage

NANOS_PER_TOKEN = {
    "small-1": (1_000, 2_000),
    "medium-1": (2_000, 8_000),
    "medium-2": (3_000, 9_000),
    "large-1": (10_000, 40_000),
}
"""Input and output."""

CALM = {
    "ok": 90,
    "no usage": 1,
    "understated": 1,
    "cut": 1,
    "client gone": 2,
    "abandoned": 1,
    "slow": 1,
    "500": 1,
    "429": 2,
}
STORM = {
    "ok": 30,
    "500": 12,
    "502": 8,
    "503": 6,
    "529": 4,
    "429": 14,
    "connect": 8,
    "timeout": 3,
    "cut": 4,
    "usage then cut": 3,
    "no usage": 2,
    "understated": 2,
    "client gone": 2,
    "abandoned": 1,
    "slow": 1,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt brings. `outcome` None: the driver gives up without seeing the end."""

    seconds: float
    outcome: Outcome | None


@dataclass
class StormProvider:
    """All upstream targets together; `storming` aliases fail most of the time."""

    rng: random.Random
    invoice_nanos: int = 0
    storming: frozenset[str] = frozenset()
    faults: Counter[str] = field(default_factory=Counter)
    billed_failures: int = 0

    def send(self, attempt: Attempt, request: ParsedRequest) -> Answer:
        """Serve one attempt: bill it as such a provider would, honestly or not, and say how it ends."""
        weights = STORM if attempt.provider.alias in self.storming else CALM
        [fault] = self.rng.choices(list(weights), list(weights.values()))
        self.faults[fault] += 1
        maximum = attempt.max_output_tokens or request.bounds.max_output_tokens or 0
        usage = Usage(
            input_tokens=self.rng.randint(1, request.bounds.input_tokens),
            output_tokens=self.rng.randint(1, maximum) if self.rng.random() < 0.9 else maximum,
        )
        if self._bills(fault):
            per_input, per_output = NANOS_PER_TOKEN[attempt.model]
            self.invoice_nanos += usage.input_tokens * per_input + usage.output_tokens * per_output
        seconds = self.rng.uniform(20, 90) if fault in ("slow", "timeout") else self.rng.uniform(0.05, 3)
        return Answer(seconds, self._outcome(fault, usage))

    def _bills(self, fault: str) -> bool:
        if fault in ("429", "529", "connect"):
            return False
        if fault in ("500", "502", "503", "timeout"):
            billed = self.rng.random() < 0.5  # billing after 5xx and timeout is switched on
            self.billed_failures += billed
            return billed
        return True

    def _outcome(self, fault: str, usage: Usage) -> Outcome | None:
        text = usage.output_tokens * 4
        match fault:
            case "ok" | "slow":
                return Outcome(Kind.SUCCESS, 200, committed=True, complete=True, usage=usage, output_bytes=text)
            case "no usage":
                return Outcome(Kind.SUCCESS, 200, committed=True, complete=True, output_bytes=text)
            case "understated":
                lie = Usage(input_tokens=usage.input_tokens)
                return Outcome(Kind.SUCCESS, 200, committed=True, complete=True, usage=lie, output_bytes=text)
            case "cut":
                return Outcome(Kind.CUT, 200, committed=True, output_bytes=text // 2)
            case "usage then cut":
                return Outcome(Kind.CUT, 200, committed=True, complete=True, usage=usage, output_bytes=text)
            case "client gone":
                return Outcome(Kind.CLIENT_GONE, 200, committed=True, output_bytes=text // 3)
            case "abandoned":
                return None
            case "connect":
                return Outcome(Kind.CONNECT)
            case "timeout":
                return Outcome(Kind.TIMEOUT)
            case "429":
                after = self.rng.choice([None, None, 1.0, 4.0, 600.0])
                return Outcome(Kind.THROTTLED, 429, complete=True, retry_after_seconds=after)
            case "529":
                return Outcome(Kind.THROTTLED, 529, complete=True)
            case _:
                return Outcome(Kind.AMBIGUOUS if fault == "500" else Kind.TRANSIENT, int(fault), complete=True)
