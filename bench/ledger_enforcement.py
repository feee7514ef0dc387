"""
What enforcement costs a call: real sidecars that differ only in their ModelBudget, in turn within one run.

CPU time says the throughput of a core that has nothing else to do; it is what a noisy machine leaves comparable.
Latencies: one call after the other, to each sidecar in turn, so that all meet the same noise.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import uvloop

import contestants
import load
from findings import Findings, Goal, at, median_and_range, table
from sink import sink

CONNECTIONS = 16
GOAL_THROUGHPUT = 0.95
GOAL_P99_MS = 0.2

LIMITS = (
    '{name: monthly, currency: USD, amount: "1000000", window: {type: Calendar, period: Month}}',
    '{name: daily-tokens, unit: TotalTokens, amount: "1000000000000", window: {type: Calendar, period: Day}}',
    '{name: hourly-calls, unit: Requests, amount: "1000000000", window: {type: Calendar, period: Hour}}',
)
NONE, ONE, SEVERAL = "no budget", "one limit", f"{len(LIMITS)} limits"
CASES = (ONE, SEVERAL)
_BUDGETS = {NONE: (), ONE: LIMITS[:1], SEVERAL: LIMITS}


class Series:
    """All rounds of one sidecar."""

    def __init__(self) -> None:
        self.cpu_us: list[float] = []
        self.rate: list[float] = []
        self.p50_ms: list[float] = []
        self.p99_ms: list[float] = []


def enforcement(folder: Path, cases: tuple[str, ...], rounds: int, calls: int) -> Findings:
    """`calls` for CPU time and again as many for latency, in each round, of each sidecar."""
    with ExitStack() as stack:
        collector = stack.enter_context(sink())
        port = stack.enter_context(contestants.upstream())
        field = []
        for name in (NONE, *cases):
            own = folder / name.replace(" ", "-")
            own.mkdir()
            started = contestants.spendmesh(port, own, collector.url, name, limits=_BUDGETS[name], keeps_log=True)
            field.append(stack.enter_context(started))
        for one in field:
            contestants.warm(one, calls)
        series = {one.name: Series() for one in field}
        for number in range(rounds):
            for one in field if number % 2 else reversed(field):
                _throughput(one, series[one.name], calls)
            _latencies(field, series, calls)
    return _findings(series, rounds, calls)


def _throughput(one: contestants.Contestant, series: Series, calls: int) -> None:
    request = load.request_bytes(one.path, stream=False)
    before = one.cpu_seconds()
    seconds = uvloop.run(load.closed_loop(one.port, request, CONNECTIONS, calls))
    series.cpu_us.append((one.cpu_seconds() - before) / calls * 1e6)
    series.rate.append(calls / seconds)


def _latencies(field: list[contestants.Contestant], series: dict[str, Series], calls: int) -> None:
    for name, took in uvloop.run(_in_turn(field, calls)).items():
        took.sort()
        series[name].p50_ms.append(at(took, 0.5) * 1e3)
        series[name].p99_ms.append(at(took, 0.99) * 1e3)


async def _in_turn(field: list[contestants.Contestant], calls: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {one.name: [] for one in field}
    async with AsyncExitStack() as stack:
        opened = []
        for one in field:
            connection = await stack.enter_async_context(load.connect(one.port))
            opened.append((one, load.request_bytes(one.path, stream=False), connection))
        for number in range(calls):
            for one, request, connection in opened if number % 2 else reversed(opened):
                began = time.perf_counter()
                await connection.call(request)
                took[one.name].append(time.perf_counter() - began)
    return took


def _findings(series: dict[str, Series], rounds: int, calls: int) -> Findings:
    without, median = series[NONE], statistics.median
    rows, goals = [], []
    for name, mine in series.items():
        kept = [off / on for on, off in zip(mine.cpu_us, without.cpu_us, strict=True)]
        kept_median, low, high = median_and_range(kept)
        wall = median(on / off for on, off in zip(mine.rate, without.rate, strict=True))
        more_us = median(on - off for on, off in zip(mine.cpu_us, without.cpu_us, strict=True))
        more_p50 = median(on - off for on, off in zip(mine.p50_ms, without.p50_ms, strict=True))
        more_p99 = median(on - off for on, off in zip(mine.p99_ms, without.p99_ms, strict=True))
        difference = ("-",) * 5
        if name != NONE:
            ratio = f"{kept_median:.3f} ({low:.3f} to {high:.3f})"
            difference = (f"{more_us:.1f}", ratio, f"{wall:.3f}", f"{more_p50:.3f}", f"{more_p99:.3f}")
        rows.append((name, f"{median(mine.cpu_us):.0f}", *difference))
        if name == SEVERAL:
            goals = [
                Goal(f"{name}: throughput ≥ {GOAL_THROUGHPUT} of that without", ratio, kept_median >= GOAL_THROUGHPUT),
                Goal(f"{name}: added p99 ≤ {GOAL_P99_MS} ms", f"{more_p99:.3f}", more_p99 <= GOAL_P99_MS),
            ]
    head = ("", "CPU µs/request", "more µs", "throughput of a full core (95 %)", "by the clock")
    text = table((*head, "added p50 ms", "added p99 ms"), rows)
    return Findings("enforcement", f"{text}\n\n{rounds} rounds of {calls} calls; medians of pairs.", tuple(goals))
