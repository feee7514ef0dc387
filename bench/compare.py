"""
Is a change faster? Two or more source trees of the sidecar, in turns within one run, so that noise meets all alike.

    .venv/bin/python bench/compare.py before=../before/sidecar after=sidecar

Copy the tree before you change it. The ratio is the median over rounds of each tree's CPU time to the first one's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

import contestants
import load
from sink import sink

CALLS, CONNECTIONS, STREAMS, STREAM_EVENTS = 1500, 16, 30, 100


def main() -> None:
    """Print CPU per call and per stream event for each tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="NAME=FOLDER", help="folders that hold a spendmesh_sidecar")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--envoy", action="store_true", help="compare with Envoy, too")
    options = parser.parse_args()
    os.sched_setaffinity(0, {contestants.OTHER_CORE})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spendmesh-compare-")))
        collector = stack.enter_context(sink())
        port = stack.enter_context(contestants.upstream())
        field = [stack.enter_context(contestants.envoy(port, scratch))] if options.envoy else []
        for tree in options.trees:
            name, _, source = tree.partition("=")
            folder = scratch / name
            folder.mkdir()
            source = str(Path(source).resolve())
            field.append(stack.enter_context(contestants.spendmesh(port, folder, collector.url, name, source)))
        measure(field, options.rounds, CALLS, STREAMS)


def measure(field: list[contestants.Contestant], rounds: int, calls: int, streams: int) -> None:
    """Print CPU per call and per stream event of each."""
    call_us: dict[str, list[float]] = {one.name: [] for one in field}
    event_us: dict[str, list[float]] = {one.name: [] for one in field}
    for one in field:
        uvloop.run(load.closed_loop(one.port, load.request_bytes(one.path, stream=False), CONNECTIONS, calls))
    for number in range(rounds):
        for one in field if number % 2 else reversed(field):
            before = one.cpu_seconds()
            request = load.request_bytes(one.path, stream=False)
            uvloop.run(load.closed_loop(one.port, request, CONNECTIONS, calls))
            call_us[one.name].append((one.cpu_seconds() - before) / calls * 1e6)
            before = one.cpu_seconds()
            uvloop.run(load.streams(one.port, load.request_bytes(one.path, stream=True), streams, 1))
            event_us[one.name].append((one.cpu_seconds() - before) / (streams * STREAM_EVENTS) * 1e6)
    first = field[0].name
    print("| | CPU µs/request, median (best) | ratio | CPU µs/stream event | ratio | RSS MB |")
    print("|---|---|---|---|---|---|")
    for one in field:
        cells = [one.name]
        for found in (call_us, event_us):
            mine = found[one.name]
            ratio = statistics.median(a / b for a, b in zip(mine, found[first], strict=True))
            cells += [f"{statistics.median(mine):.0f} ({min(mine):.0f})", f"{ratio:.2f}"]
        print(f"| {' | '.join(cells)} | {one.rss_mb():.0f} |")


if __name__ == "__main__":
    main()
