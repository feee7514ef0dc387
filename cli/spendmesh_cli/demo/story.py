"""When the provider fails in the demo, and what the run must have shown at its end. Times are shares of the run."""

from __future__ import annotations

from dataclasses import dataclass

STUMBLE = (0.20, 0.28)
"""Some answers are 503 or 429: retries recover them, within the retry budget."""
OUTAGE = (0.32, 0.45)
"""Every answer of the main provider is 500: the breaker ejects it, calls fail over to the backup."""
STUMBLE_PROBABILITY = 0.12
MAIN = "default"
"""The stand-in's own name for the main provider; the other one is `backup`."""
FAILURES_BILLED = "input"
"""The stand-in charges the input of failed attempts: the ledger must cover that too."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A stretch of the run with its fault plan for the stand-in, and what the table says about it."""

    begin: float
    title: str
    faults: tuple[dict[str, object], ...] = ()


def chapters() -> tuple[Chapter, ...]:
    """The run in order."""
    stumble = {
        "provider": MAIN,
        "probability": STUMBLE_PROBABILITY,
        "action": "status",
        "status": 503,
        "bill": FAILURES_BILLED,
    }
    outage = {"provider": MAIN, "action": "status", "status": 500, "bill": FAILURES_BILLED}
    return (
        Chapter(0.0, "all well: calls go to tiers by task"),
        Chapter(STUMBLE[0], f"main provider: {STUMBLE_PROBABILITY:.0%} of answers are 503", (stumble,)),
        Chapter(STUMBLE[1], "main provider well again"),
        Chapter(OUTAGE[0], "main provider down: every answer is 500", (outage,)),
        Chapter(OUTAGE[1], "main provider well again; the breaker probes it"),
        Chapter(0.6, "team-a's budget runs out; team-b goes on"),
    )
