"""
What a coordinator costs: how long a question for rights takes, how many sidecars one core serves, what is written.

A real coordinator process with its control server, on the proxy's core; stores and sidecars share the other one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import aiohttp
import psutil

import contestants
from findings import Findings, Goal, at, table
from ledger_load import Reporter, counts, steady
from ledger_places import ROOT, Kind, Places

REPORT_SECONDS = 5.0
GOAL_SIDECARS = 2000
GOAL_GROWTH = 1.1
GOAL_OBJECTS = 5
"""Objects that one commit may write, and so one installation a second: a small API server takes 200 writes a second of
everybody."""
LOAD = 0.9
"""With less of the promised load nothing is said about growth."""


@contextmanager
def server(places: Places, kind: Kind, pods: int, commit_seconds: float) -> Iterator[tuple[str, psutil.Process]]:
    """A coordinator process with empty books; its URL and itself."""
    place, domain = places.new(kind)
    arguments = [sys.executable, str(ROOT / "bench" / "ledger_server.py"), "--pods", str(pods), "--store", kind]
    arguments += ["--at", place.where, "--domain", domain, "--commit-seconds", str(commit_seconds)]
    with contestants.spawned(arguments, contestants.PROXY_CORE, log=places.folder / "server.log") as process:
        yield str(contestants.first_line(process)["url"]), psutil.Process(process.pid)


def session() -> aiohttp.ClientSession:
    """Enough connections, kept alive as sidecars keep theirs."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60))


# --- round trips --------------------------------------------------------------------------------------------


def round_trips(places: Places, idle: tuple[Kind, ...], busy: tuple[Kind, ...], seconds: float) -> Findings:
    """A question for rights over HTTP until it is durable and answered."""
    rows = []
    cases: list[tuple[str, Kind, float, int]] = [(f"{kind}, idle: written at once", kind, 0.0, 1) for kind in idle]
    cases += [(f"{kind}, busy: at most one commit a second", kind, 1.0, 50) for kind in busy]
    for name, kind, commit_seconds, callers in cases:
        with server(places, kind, callers, commit_seconds) as (url, _):
            took = sorted(asyncio.run(_acquire(url, callers, seconds)))
        rows.append((name, f"{at(took, 0.5) * 1e3:.2f}", f"{at(took, 0.99) * 1e3:.2f}", len(took)))
    return Findings("trips", table(("lease round trip", "p50 ms", "p99 ms", "questions"), rows))


async def _acquire(url: str, callers: int, seconds: float) -> list[float]:
    took: list[float] = []
    async with session() as http:

        async def caller(number: int) -> None:
            reporter = Reporter(http, url, number)
            await reporter.acquire()  # connects
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                took.append(await reporter.acquire())

        await asyncio.gather(*(caller(number) for number in range(callers)))
    return took


# --- capacity and growth ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A coordinator under the reports of so many sidecars."""

    kind: Kind
    sidecars: int
    load: float
    """Share of the promised reports that were sent in time: below one the machine had no room for the load."""
    busy: float
    """Share of one core, at the promised rate of reports."""
    commits: float
    """A second."""
    rows: float
    """Objects or rows written, a commit."""
    kib: float
    """A commit."""
    rss_mb: float


def capacity(
    places: Places, kinds: tuple[Kind, ...], sidecars: tuple[int, ...], seconds: float, commit_seconds: float = 1.0
) -> Findings:
    """CPU of a coordinator and what it writes, as sidecars become more."""
    points = [_measure(places, kind, number, seconds, commit_seconds) for kind in kinds for number in sidecars]
    rows = [
        (
            one.kind,
            one.sidecars,
            f"{one.load:.0%}",
            f"{one.busy:.1%}",
            f"{one.sidecars / one.busy:.0f}",
            f"{one.commits:.2f}",
            f"{one.rows:.2f}",
            f"{one.kib:.0f}",
            f"{one.kib / one.sidecars:.2f}",
            f"{one.rss_mb:.0f}",
        )
        for one in points
    ]
    head = ("books in", "sidecars", "load in time", "CPU share of one core", "sidecars per core", "commits/s")
    text = table((*head, "objects or rows a commit", "KiB a commit", "… and sidecar", "RSS MB"), rows)
    return Findings("coordinator", text, tuple(goal for kind in kinds for goal in _goals(points, kind)))


def _goals(points: list[Point], kind: Kind) -> list[Goal]:
    mine = [point for point in points if point.kind == kind]
    few, many = mine[0], mine[-1]
    served, growth = many.sidecars / many.busy, many.commits / few.commits if few.commits else float("inf")
    busy = f"{kind}, {many.sidecars} sidecars"
    goals = [
        Goal(f"{busy}: ≥ {GOAL_SIDECARS} sidecars a core", f"{served:.0f}", served >= GOAL_SIDECARS),
        Goal(
            f"{kind}: commits/s of {many.sidecars} ≤ {GOAL_GROWTH} × those of {few.sidecars}",
            f"{growth:.2f}" if many.load >= LOAD else f"{growth:.2f}, but only {many.load:.0%} of the load was in time",
            growth <= GOAL_GROWTH and many.load >= LOAD,
        ),
    ]
    if kind == "BudgetLedger":
        goals.append(Goal(f"{busy}: ≤ {GOAL_OBJECTS} objects a commit", f"{many.rows:.1f}", many.rows <= GOAL_OBJECTS))
    return goals


def _measure(places: Places, kind: Kind, sidecars: int, seconds: float, commit_seconds: float) -> Point:
    with server(places, kind, sidecars, commit_seconds) as (url, process):
        return asyncio.run(_reports(url, process, kind, sidecars, seconds))


async def _reports(url: str, process: psutil.Process, kind: Kind, sidecars: int, seconds: float) -> Point:
    async with session() as http:
        # Sidecars that report one after the other are not beside each other in the books.
        reporters = [Reporter(http, url, number) for number in Random(1).sample(range(sidecars), sidecars)]
        for first in range(0, sidecars, 500):
            await asyncio.gather(*(reporter.acquire() for reporter in reporters[first : first + 500]))
        every = min(REPORT_SECONDS, seconds)
        await steady(reporters, every, every)
        await counts(http, url)
        began, cpu = asyncio.get_running_loop().time(), _cpu(process)
        turns = await steady(reporters, seconds, every)
        passed, used = asyncio.get_running_loop().time() - began, _cpu(process) - cpu
        rss = process.memory_info().rss / 2**20
        found = await counts(http, url)
    commits = max(1, found["commits"])
    return Point(
        kind=kind,
        sidecars=sidecars,
        # At the promised rate, also where the load could not keep up with it.
        busy=max(used, 0.01) / turns * sidecars / REPORT_SECONDS,
        load=min(1.0, seconds / passed),
        commits=found["commits"] / passed,
        rows=found["rows"] / commits,
        kib=found["bytes"] / commits / 1024,
        rss_mb=rss,
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
