"""
All mutants of the ledger, each judged in a process of its own; survivors are compared with the list of those that
have a reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from multiprocessing import get_context
from pathlib import Path
from random import Random

from ledgersim.judging import judge, quietly
from ledgersim.mutants import all_mutants

Pool = get_context("fork").Pool
SEEDS = 40
TELL_EVERY = 25
ACCEPTED = Path(__file__).with_name("mutants_accepted.txt")


@dataclass
class Hunt:
    """What became of mutants."""

    total: int = 0
    noticed: Counter[str] = field(default_factory=Counter)
    """How many, by who noticed them."""
    listed: list[str] = field(default_factory=list)
    """Those with a reason; they are not judged."""
    unexplained: list[str] = field(default_factory=list)
    """Nobody notices them, and there is no reason."""
    stale: list[str] = field(default_factory=list)
    """Reasons for mutants that there are none of any more."""

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it."""
        return bool(self.unexplained or self.stale)

    def table(self) -> str:
        """In one line, and a line for each that somebody has to look at."""
        by = ", ".join(f"{number} by {_WHO[who]}" for who, number in sorted(self.noticed.items()))
        killed = sum(self.noticed.values())
        left = self.total - killed - len(self.listed) - len(self.unexplained)
        first = f"mutants: {self.total}, {killed} killed ({by}), {len(self.listed)} listed with a reason, "
        lines = [first + f"{len(self.unexplained)} unexplained, {left} not judged in this time"]
        lines += [f"  unexplained: {name}" for name in sorted(self.unexplained)]
        lines += [f"  listed, but gone: {name}" for name in sorted(self.stale)]
        return "\n".join(lines)


_WHO = {"seed": "a history", "law": "a law", "import": "its import", "nothing": "never ending"}


def hunt(jobs: int, seeds: int, match: str, say: Callable[[str], None], until: float = inf, shuffle: int = 0) -> Hunt:
    """
    Judge every mutant whose file or name contains `match`, until a monotonic time; in another order for each `shuffle`.
    """
    accepted, mutants = read_accepted(), all_mutants()
    numbers = [number for number, mutant in enumerate(mutants) if match in f"{mutant.file} {mutant.name}"]
    found = Hunt(total=len(numbers), listed=[mutants[each].name for each in numbers if mutants[each].name in accepted])
    found.stale += sorted(accepted.keys() - {mutant.name for mutant in mutants})
    open_ones = [number for number in numbers if mutants[number].name not in accepted]
    Random(shuffle).shuffle(open_ones)
    with Pool(jobs, quietly, maxtasksperchild=1) as pool:
        tried = pool.imap_unordered(_judge, [(number, seeds) for number in open_ones], chunksize=1)
        for done, (number, noticed) in enumerate(tried, start=1):
            mutant = mutants[number]
            if noticed:
                found.noticed[noticed.partition(":")[0].split()[0]] += 1
            else:
                found.unexplained.append(mutant.name)
                say(f"nobody notices {mutant.file}:{mutant.line}: {mutant.name}")
            if done % TELL_EVERY == 0:
                say(f"{done} of {len(open_ones)} mutants judged, {len(found.unexplained)} unexplained")
            if time.monotonic() >= until:
                break
    return found


def _judge(task: tuple[int, int]) -> tuple[int, str]:
    return task[0], judge(*task)


def read_accepted() -> dict[str, str]:
    """Name -> reason, of the committed list."""
    lines = ACCEPTED.read_text(encoding="utf-8").splitlines() if ACCEPTED.exists() else []
    pairs = (line.split("  # ", 1) for line in lines if line and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, reason in pairs}
