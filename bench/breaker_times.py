"""
How soon a target that fails is left alone, and how soon it is called again: `python bench/breaker_times.py`.

Once by the decisions alone on a simulated clock, the medians of many seeds, and once through a real sidecar with its
provider. Both have one target, no retries, the default breaker and calls at a steady rate; before the outage all is
well for a minute (simulated) or some calls (real).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from spendmesh_operator.clock import SystemClock
from spendmesh_operator.local import LocalControl, LocalPod
from spendmesh_sidecar.core.failures.breaker import Breaker, Verdict
from spendmesh_sidecar.core.specs import BreakerSpec
from spendmesh_sidecar.keys import StaticKeys
from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import Address, Settings
from spendmesh_standin import DEFAULT_KEYS, FaultRule, StandIn

SEEDS = 101
WELL_SECONDS = 60.0
POD = LocalPod("bench", "app-1", token="token-of-the-bench")


@dataclass(frozen=True)
class Times:
    """One outage."""

    calls_until_ejected: int
    """Calls of the outage that reached the target before it was ejected."""
    seconds_until_ejected: float
    calls_in_outage: int
    """All that reached it while it was down, probes included."""
    seconds_until_restored: float
    """From its recovery to the first call that was served."""


# --- the decisions alone ----------------------------------------------------------------------------------


def all_fail(number: int) -> Verdict:
    """Every call fails."""
    return Verdict.FAILURE


def every_second(number: int) -> Verdict:
    """Every second call fails."""
    return Verdict.FAILURE if number % 2 else Verdict.SUCCESS


def throttled(number: int) -> Verdict:
    """Every call is throttled."""
    return Verdict.SOFT_FAILURE


def simulate(
    down: Callable[[int], Verdict],
    rate: float,
    outage_seconds: float,
    seed: int,
    *,
    well: bool = True,
    hint: bool = False,
) -> Times | None:
    """One outage at `rate` calls a second; None: the target was never ejected. `well`: calls before the outage."""
    breaker, rng = Breaker(BreakerSpec()), Random(seed)
    first = rng.random() / rate  # where in a call's period the outage begins
    if well:
        for number in range(int(WELL_SECONDS * rate)):
            settle(breaker, Verdict.SUCCESS, first + number / rate - WELL_SECONDS, rng)
    if hint:
        breaker.hint(outage_seconds)
    sent, ejected_after, ejected_at = 0, 0, -1.0
    number = 0
    while (now := first + number / rate) < outage_seconds:
        if breaker.reopens_in(now) <= 0:
            sent += 1
            settle(breaker, down(number), now, rng)
            if ejected_at < 0 and breaker.ejections:
                ejected_after, ejected_at = sent, now
        number += 1
    if ejected_at < 0:
        return None
    while breaker.reopens_in(now := first + number / rate) > 0:
        number += 1
    return Times(ejected_after, ejected_at - first, sent, now - outage_seconds)


def settle(breaker: Breaker, verdict: Verdict, now: float, rng: Random) -> None:
    """One call that is answered at once."""
    permit = breaker.permit(now)
    assert permit is not None, "a target that is ejected is not called"
    breaker.settle(permit, verdict, now, rng)


# --- through a real sidecar -------------------------------------------------------------------------------


def objects(standin: StandIn, breaker: dict[str, Any]) -> list[dict[str, Any]]:
    """One provider, one target, no retries."""
    key = {"name": "model-keys", "key": "openai"}
    target = {"name": "medium", "provider": "openai", "model": "medium-1"}
    specs = {
        "ModelProvider": {
            "dialect": "OpenAI",
            "baseURL": standin.openai_url,
            "plaintext": "Allow",
            "auth": {"type": "APIKey", "apiKey": {"secretKeyRef": key}},
        },
        "RoutingPolicy": {
            "providers": [{"name": "openai", "ref": {"name": "openai"}}],
            "match": {"models": [{"pattern": "auto"}]},
            "tiers": [{"name": "standard", "targets": [target]}],
            "defaultTier": "standard",
        },
        "RetryBudget": {"retry": {"attempts": 0}, "circuitBreaker": {"onAllEjected": "Deny", **breaker}},
    }
    secret = {"kind": "Secret", "metadata": {"name": "model-keys", "namespace": POD.namespace}}
    made: list[dict[str, Any]] = [secret | {"apiVersion": "v1", "stringData": {"openai": "k"}}]
    for kind, spec in specs.items():
        metadata = {"name": "openai", "namespace": POD.namespace, "uid": kind, "generation": 1}
        made.append({"apiVersion": "spendmesh.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    return made


async def measure(rate: float, outage_seconds: float, breaker: dict[str, Any] | None = None) -> Times:
    """One outage: the provider answers 503 for so long. In real time; `breaker`: fields of `circuitBreaker`."""
    async with StandIn() as standin, aiohttp.ClientSession() as http:
        control = LocalControl(objects(standin, breaker or {}), [POD], None, SystemClock(), Random(1))
        await control.start()
        keys, anywhere = StaticKeys({"openai": DEFAULT_KEYS[0].secret}), Address("127.0.0.1", 0)
        settings = Settings(control_url=control.url, listen=anywhere, admin=anywhere)
        sidecar = await Sidecar.start(settings, keys=keys, token=POD.token, rng=Random(7))
        try:
            return await outage(
                standin, http, f"http://{sidecar.address}/openai/v1/chat/completions", rate, outage_seconds
            )
        finally:
            await sidecar.stop()
            await control.stop()


async def outage(standin: StandIn, http: aiohttp.ClientSession, url: str, rate: float, seconds: float) -> Times:
    """Call at `rate` in the outage, which lasts at least until the target is ejected, and after it."""

    async def call() -> int:
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello [[out=1]]"}], "max_tokens": 1}
        async with http.post(url, json=body) as answer:
            return answer.status

    def reached() -> int:
        return len(standin.requests())

    for _ in range(3):
        if (status := await call()) != 200:
            raise RuntimeError(f"before the outage a call was answered {status}")
    standin.faults(FaultRule("status", status=503))
    before, began, ejected = reached(), time.monotonic(), (0, 0.0)
    while not ejected[0] or time.monotonic() - began < seconds:
        arrived = reached()
        await call()
        if not ejected[0] and reached() == arrived:
            ejected = arrived - before, time.monotonic() - began - 1 / rate
        await asyncio.sleep(1 / rate)
    in_outage = reached() - before
    standin.faults()
    recovered = time.monotonic()
    while await call() != 200:
        await asyncio.sleep(1 / rate)
    return Times(ejected[0], max(0.0, ejected[1]), in_outage, time.monotonic() - recovered)


# --- the tables -------------------------------------------------------------------------------------------


def line(name: str, rate: float, seconds: float, found: Sequence[Times | None]) -> str:
    """Medians of many outages, or what one was."""
    times = [one for one in found if one is not None]
    if len(times) < len(found):
        return f"| {name} | {rate:g} | {seconds:g} | never | – | – | – |"

    def middle(value: Callable[[Times], float]) -> float:
        return statistics.median(value(one) for one in times)

    return (
        f"| {name} | {rate:g} | {seconds:g} | {middle(lambda one: one.calls_until_ejected):g} | "
        f"{middle(lambda one: one.seconds_until_ejected):.1f} | {middle(lambda one: one.calls_in_outage):g} | "
        f"{middle(lambda one: one.seconds_until_restored):.1f} |"
    )


COLUMNS = (
    "during the outage",
    "calls a second",
    "outage, s",
    "calls until ejected",
    "after s",
    "calls in all",
    "restored after s",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def simulated(seeds: int = SEEDS) -> list[str]:
    """The table of the decisions alone."""
    cases: list[tuple[str, Callable[[int], Verdict], dict[str, bool]]] = [
        ("all calls fail", all_fail, {}),
        ("all calls fail, another sidecar has told", all_fail, {"hint": True}),
        ("all calls fail, first calls for a minute", all_fail, {"well": False}),
        ("the same, another sidecar has told", all_fail, {"well": False, "hint": True}),
        ("every second call fails", every_second, {}),
        ("all calls are throttled", throttled, {}),
    ]
    lines = [
        line(name, rate, 60.0, [simulate(down, rate, 60.0, seed, **how) for seed in range(seeds)])
        for name, down, how in cases
        for rate in (0.2, 1.0, 10.0)
    ]
    for length in (10.0, 300.0, 1800.0):
        found = [simulate(all_fail, 1.0, length, seed) for seed in range(seeds)]
        lines.append(line("all calls fail", 1.0, length, found))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--simulated", action="store_true", help="leave out the real sidecar, which takes a minute")
    options = parser.parse_args(arguments)
    print("\n".join([HEAD, *simulated()]))
    if not options.simulated:
        real = [(10.0, 10.0), (10.0, 30.0)]
        rows = [line("503, real sidecar", *how, [asyncio.run(measure(*how))]) for how in real]
        print("\n".join(["", HEAD, *rows]))


if __name__ == "__main__":
    main()
