"""One run: calls arrive at pods, every pod's own exchanges decide, the provider answers in its order."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from exchange_driver import ANSWER, Call, Driver
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome
from stormsim.provider import TRIGGER, WORKERS, FifoProvider
from stormsim.rows import Row
from stormsim.sharing import Sharing

SECONDS: Final = TRIGGER[1] + 330
BIN_SECONDS: Final = 10
BINS: Final = int(SECONDS // BIN_SECONDS)
SDK_BACKOFF_SECONDS, SDK_LONGEST_SECONDS = 0.5, 8.0
"""Of the SDKs of OpenAI and Anthropic; a quarter of it at most is taken off at random."""
_LATE: Final = broken(Kind.TIMEOUT)


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


class Fleet(Driver):
    """`run` plays a line with one seed and answers what was counted."""

    def __init__(self, line: Line, seed: int) -> None:
        super().__init__(line.row.spec, line.pods, Random(f"{seed}: {line}"))
        self.line = line
        self.provider = FifoProvider(self.rng, line.workers)
        self.counts = Counts.blank()

    def run(self) -> Counts:
        """To the end of the last bin."""
        if self.line.row.spec.scope == "Cluster":
            Sharing(self).start()
        self.at(self.rng.expovariate(self.line.offered), self._arrival)
        self.play(BINS * BIN_SECONDS)
        return self.counts

    def _arrival(self) -> None:
        self.at(self.now + self.rng.expovariate(self.line.offered), self._arrival)
        self.counts.calls[self._bin] += 1
        self.call()

    @property
    def _bin(self) -> int:
        return int(self.now // BIN_SECONDS)

    def send(self, call: Call, step: Attempt) -> tuple[float, Outcome]:
        """Served in its turn; late where nobody waits so long."""
        self.counts.sent[self._bin] += 1
        self.counts.retries[self._bin] += step.number > 1 or call.tries > 1
        done, given_up = self.provider.send(self.now), self.now + step.timeout_seconds
        if done <= given_up:
            return done, ANSWER
        if (executed := int(done // BIN_SECONDS)) < BINS:
            self.counts.wasted[executed] += 1
        return given_up, _LATE

    def ended(self, call: Call, *, answered: bool) -> None:
        """Count what was answered."""
        self.counts.good[self._bin] += answered

    def pause(self, call: Call) -> float | None:
        """As SDKs do, as often as the row says."""
        if call.tries > self.line.row.client_retries:
            return None
        pause = min(SDK_LONGEST_SECONDS, SDK_BACKOFF_SECONDS * 2 ** (call.tries - 1))
        return pause * (1 - 0.25 * self.rng.random())
