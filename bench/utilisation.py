"""
How much of a limit is spent when so many sidecars exhaust it together: the real ledgers against the real books, as in
the tests. Writes the data as CSV and a plot as SVG; the same seed writes the same files.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "control"))

from findings import Findings, Goal, table
from ledger_fleet import fleet_of
from svg import COLOURS, key, line, page

SIDECARS = (1, 10, 100, 500)
FILES = ("utilisation.csv", "utilisation.svg")
RATIOS = (100, 1_000, 10_000)
"""The limit is so many times one call's worst case."""
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 56, 40, 150, 48


@dataclass(frozen=True)
class Point:
    """One run. Shares are of the limit, in percent."""

    sidecars: int
    ratio: int
    spent_percent: float
    promised_percent: float
    """The limit less one worst case for each sidecar."""


def measure(sidecars: int, ratio: int, rng: Random) -> Point:
    """Calls that cost half to all of their worst case, by all sidecars, until nobody is served any more."""
    worst = 1_000_000
    fleet = fleet_of(worst * ratio)
    pods = [fleet.start(f"Deployment bench/w{number // 20}") for number in range(sidecars)]
    fleet.exhaust(pods, worst, rng)
    share = 100 * fleet.account.settled / fleet.account.limit.amount
    return Point(sidecars, ratio, share, max(0.0, 100 * (1 - sidecars / ratio)))


def utilisation(sidecars: tuple[int, ...], ratios: tuple[int, ...], rng: Random, folder: Path) -> Findings:
    """Measure all points, and write `FILES` into a folder."""
    points = [measure(number, ratio, rng) for ratio in ratios for number in sidecars]
    with (folder / FILES[0]).open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("sidecars", "limit_over_worst_case", "spent_percent", "promised_percent"))
        for point in points:
            spent, promised = f"{point.spent_percent:.3f}", f"{point.promised_percent:.3f}"
            rows.writerow((point.sidecars, point.ratio, spent, promised))
    (folder / FILES[1]).write_text(plot(points, sidecars, ratios), encoding="utf-8")
    head = ("spent at exhaustion, % of the limit", *(f"{number} sidecars" for number in sidecars))
    shares = {(point.ratio, point.sidecars): f"{point.spent_percent:.2f}" for point in points}
    lines = [(f"worst case = limit / {ratio:,}", *(shares[ratio, number] for number in sidecars)) for ratio in ratios]
    nearest = min(points, key=lambda point: point.spent_percent - point.promised_percent)
    margin = nearest.spent_percent - nearest.promised_percent
    promise = "spent at exhaustion ≥ limit − one worst case a sidecar"
    goal = Goal(promise, f"{margin:+.2f} % of the limit at the nearest point", margin >= 0)
    return Findings("utilisation", table(head, lines), (goal,))


def plot(points: list[Point], sidecars: tuple[int, ...], ratios: tuple[int, ...]) -> str:
    """Lines of what was spent, dashed ones of what is promised, over the number of sidecars."""
    floor = 5 * math.floor(min(point.spent_percent for point in points) / 5)
    floor = min(floor, 95)
    parts = [_frame(floor, sidecars)]
    for ratio, colour in zip(ratios, COLOURS, strict=False):
        mine = [point for point in points if point.ratio == ratio]
        spent = [(_x(point.sidecars), _y(point.spent_percent, floor)) for point in mine]
        promised = [(_x(p.sidecars), _y(p.promised_percent, floor)) for p in mine if p.promised_percent >= floor]
        parts.append(line(spent, colour))
        parts.append(line(promised, colour, ' stroke-dasharray="4 4" opacity="0.6"'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spent]
        row = TOP + 16 + 22 * ratios.index(ratio)
        at = WIDTH - RIGHT + 16
        parts.append(key(at, row, colour, f"limit / {ratio:,}"))
    parts.append(f'<text x="{WIDTH - RIGHT + 16}" y="{TOP + 92}" fill="#666">dashed: promised</text>')
    return page(WIDTH, HEIGHT, parts)


def _frame(floor: int, sidecars: tuple[int, ...]) -> str:
    parts = [f'<text x="{LEFT}" y="22" font-size="14">Share of a limit that is spent when sidecars exhaust it</text>']
    for percent in range(floor, 101, 5 if floor >= 70 else 10):
        y = _y(percent, floor)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    parts += [
        f'<text x="{_x(number):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{number}</text>'
        for number in sidecars
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">sidecars; colour: worst case of a call</text>'
    )
    return "\n".join(parts)


def _x(sidecars: int) -> float:
    return LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * math.log(sidecars) / math.log(SIDECARS[-1])


def _y(percent: float, floor: int) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (100 - percent) / (100 - floor)
