"""
The whole day through exchanges. Faults of the provider have a length, so that a pause helps for the reason it does.

A fault that the first try met lasts for a time whose median is one try: then half of immediate retries meet it still,
and half of the retries after these. A pause of 1 to 2 seconds outlasts nine of ten.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final

from exchange_driver import ANSWER, CHAT, Call, Driver
from retryday.figure import FAILING, MALFORMED, REQUESTS, Name, Tally
from retryday.malformed import KINDS
from retryday.policy import NAIVE_TRIES, NOTHING, spec
from spendmesh_sidecar.core.operations.errors import RequestError
from spendmesh_sidecar.core.operations.parse import parse_request
from spendmesh_sidecar.core.outcome import answered
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome

DAY_SECONDS: Final = 86_400.0
TRY_SECONDS: Final = 0.625
PODS: Final = 4
_UNIX = 1_790_000_000
_MALFORMED: Final = answered("OpenAI", 400, {}, b'{"error": {"type": "invalid_request_error"}}', _UNIX)
_FAULT: Final = answered("OpenAI", 503, {}, b"", _UNIX)


@dataclass(frozen=True)
class Way:
    """How the day is met."""

    name: str
    retry: RetrySpec
    tries: int = 1
    """Of the application's own loop, at once."""
    sidecar: bool = True
    """Whether a sidecar reads requests before they are sent."""
    malformed_recover: bool = False
    """As the figure has it: a malformed request is a fault like others."""


def ways() -> tuple[Way, ...]:
    """What is compared."""
    return (
        Way(Name.FIGURE, NOTHING, NAIVE_TRIES, sidecar=False, malformed_recover=True),
        Way(Name.NAIVE, NOTHING, NAIVE_TRIES, sidecar=False),
        Way(Name.LOOPED, NOTHING, NAIVE_TRIES),
        Way(Name.OURS, spec()),
    )


@dataclass
class Trouble:
    """What a call meets at the provider."""

    until: float = 0.0
    malformed: bool = False


class Day(Driver):
    """`run` plays `1 / factor` of a day and tells what became of it."""

    def __init__(self, way: Way, seed: int, factor: int = 1) -> None:
        super().__init__(way.retry, PODS, Random(f"{seed}: {way.name}"))
        self.way = way
        self.factor = factor
        self.happened: Counter[str] = Counter()

    def run(self) -> Tally:
        """To the end of the day and of what it began."""
        seconds = DAY_SECONDS / self.factor
        for _ in range(REQUESTS // self.factor):
            self.at(self.rng.random() * seconds, self._arrival)
        self.play(math.inf)
        count = self.happened
        parts = count["transient"], count["malformed"], count["refused"], count["lost"]
        return Tally(self.way.name, *parts, factor=self.factor)

    def _arrival(self) -> None:
        if self.rng.random() * REQUESTS >= FAILING:
            self.call(Trouble())
        elif self.rng.random() * FAILING >= MALFORMED or self.way.malformed_recover:
            self.call(Trouble(until=self.now + self.rng.expovariate(math.log(2) / TRY_SECONDS)))
        else:
            self._malformed(self.rng.choice(list(KINDS.values())))

    def _malformed(self, body: bytes) -> None:
        """What a sidecar cannot read is never sent, however often the application asks."""
        if self.way.sidecar:
            try:
                parse_request(CHAT, body, [])
            except RequestError:
                self.happened["refused"] += self.way.tries
                return
        self.call(Trouble(malformed=True))

    def send(self, call: Call, step: Attempt) -> tuple[float, Outcome]:
        """The first try of a call in trouble fails; a later one only while the trouble lasts."""
        trouble: Trouble = call.about
        first = call.tries == 1 and step.number == 1
        if trouble.malformed:
            self.happened["malformed"] += 1
            outcome = _MALFORMED
        elif trouble.until and (first or self.now < trouble.until):
            self.happened["transient"] += 1
            outcome = _FAULT
        else:
            outcome = ANSWER
        return self.now + TRY_SECONDS, outcome

    def ended(self, call: Call, *, answered: bool) -> None:
        """Whether the application has its answer now, or will not get one."""
        last = call.tries >= self.way.tries
        self.happened["lost"] += not answered and last and not call.about.malformed
        self.happened["retry unpaid"] += call.exchange.retry_denied == "budget"

    def pause(self, call: Call) -> float | None:
        """A loop that asks again at once."""
        return 0.0 if call.tries < self.way.tries else None


assert _MALFORMED.kind is Kind.NON_RETRYABLE and _FAULT.kind is Kind.TRANSIENT
