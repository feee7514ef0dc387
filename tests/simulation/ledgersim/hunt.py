"""
All mutants of the ledger, each judged in a process of its own; survivors are compared with the list of those that
have a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from ledgersim.judging import judge, quietly
from ledgersim.mutants import all_mutants

Pool = get_context("fork").Pool
SEEDS = 40
TELL_EVERY = 25
ACCEPTED = Path(__file__).with_name("mutants_accepted.txt")


@dataclass
class Hunt:
    """What became of mutants."""

    noticed: Counter[str] = field(default_factory=Counter)
    """How many, by who noticed them."""
    listed: list[str] = field(default_factory=list)
    """Survivors with a reason."""
    unexplained: list[str] = field(default_factory=list)
    """Survivors without one."""
    stale: list[str] = field(default_factory=list)
    """Reasons for mutants that there are none of any more, or that are noticed."""

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it."""
        return bool(self.unexplained or self.stale)

    def table(self) -> str:
        """In one line, and a line for each that somebody has to look at."""
        by = ", ".join(f"{number} by {_WHO[who]}" for who, number in sorted(self.noticed.items()))
        killed = sum(self.noticed.values())
        total = killed + len(self.listed) + len(self.unexplained)
        first = f"mutants: {total}, {killed} killed ({by}), {len(self.listed)} listed with a reason, "
        lines = [first + f"{len(self.unexplained)} unexplained"]
        lines += [f"  unexplained: {name}" for name in sorted(self.unexplained)]
        lines += [f"  listed, but noticed or gone: {name}" for name in sorted(self.stale)]
        return "\n".join(lines)


_WHO = {"seed": "a history", "law": "a law", "import": "its import", "nothing": "never ending"}


def hunt(jobs: int, seeds: int, match: str, say: Callable[[str], None]) -> Hunt:
    """Judge every mutant whose file or name contains `match`."""
    accepted, mutants = read_accepted(), all_mutants()
    numbers = [number for number, mutant in enumerate(mutants) if match in f"{mutant.file} {mutant.name}"]
    found = Hunt()
    with Pool(jobs, quietly, maxtasksperchild=1) as pool:
        tried = pool.imap_unordered(_judge, [(number, seeds) for number in numbers], chunksize=1)
        for done, (number, noticed) in enumerate(tried, start=1):
            mutant = mutants[number]
            if noticed:
                found.noticed[noticed.partition(":")[0].split()[0]] += 1
                found.stale += [mutant.name] if mutant.name in accepted else []
            elif mutant.name in accepted:
                found.listed.append(mutant.name)
            else:
                found.unexplained.append(mutant.name)
                say(f"[{done}/{len(numbers)}] nobody notices {mutant.file}:{mutant.line}: {mutant.name}")
            if done % TELL_EVERY == 0:
                say(f"{done} of {len(numbers)} mutants, {len(found.unexplained)} unexplained")
    found.stale += sorted(accepted.keys() - {mutant.name for mutant in mutants})
    return found


def _judge(task: tuple[int, int]) -> tuple[int, str]:
    return task[0], judge(*task)


def read_accepted() -> dict[str, str]:
    """Name -> reason, of the committed list."""
    lines = ACCEPTED.read_text(encoding="utf-8").splitlines() if ACCEPTED.exists() else []
    pairs = (line.split("  # ", 1) for line in lines if line and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, reason in pairs}
