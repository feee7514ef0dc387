"""
`make bench-ledger`: what the ledger costs, and what it leaves unspent. Prints tables; `utilisation` also writes
`docs/utilisation.csv` and `.svg`.

Figures are comparable inside one run only: machines are noisy. The coordinator is pinned to core 0, the load to core 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import aiohttp
import psutil

import contestants
import load
from ledger_load import Reporter, counts, steady
from sink import sink
from spendmesh_operator.ledger.accounts import Holder, LimitInForce
from spendmesh_operator.ledger.books import Books
from spendmesh_sidecar.core.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger import Ledger
from spendmesh_sidecar.core.rights import AccountRef
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.protocol import AcquireRequest
from utilisation import write as write_utilisation

REPORT_SECONDS = 5.0
SIDECARS = (100, 500, 1000, 2000)
GOAL = 2000
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def server(pods: int, folder: Path, commit_seconds: float = 1.0) -> Iterator[tuple[str, psutil.Process]]:
    """A coordinator process; its URL and itself."""
    arguments = [sys.executable, str(ROOT / "bench" / "ledger_server.py"), "--pods", str(pods)]
    arguments += ["--state", str(folder / f"{pods}-{commit_seconds}.sqlite3"), "--commit-seconds", str(commit_seconds)]
    with contestants.spawned(arguments, contestants.PROXY_CORE, log=folder / "server.log") as process:
        url = str(contestants.first_line(process)["url"])
        yield url, psutil.Process(process.pid)


def session() -> aiohttp.ClientSession:
    """Enough connections, kept alive as sidecars keep theirs."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60))


# --- what it costs ------------------------------------------------------------------------------------------


def round_trips(folder: Path, seconds: float) -> None:
    """An acquire over HTTP until it is durable."""
    print("| lease round trip | p50 ms | p99 ms | calls |\n|---|---|---|---|")
    for name, commit_seconds, pause, callers in (
        ("`spendmesh run`: each change is written at once", 0.0, 0.0, 1),
        ("idle shard: written at once", 1.0, 1.1, 1),
        ("busy shard: at most one write a second", 1.0, 0.0, 50),
    ):
        with server(callers, folder, commit_seconds) as (url, _):
            took = sorted(asyncio.run(_acquire(url, callers, seconds, pause)))
        print(f"| {name} | {_at(took, 0.5)} | {_at(took, 0.99)} | {len(took)} |")


async def _acquire(url: str, callers: int, seconds: float, pause: float) -> list[float]:
    took: list[float] = []
    async with session() as http:

        async def caller(number: int) -> None:
            reporter = Reporter(http, url, number)
            await asyncio.sleep(pause)  # the start of an epoch is a write too
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                took.append(await reporter.acquire())
                await asyncio.sleep(pause)

        await asyncio.gather(*(caller(number) for number in range(callers)))
    return took


def _at(took: list[float], share: float) -> str:
    return f"{took[min(len(took) - 1, int(len(took) * share))] * 1e3:.2f}"


def capacity(folder: Path, seconds: float) -> None:
    """CPU of a coordinator under reports of so many sidecars, and what it writes."""
    print("\n| sidecars | CPU share of one core | sidecars per core | writes/s | KiB per write | RSS MB |")
    print("|---|---|---|---|---|---|")
    for sidecars in SIDECARS:
        with server(sidecars, folder) as (url, process):
            busy, written, size = asyncio.run(_reports(url, process, sidecars, seconds))
            rss = process.memory_info().rss / 2**20
        print(f"| {sidecars} | {busy:.1%} | {sidecars / busy:.0f} | {written:.2f} | {size / 1024:.0f} | {rss:.0f} |")
    reached = sidecars / busy
    print(
        f"\nGoal: {GOAL} sidecars per core at {REPORT_SECONDS:g} s reports: {'met' if reached >= GOAL else 'missed'}."
    )


async def _reports(url: str, process: psutil.Process, sidecars: int, seconds: float) -> tuple[float, float, float]:
    async with session() as http:
        reporters = [Reporter(http, url, number) for number in range(sidecars)]
        for first in range(0, sidecars, 200):
            await asyncio.gather(*(reporter.acquire() for reporter in reporters[first : first + 200]))
        await steady(reporters, REPORT_SECONDS, REPORT_SECONDS)
        before, began, cpu = await counts(http, url), asyncio.get_running_loop().time(), _cpu(process)
        await steady(reporters, seconds, REPORT_SECONDS)
        passed, used = asyncio.get_running_loop().time() - began, _cpu(process) - cpu
        after = await counts(http, url)
        return used / passed, (after["writes"] - before["writes"]) / passed, after["bytes"]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# --- memory -------------------------------------------------------------------------------------------------


