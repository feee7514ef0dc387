"""
`make bench`: one run, one table, ratios. Figures are comparable inside one run only: machines are noisy.

CPU is the proxy process's own time; it is pinned to core 0, provider and load share core 1. Rounds go through all
contestants in turn and medians are quoted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

import contestants
import load
from sink import sink

CONNECTIONS = 16
OPEN_RATE = 200.0
STREAM_EVENTS = 100


@dataclass(frozen=True)
class Sizes:
    """Of one round of one contestant."""

    closed_calls: int = 3000
    open_calls: int = 1000
    streams: int = 50


def main() -> int:
    """Print the table, and which goals it meets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.sched_setaffinity(0, {contestants.OTHER_CORE})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spendmesh-bench-")))
        collector = stack.enter_context(sink())
        port = stack.enter_context(contestants.upstream())
        field = [
            contestants.Contestant("direct", port, "/v1/chat/completions"),
            stack.enter_context(contestants.envoy(port, folder)),
            stack.enter_context(contestants.plain_proxy(port)),
            stack.enter_context(contestants.spendmesh(port, folder, collector.url)),
        ]
        figures = {one.name: Figures() for one in field}
        for number in range(options.rounds):
            for one in field:
                measure(one, figures[one.name])
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
        enforced = [apply_to_enforced(folder, port, f"{1000 + n}") for n in range(options.rounds)]
        report(field, figures, enforced, options.rounds, collector.spans)
        goals(field[-1], figures, enforced)
    return 0


class Figures:
    """All rounds of one contestant."""

    def __init__(self) -> None:
        self.cpu_us: list[float] = []
        self.p50_ms: list[float] = []
        self.p99_ms: list[float] = []
        self.event_us: list[float] = []
        self.rss_mb = 0.0


def measure(one: contestants.Contestant, figures: Figures, sizes: Sizes = Sizes()) -> None:
    """One round: closed loop for CPU, open loop for latency, streams for CPU per event."""
    request, stream = load.request_bytes(one.path, stream=False), load.request_bytes(one.path, stream=True)
    uvloop.run(load.closed_loop(one.port, request, CONNECTIONS, 200))
    before = one.cpu_seconds()
    uvloop.run(load.closed_loop(one.port, request, CONNECTIONS, sizes.closed_calls))
    figures.cpu_us.append((one.cpu_seconds() - before) / sizes.closed_calls * 1e6)
    latencies = uvloop.run(load.open_loop(one.port, request, OPEN_RATE, sizes.open_calls))
    figures.p50_ms.append(latencies[len(latencies) // 2] * 1e3)
    figures.p99_ms.append(latencies[int(len(latencies) * 0.99)] * 1e3)
    before = one.cpu_seconds()
    uvloop.run(load.streams(one.port, stream, sizes.streams, 1))
    figures.event_us.append((one.cpu_seconds() - before) / (sizes.streams * STREAM_EVENTS) * 1e6)
    figures.rss_mb = max(figures.rss_mb, one.rss_mb())


def apply_to_enforced(folder: Path, port: int, amount: str) -> float:
    """Seconds from writing a changed policy until the sidecar obeys it."""
    before = contestants.sidecar_digest(folder)
    began = time.perf_counter()
    contestants.write_policy(folder, port, [contestants.MONTHLY.format(amount=amount)])
    contestants.wait_for(lambda: contestants.sidecar_digest(folder) != before)
    return time.perf_counter() - began


def report(
    field: list[contestants.Contestant], figures: dict[str, Figures], enforced: list[float], rounds: int, spans: int
) -> None:
    """The table as Markdown."""
    median = statistics.median
    direct, envoy = figures["direct"], figures["envoy"]
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, {rounds} rounds, medians.\n"
    )
    print(
        "| | CPU µs/request | × Envoy | added p50 ms | added p99 ms | CPU µs/stream event | RSS MB loaded | ready s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for one in field:
        f = figures[one.name]
        cells = (
            f"{median(f.cpu_us):.0f}" if one.pid else "-",
            f"{median(a / b for a, b in zip(f.cpu_us, envoy.cpu_us, strict=True)):.1f}" if one.pid else "-",
            f"{median(f.p50_ms) - median(direct.p50_ms):.2f}" if one.pid else f"({median(f.p50_ms):.2f})",
            f"{median(f.p99_ms) - median(direct.p99_ms):.2f}" if one.pid else f"({median(f.p99_ms):.2f})",
            f"{median(f.event_us):.0f}" if one.pid else "-",
            f"{f.rss_mb:.0f}" if one.pid else "-",
            f"{one.ready_seconds:.2f}" if one.ready_seconds else "-",
        )
        print(f"| {one.name} | {' | '.join(cells)} |")
    print(f"\nApply → enforced: median {median(enforced):.2f} s, worst {max(enforced):.2f} s. Spans exported: {spans}.")


def goals(ours: contestants.Contestant, figures: dict[str, Figures], enforced: list[float]) -> None:
    """What docs/performance.md promises, and whether this run keeps it."""
    f, envoy = figures[ours.name], figures["envoy"]
    median = statistics.median
    print("\n| goal | this run | |\n|---|---|---|")
    for goal, reached, limit in (
        ("CPU ≤ 5 × Envoy", median(a / b for a, b in zip(f.cpu_us, envoy.cpu_us, strict=True)), 5.0),
        (
            "CPU ≤ 3 × Envoy with the pooled upstream",
            median(a / b for a, b in zip(f.cpu_us, envoy.cpu_us, strict=True)),
            3.0,
        ),
        ("CPU per stream event ≤ 45 µs", median(f.event_us), 45.0),
        ("RSS loaded ≤ 55 MB", f.rss_mb, 55.0),
        ("start to ready ≤ 1 s", ours.ready_seconds or 0.0, 1.0),
        ("apply → enforced ≤ 1 s", median(enforced), 1.0),
    ):
        print(f"| {goal} | {reached:.1f} | {'met' if reached <= limit else 'missed'} |")


if __name__ == "__main__":
    sys.exit(main())
