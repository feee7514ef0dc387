"""
The provider: fails in many ways, lies about usage, and keeps its own invoice of what it bills for each reservation.

It prices by the price list that the attempt was sent under and shares no arithmetic with the ledger. What it bills is
at most what the request can use; when it bills is its own affair, also after everybody has left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ledgersim.loop import Scheduler
from ledgersim.workload import Call
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome, Usage

MILLION = 10**6
SLOW_SECONDS = 6.0
"""As long as a silent holder is waited for."""
UNBILLED = ("429", "connect", "500", "503")


@dataclass(frozen=True, slots=True)
class Bill:
    """What one attempt is billed, in every unit that a limit can have."""

    cost_nanos: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt brings. `outcome` None: whoever drives it gives up without seeing the end."""

    seconds: float
    outcome: Outcome | None


class Provider:
    """All upstream together."""

    def __init__(self, scheduler: Scheduler, happened: Counter[str], bill: Callable[[str, Bill], None]) -> None:
        self._scheduler, self._happened, self._bill = scheduler, happened, bill

    def send(self, attempt: Attempt, call: Call) -> Answer:
        """Serve one attempt. Only the first of a call meets its fault; retries are served."""
        ending = call.ending if attempt.number == 1 else "ok"
        if ending != "ok":
            self._happened[f"provider: {ending}"] += 1
        maximum = attempt.max_output_tokens or call.max_output_tokens or 0
        used = Usage(input_tokens=call.billed_input, output_tokens=max(1, int(maximum * call.billed_share)))
        seconds = call.seconds + (SLOW_SECONDS if ending in ("slow", "timeout") else 0.0)
        if ending not in UNBILLED:
            at = self._scheduler.rng.random() * (seconds + 2.0 if ending in ("timeout", "client gone") else seconds)
            self._scheduler.after(at, self._bill, attempt.reservation, _price(attempt, used))
        return Answer(seconds, _outcome(ending, used))


def _price(attempt: Attempt, used: Usage) -> Bill:
    prices = attempt.provider.prices[0].rows[-1].prices
    cost = used.input_tokens * (prices.input // MILLION) + used.output_tokens * (prices.output // MILLION)
    return Bill(cost, used.input_tokens, used.output_tokens)


def _outcome(ending: str, used: Usage) -> Outcome | None:
    """What the shell would see. None: nobody looks any more."""
    if ending == "connect":
        return Outcome(Kind.CONNECT, broken=True)
    if ending == "timeout":
        return Outcome(Kind.TIMEOUT, broken=True)
    if ending in _STATUSES:
        kind, status, wait = _STATUSES[ending]
        return Outcome(kind, status, retry_after_seconds=wait)
    if ending in _CUTS:
        kind, seen = _CUTS[ending]
        return Outcome(kind, 200, committed=True, output_bytes=4 * used.output_tokens // seen, broken=True)
    if ending == "abandoned":
        return None
    told = {"no usage": None, "lies huge": Usage(used.input_tokens, output_tokens=10**18)}
    told["lies zero"] = Usage(used.input_tokens)
    kind = Kind.CUT if ending == "usage then cut" else Kind.SUCCESS
    usage, text = told.get(ending, used), 4 * used.output_tokens
    return Outcome(kind, 200, committed=True, complete=True, usage=usage, output_bytes=text, broken=kind is Kind.CUT)


_STATUSES = {
    "429": (Kind.THROTTLED, 429, 0.2),
    "503": (Kind.TRANSIENT, 503, None),
    "500": (Kind.AMBIGUOUS, 500, None),
    "500 billed": (Kind.AMBIGUOUS, 500, None),
}
_CUTS = {"cut": (Kind.CUT, 2), "client gone": (Kind.CLIENT_GONE, 3)}
"""Kind, and the part of the text that was seen."""
