"""How long to wait before a retry, with chance in it, so that many clients do not come back as one."""

from __future__ import annotations

from typing import Protocol

from spendmesh_sidecar.core.specs import RetrySpec

HINT_JITTER = 0.1
"""Added fraction of a provider's hint, which is a minimum for everybody who got it (OpenAI advises a small random
delay)."""
GROWTH = 3.0
"""Of decorrelated jitter (AWS architecture blog, 2015)."""


class Rng(Protocol):
    """Chance, handed in."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def backoff(spec: RetrySpec, number: int, last: float, rng: Rng, *, throttled: bool) -> float:
    """
    Seconds before the try that follows try `number` on the same target, where no hint says more.

    `last` is what this said before, 0 at first; `throttled` where the provider throttles.
    """
    base: float = (max(spec.throttled_backoff_ms, spec.backoff_ms) if throttled else spec.backoff_ms) / 1000
    longest = spec.max_backoff_ms / 1000
    # the exponent is capped where any base has long reached its maximum; larger ones only overflow
    grown: float = min(longest, base * 2 ** min(number - 1, 32))
    match spec.jitter:
        case "Full":
            return rng.random() * grown
        case "Equal":
            return grown / 2 * (1 + rng.random())
        case "Decorrelated":
            return min(longest, base + rng.random() * max(0.0, last * GROWTH - base))
        case "None":
            return grown


def after_hint(seconds: float, rng: Rng) -> float:
    """A hint as a minimum, with chance added."""
    return seconds * (1 + HINT_JITTER * rng.random())