def memory() -> None:
    """Python memory of what one sidecar adds to a coordinator, and of the ledger inside a sidecar."""
    window = WindowSpec(period="Month")
    limits = tuple(LimitSpec(name=f"l{n}", currency="USD", amount=10**15, window=window) for n in range(3))
    budget = BudgetSpec(name="bench/bench", limits=limits)
    in_force = {AccountRef(budget=budget.name, limit=limit.name): LimitInForce(limit) for limit in limits}
    books, ledgers, count = Books("bench"), [], 1000

    def fill(number: int) -> None:
        ledger = Ledger(f"n{number}", (budget,), 0.0)
        request = AcquireRequest(id="r", nonce=ledger.nonce, wants=ledger.wants(0.0))
        holder = Holder(f"uid-{number}", f"bench/pod-{number}", ledger.nonce, f"Deployment bench/w{number // 20}")
        for lease in books.acquire(holder, request, in_force.get, 1_790_000_000_000).leases:
            ledger.merge(lease, 0.0)
        ledgers.append(ledger)

    both = _bytes(lambda: [fill(number) for number in range(count)]) / count
    kept = list(ledgers)
    ledgers.clear()
    own = -_bytes(kept.clear) / count
    calls = Ledger("one", (budget,), 0.0)
    charge = (Charge(account=AccountRef(budget=budget.name, limit="l0"), unit="Cost", amount=0, observed=True),)
    held = _bytes(lambda: [calls.reserve(charge, f"r{number}", 0.0) for number in range(count)]) / count
    print("\n| memory, three limits | KiB |\n|---|---|")
    print(f"| one sidecar in the coordinator's books | {(both - own) / 1024:.1f} |")
    print(f"| the ledger inside a sidecar | {own / 1024:.1f} |")
    print(f"| one reservation under way | {held / 1024:.2f} |")
    assert calls.open_reservations == count
    calls.settle("r0", Quantities(), 0.0)


def _bytes(work: Callable[[], object]) -> float:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    after = tracemalloc.get_traced_memory()[0]
    return after - before


# --- enforcement --------------------------------------------------------------------------------------------


def enforcement(folder: Path, rounds: int) -> None:
    """The same sidecar with a budget and without any, in turn."""
    with sink() as collector, contestants.upstream() as port:
        (folder / "on").mkdir()
        (folder / "off").mkdir()
        with (
            contestants.spendmesh(port, folder / "on", collector.url, "budget enforced") as on,
            contestants.spendmesh(port, folder / "off", collector.url, "no budget", amount="") as off,
        ):
            rate: dict[str, list[float]] = {on.name: [], off.name: []}
            late: dict[str, list[float]] = {on.name: [], off.name: []}
            for number in range(rounds):
                for one in (on, off) if number % 2 else (off, on):
                    request = load.request_bytes(one.path, stream=False)
                    asyncio.run(load.closed_loop(one.port, request, 16, 200))
                    before = one.cpu_seconds()
                    asyncio.run(load.closed_loop(one.port, request, 16, 2000))
                    rate[one.name].append(2000 / (one.cpu_seconds() - before))
                for one, latencies in zip((on, off), asyncio.run(_side_by_side(on, off)), strict=True):
                    late[one.name] += latencies
    loss = 1 - statistics.median(a / b for a, b in zip(rate[on.name], rate[off.name], strict=True))
    print("\n| | requests per CPU second | p50 ms | p99 ms |\n|---|---|---|---|")
    for name in (on.name, off.name):
        took = sorted(late[name])
        print(f"| {name} | {statistics.median(rate[name]):.0f} | {_at(took, 0.5)} | {_at(took, 0.99)} |")
    print(f"\nThroughput lost to enforcement: {loss:.1%} (goal 5 %), paired median of {rounds} rounds. Latencies: both")
    print("at once, 50 calls a second each, so that they meet the same noise (goal: p99 0.2 ms apart).")


async def _side_by_side(on: contestants.Contestant, off: contestants.Contestant) -> list[list[float]]:
    async def calls(one: contestants.Contestant, after: float) -> list[float]:
        await asyncio.sleep(after)
        return await load.open_loop(one.port, load.request_bytes(one.path, stream=False), 50.0, 250)

    return await asyncio.gather(calls(on, 0.0), calls(off, 0.01))


SECTIONS = ("trips", "capacity", "memory", "enforcement", "utilisation")


def main() -> int:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of enforcement on against off (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: choose of {', '.join(SECTIONS)}")
    wanted = options.sections or SECTIONS
    os.sched_setaffinity(0, {contestants.OTHER_CORE})
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}.\n")
    with tempfile.TemporaryDirectory(prefix="spendmesh-bench-") as name:
        folder = Path(name)
        for section, work in (
            ("trips", lambda: round_trips(folder, options.seconds)),
            ("capacity", lambda: capacity(folder, options.seconds)),
            ("memory", memory),
            ("enforcement", lambda: enforcement(folder, options.rounds)),
            ("utilisation", lambda: write_utilisation(ROOT / "docs", Random(1))),
        ):
            if section in wanted:
                work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
