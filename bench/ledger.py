"""
`make bench-ledger`: what the ledger costs and what it leaves unspent. Prints tables, and then which goals are met.

`--write` puts the tables into docs/ and the plot beside them. Figures are comparable inside one run only:
machines are noisy. What is measured has a core for itself, as far as the machine is free; all else shares another one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import uvloop

import contestants
import utilisation
from findings import Findings, put, verdict
from ledger_coordinator import capacity, round_trips
from ledger_enforcement import CASES, enforcement
from ledger_histories import histories
from ledger_log import log_costs
from ledger_memory import memory
from ledger_places import CLUSTER_KINDS, KINDS, ROOT, Kind, Places, started

DOCS: Final = ROOT / "docs"


def document_of(section: str) -> str:
    """The page of docs/ that quotes a section."""
    return "performance.md" if section == "log" else "budgets.md"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float
    """Of each measurement on a coordinator."""
    idle: tuple[Kind, ...]
    busy: tuple[Kind, ...]
    """Stores whose round trips are measured."""
    growing: tuple[Kind, ...]
    """Stores that are written to by more and more sidecars."""
    sidecars: tuple[int, ...]
    commit_seconds: float
    cases: tuple[str, ...]
    """Budgets that are compared with none."""
    rounds: int
    """Of enforcement."""
    calls: int
    """A round."""
    accounts: tuple[int, ...]
    ledgers: int
    """Over which memory is averaged."""
    attempts: int
    waits: int
    """Of the log without waiting for the disk, and with."""
    histories: int
    fleets: tuple[int, ...]
    ratios: tuple[int, ...]


FULL: Final = Sizes(
    seconds=8.0,
    idle=KINDS,
    busy=CLUSTER_KINDS,
    growing=CLUSTER_KINDS,
    sidecars=(10, 100, 500, 1000, 2000),
    commit_seconds=1.0,
    cases=CASES,
    rounds=40,
    calls=250,
    accounts=(1, 3, 10, 50),
    ledgers=100,
    attempts=30_000,
    waits=50,
    histories=150,
    fleets=utilisation.SIDECARS,
    ratios=utilisation.RATIOS,
)
QUICK: Final = Sizes(
    seconds=3.0,
    idle=KINDS,
    busy=CLUSTER_KINDS,
    growing=CLUSTER_KINDS,
    sidecars=(10, 2000),
    commit_seconds=1.0,
    cases=CASES,
    rounds=15,
    calls=150,
    accounts=(1, 3, 10),
    ledgers=100,
    attempts=3_000,
    waits=10,
    histories=50,
    fleets=(1, 10, 100),
    ratios=utilisation.RATIOS,
)


class Bench:
    """All sections over one scratch folder; the servers of the books start when they are first needed."""

    def __init__(self, sizes: Sizes, folder: Path, places: Callable[[], Places]) -> None:
        self._sizes = sizes
        self._folder = folder
        self._places = places

    def trips(self) -> Findings:
        sizes = self._sizes
        return round_trips(self._places(), sizes.idle, sizes.busy, sizes.seconds / 2)

    def coordinator(self) -> Findings:
        sizes = self._sizes
        return capacity(self._places(), sizes.growing, sizes.sidecars, sizes.seconds, sizes.commit_seconds)

    def memory(self) -> Findings:
        return memory(self._sizes.accounts, self._sizes.ledgers)

    def log(self) -> Findings:
        return uvloop.run(log_costs(self._folder, self._sizes.attempts, self._sizes.waits))

    def enforcement(self) -> Findings:
        return enforcement(self._folder, self._sizes.cases, self._sizes.rounds, self._sizes.calls)

    def histories(self) -> Findings:
        return histories(self._sizes.histories)

    def utilisation(self) -> Findings:
        return utilisation.utilisation(self._sizes.fleets, self._sizes.ratios, Random(1), self._folder)


SECTIONS: Final = ("enforcement", "trips", "coordinator", "memory", "log", "utilisation", "histories")


@contextmanager
def places_when_needed(folder: Path) -> Iterator[Callable[[], Places]]:
    """Starts an API server and PostgreSQL at the first call, and stops them at the end."""
    with ExitStack() as stack:
        there: list[Places] = []

        def places() -> Places:
            if not there:
                there.append(stack.enter_context(started(folder)))
            return there[0]

        yield places


def main() -> int:
    """Run the sections that were asked for."""
    options = _options()
    wanted = [section for section in SECTIONS if section in (options.sections or SECTIONS)]
    os.sched_setaffinity(0, {contestants.OTHER_CORE})
    found, began = [], time.monotonic()
    size = "quick: too small to be quoted" if options.quick else "full"
    machine = f"Python {platform.python_version()}, {len(contestants.CORES)} cores, {platform.machine()}"
    machine += f", load {os.getloadavg()[0]:.1f} by others before the run"
    print(f"{machine}; {size}.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spendmesh-bench-")))
        bench = Bench(QUICK if options.quick else FULL, folder, stack.enter_context(places_when_needed(folder)))
        for section in wanted:
            found.append(getattr(bench, section)())
            print(f"\n## {section}\n\n{found[-1].text}", flush=True)
            print(f"{time.monotonic() - began:.0f} s so far", file=sys.stderr)
        print(f"\n## goals\n\n{verdict(goal for each in found for goal in each.goals)}")
        if options.write:
            _write(found, folder, machine)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--write", action="store_true", help="put what was found into docs/")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: choose of {', '.join(SECTIONS)}")
    if options.quick and options.write:
        parser.error("--quick measures too little to be written down")
    return options


def _write(found: list[Findings], folder: Path, machine: str) -> None:
    for each in found:
        text = each.text + (f"\n\n{verdict(each.goals)}" if each.goals else "")
        text += f"\n\n({machine}; `make bench-ledger ARGS='--write {each.section}'`)"
        put(DOCS / document_of(each.section), each.section, text)
        if each.section == "utilisation":
            for name in utilisation.FILES:
                (DOCS / name).write_bytes((folder / name).read_bytes())


if __name__ == "__main__":
    sys.exit(main())
