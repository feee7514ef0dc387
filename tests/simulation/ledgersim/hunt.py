"""
All mutants of the ledger, each judged in a process of its own; survivors are compared with the list of those that
have a reason.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from multiprocessing import get_context
from pathlib import Path
from random import Random

from ledgersim import killers
from ledgersim.judging import judge, quietly, warm
from ledgersim.mutants import Mutant, all_mutants

Pool = get_context("fork").Pool
SEEDS = 40
TELL_EVERY = 100
ACCEPTED = Path(__file__).with_name("mutants_accepted.txt")
WILDCARD = "…"
"""In the accepted list it stands for any text: a reason may be that of many mutants."""


@dataclass
class Hunt:
    """What became of mutants."""

    total: int = 0
    noticed: dict[str, str] = field(default_factory=dict)
    """Name -> who noticed it now."""
    changed: list[str] = field(default_factory=list)
    """Noticed, but not by who did the last time."""
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
        by = Counter(killer.partition(" ")[0] for killer in self.noticed.values())
        killed = ", ".join(f"{number} by {_WHO[who]}" for who, number in sorted(by.items()))
        left = self.total - len(self.noticed) - len(self.listed) - len(self.unexplained)
        first = (
            f"mutants: {self.total}, {len(self.noticed)} killed ({killed}), {len(self.listed)} listed with a reason, "
        )
        lines = [first + f"{len(self.unexplained)} unexplained, {left} not judged in this time"]
        if self.changed:
            lines.append(f"  {len(self.changed)} noticed by another than the last time: --remember writes that down")
        lines += [f"  unexplained: {name}" for name in sorted(self.unexplained)]
        lines += [f"  listed, but gone: {name}" for name in sorted(self.stale)]
        return "\n".join(lines)


_WHO = {"seed": "a history", "law": "a law", "import": "its import"}


def hunt(jobs: int, seeds: int, match: str, say: Callable[[str], None], until: float = inf, shuffle: int = 0) -> Hunt:
    """
    Judge every mutant whose file or name contains `match`, until a monotonic time: first those that nobody is known to
    notice, then the others, in another order for each `shuffle`.
    """
    accepted, known, mutants = Accepted(read_accepted()), killers.read(), all_mutants()
    numbers = [number for number, mutant in enumerate(mutants) if match in f"{mutant.file} {mutant.name}"]
    found = Hunt(total=len(numbers), listed=[mutants[each].name for each in numbers if mutants[each].name in accepted])
    found.stale += accepted.stale(mutants)
    tasks = [(each, seeds, known.get(mutants[each].name, "")) for each in numbers if mutants[each].name not in accepted]
    Random(shuffle).shuffle(tasks)
    tasks.sort(key=lambda task: bool(task[2]))
    if len(tasks) > jobs:
        warm()
    with Pool(jobs, quietly, maxtasksperchild=1) as pool:
        tried = pool.imap_unordered(_judge, tasks, chunksize=1)
        for done, (number, noticed) in enumerate(tried, start=1):
            mutant = mutants[number]
            if noticed:
                found.noticed[mutant.name] = noticed
                found.changed += [mutant.name] if noticed != known.get(mutant.name) else []
            else:
                found.unexplained.append(mutant.name)
                say(f"nobody notices {mutant.file}:{mutant.line}: {mutant.name}")
            if done % TELL_EVERY == 0:
                say(f"{done} of {len(tasks)} mutants judged, {len(found.unexplained)} unexplained")
            if time.monotonic() >= until:
                break
    return found


def _judge(task: tuple[int, int, str]) -> tuple[int, str]:
    return task[0], judge(*task)


def remember(found: Hunt) -> None:
    """Write down who noticed what; of mutants that were not judged what was known before."""
    known = {**killers.read(), **found.noticed}
    killers.write({each.name: known[each.name] for each in all_mutants() if each.name in known})


class Accepted:
    """Mutants that have a reason to be noticed by nobody."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self._exact = {name for name in reasons if WILDCARD not in name}
        patterns = {name: name.split(WILDCARD) for name in reasons if WILDCARD in name}
        self._patterns = {name: re.compile(".*".join(map(re.escape, parts))) for name, parts in patterns.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._exact or any(pattern.fullmatch(name) for pattern in self._patterns.values())

    def stale(self, mutants: Iterable[Mutant]) -> list[str]:
        """Those that say nothing of any of these mutants."""
        names = {mutant.name for mutant in mutants}
        unused = [name for name, each in self._patterns.items() if not any(map(each.fullmatch, names))]
        return sorted(self._exact - names) + unused


def read_accepted() -> dict[str, str]:
    """Name -> reason, of the committed list."""
    return killers.read(ACCEPTED)
