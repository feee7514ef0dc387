"""`make sim-retries`: 8,750 failed calls a day, or 2,200."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from findings import put, table
from retryday import figure, scaled
from retryday.day import Day, ways
from retryday.figure import Tally

DOCS: Final = Path(__file__).resolve().parents[3] / "docs"
HEAD: Final = (
    "100,000 requests",
    "arithmetic",
    "failed, not malformed",
    "malformed, at the provider",
    "malformed, refused before it",
    "failed at the provider",
    "billed, USD",
    "requests lost",
)
FIGURES: Final = (figure.NAIVE, figure.NAIVE_TRULY, figure.NAIVE_LOOPED, figure.CLASSES)


def main(arguments: list[str]) -> int:
    """Answers 0; `tests/simulation/test_retry_days.py` says what has to come out."""
    options = _options(arguments)
    days = [Day(way, options.seed).run() for way in ways()]
    with tempfile.TemporaryDirectory(prefix="spendmesh-day-") as folder:
        runs = asyncio.run(scaled.run(Path(folder), options.seed))
    text = f"Real sidecar, stand-in provider, a fiftieth of the day, times {scaled.FACTOR}:\n\n{rows(runs)}\n\n"
    text += f"Simulated day in full, seed {options.seed}:\n\n{rows(days)}"
    print(text)
    if options.write:
        put(DOCS / "resilience.md", "day", text, "sim-retries")
    return 0


def rows(tallies: Iterable[Tally]) -> str:
    """A line for each policy."""
    return table(HEAD, [_row(tally, known) for tally, known in zip(tallies, FIGURES, strict=True)])


def _row(tally: Tally, known: int) -> tuple[str, ...]:
    counts = (known, *(count * tally.factor for count in (tally.transient, tally.malformed, tally.refused)))
    numbers = [f"{count:,}" for count in (*counts, tally.failed)]
    return tally.name, *numbers, f"{tally.usd:.2f}", f"{tally.lost * tally.factor:,}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim-retries ARGS=", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the order of calls and of the simulated day; 1")
    parser.add_argument("--write", action="store_true", help="put what was found into docs/")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
