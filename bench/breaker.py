"""
What the breaker and a limit of concurrency add to an attempt: `python bench/breaker.py`, no network in it.

CPU time of the process, so that neighbors do not count; the least of the rounds.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from random import Random

from spendmesh_sidecar.core.failures.breaker import Breakers, Verdict
from spendmesh_sidecar.core.failures.concurrency import Limiters
from spendmesh_sidecar.core.specs import BreakerSpec, ConcurrencySpec

KEY = "openai/medium-1"
RNG = Random(1)


def serving(breakers: Breakers, spec: BreakerSpec, verdict: Verdict) -> Callable[[], None]:
    """What `Attempts` asks of the breaker for one call: may it go, leave, first byte, end."""
    clock = iter(range(1, 10**12))

    def call() -> None:
        now = next(clock) * 0.001
        if breakers.of(KEY, spec).reopens_in(now) > 0:
            raise AssertionError("the target has to serve")
        permit = breakers.of(KEY, spec).permit(now)
        assert permit is not None
        permit = breakers.of(KEY, spec).begun(permit, now, RNG, waited_seconds=0.5)
        breakers.of(KEY, spec).settle(permit, verdict, now, RNG)

    return call


def limited(limiters: Limiters, spec: ConcurrencySpec) -> Callable[[], None]:
    """The same of a limit: is there room, a place, and back."""

    def call() -> None:
        if not limiters.of(KEY, spec).has_room:
            raise AssertionError("there has to be room")
        limiters.of(KEY, spec).good(limiters.of(KEY, spec).take())

    return call


def ejected(breakers: Breakers, spec: BreakerSpec) -> Callable[[], None]:
    """A refusal: the target is passed over."""
    breakers.of(KEY, spec).trip(0.0, RNG, "ratio")

    def call() -> None:
        if breakers.of(KEY, spec).reopens_in(0.5) <= 0:
            raise AssertionError("the target has to be ejected")

    return call


def microseconds(call: Callable[[], None], calls: int, rounds: int) -> float:
    """CPU of one call."""
    return min(timeit.repeat(call, timer=time.process_time, number=calls, repeat=rounds)) / calls * 1e6


def main(calls: int = 20_000, rounds: int = 25) -> None:
    """Print one line for each case."""
    spec = BreakerSpec(slow_first_byte_ms=20_000)
    failing = BreakerSpec(consecutive_5xx_errors=1_000_000_000, failure_percent=100, min_requests=10**9)
    rows = {
        "a call of a serving target that succeeds": serving(Breakers(), spec, Verdict.SUCCESS),
        "a call of a serving target that fails": serving(Breakers(), failing, Verdict.FAILURE),
        "a look at an ejected target": ejected(Breakers(), spec),
        "a call under a limit of concurrency": limited(Limiters(), ConcurrencySpec()),
    }
    for name, call in rows.items():
        print(f"{microseconds(call, calls, rounds):6.2f} µs  {name}")


if __name__ == "__main__":
    main()
