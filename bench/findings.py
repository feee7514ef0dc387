"""What a measurement found: tables and goals as Markdown, also put into the documents that quote them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """A promise, what this run reached, and whether that is enough."""

    promise: str
    reached: str
    met: bool


@dataclass(frozen=True)
class Findings:
    """Of one section."""

    section: str
    text: str
    goals: tuple[Goal, ...] = ()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def verdict(goals: Iterable[Goal]) -> str:
    """All goals with their ends."""
    rows = [(goal.promise, goal.reached, "met" if goal.met else "missed") for goal in goals]
    return table(("goal", "this run", ""), rows)


def at(ordered: Sequence[float], share: float) -> float:
    """A quantile of what is in order already."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and between which two values the true one is with 95 % (by rank; all values where they are few)."""
    ordered = sorted(values)
    outside = max(0, int(len(ordered) / 2 - 0.98 * len(ordered) ** 0.5))
    return statistics.median(ordered), ordered[outside], ordered[-1 - outside]


def put(document: Path, section: str, text: str, command: str = "bench-ledger") -> None:
    """Replace what stands between a section's two marks. Raises ValueError where they are not there once."""
    begin, end = f"<!-- {command}: {section} -->", "<!-- end -->"
    whole = document.read_text(encoding="utf-8")
    block = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(block.findall(whole)) != 1:
        raise ValueError(f"{document.name} must have {begin} … {end} once")
    document.write_text(block.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", whole), encoding="utf-8")
