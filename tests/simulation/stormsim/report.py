"""The table, its data and its plots."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Final

from exchange_driver import USD_PER_CALL
from findings import table
from stormsim.figures import BACK_PERCENT, Figures, Result
from stormsim.fleet import BIN_SECONDS, SECONDS, Line
from stormsim.provider import TRIGGER
from svg import COLOURS, key, line as line_over, page

Prior = tuple[float | None, float, float | None, float | None, float | None]
"""Answered a second at first and late, amplification during and late, wasted a second late; None: not given."""
PRIOR: Final[dict[tuple[str, int, int], Prior]] = {
    ("none", 20, 80): (0, 79.7, 1.00, 1.00, 0.5),
    ("naive", 20, 80): (0, 0, 2.85, 4.00, 100.8),
    ("stacked", 20, 80): (0, 0, 3.09, 12.0, 99.6),
    ("industry", 20, 80): (0, 0, 2.68, 3.56, 100.6),
    ("ours", 20, 80): (0, 80.1, 1.05, 1.01, 0.5),
    ("under SDK", 20, 80): (0, 0, 2.54, 3.32, 100.3),
    ("breaker", 20, 80): (74.5, 79.9, 0.33, 1.01, 0.5),
    ("ours", 200, 80): (None, 0, None, None, None),
    ("cluster", 200, 80): (None, 80.0, None, None, None),
    ("cluster + breaker", 200, 80): (55, 79.8, None, None, None),
    ("ours", 20, 90): (0, 25.7, 1.05, None, 74.7),
    ("breaker", 20, 90): (82.1, 90.2, 0.32, None, 0.6),
}
"""The same model with models of the policies; for ours the nearest (20 % of successes, 0.1/s a pod or 2/s in all)."""
HEAD: Final = (
    "policy",
    "pods",
    "calls/s",
    "answered/s, first minute",
    "minutes 3 to 5½",
    "tries a call, trigger",
    "later",
    "wasted/s, later",
    "wasted, USD",
    "back after, s",
)
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 840, 380, 48, 40, 350, 48
MOST_RPS = 120


def text(results: Iterable[Result]) -> str:
    """The table; in parentheses what was known before."""
    return table(HEAD, [_row(result) for result in results])


def _row(result: Result) -> tuple[object, ...]:
    line, mean = result.line, result.mean
    prior = PRIOR.get(_keys(line), (None,) * 5)
    found = (
        f"{mean.first_minute_rps:.1f}",
        f"{mean.late_rps:.1f}",
        f"{mean.during_amplification:.2f}",
        f"{mean.late_amplification:.2f}",
        f"{mean.late_wasted_rps:.1f}",
    )
    cells = [one if known is None else f"{one} ({known:g})" for one, known in zip(found, prior, strict=True)]
    back = "never" if mean.back_after_seconds is None else f"{mean.back_after_seconds:.0f}"
    return line.row.name, line.pods, line.offered, *cells, f"{mean.wasted_usd:.2f}", back


def data(results: Iterable[Result]) -> str:
    """All runs as CSV, one line for each seed."""
    names = tuple(Figures.__dataclass_fields__)
    lines = [
        (*_keys(result.line), seed, *(_number(getattr(run.figures, name)) for name in names))
        for result in results
        for seed, run in result.runs.items()
    ]
    return _csv(("policy", "pods", "offered_rps", "seed", *names), lines)


def series(results: Iterable[Result]) -> str:
    """What the plots show, as CSV: rates of each ten seconds, mean of the seeds."""
    names = ("calls", "sent", "good", "wasted")
    lines = [
        (*_keys(result.line), place * BIN_SECONDS, *(_number(rate) for rate in rates))
        for result in results
        for place, rates in enumerate(zip(*(_rates(result, name) for name in names), strict=True))
    ]
    return _csv(("policy", "pods", "offered_rps", "second", *(f"{name}_rps" for name in names)), lines)


def _keys(line: Line) -> tuple[str, int, int]:
    return line.row.key, line.pods, line.offered


def _csv(head: Sequence[object], lines: Iterable[Sequence[object]]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerows((head, *lines))
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rates(result: Result, name: str) -> list[float]:
    runs = [getattr(run.counts, name) for run in result.runs.values()]
    return [sum(column) / len(runs) / BIN_SECONDS for column in zip(*runs, strict=True)]


def plot(results: Sequence[Result], pods: int) -> str:
    """Calls answered over time, a line for each policy."""
    parts = [_frame(pods)]
    for number, result in enumerate(results):
        colour = COLOURS[number % len(COLOURS)]
        middle = BIN_SECONDS / 2
        good = [(_x(place * BIN_SECONDS + middle), _y(rate)) for place, rate in enumerate(_rates(result, "good"))]
        parts += [
            line_over(good, colour),
            key(WIDTH - RIGHT + 16, TOP + 16 + 22 * number, colour, result.line.row.name),
        ]
    return page(WIDTH, HEIGHT, parts)


def _frame(pods: int) -> str:
    left, right = _x(TRIGGER[0]), _x(TRIGGER[1])
    parts = [
        f'<text x="{LEFT}" y="22" font-size="14">Calls answered a second, {pods} pods; grey: 20 % capacity</text>',
        f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="#eee"/>',
    ]
    for rate in range(0, MOST_RPS + 1, 20):
        y = _y(rate)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{rate}</text>')
    parts += [
        f'<text x="{_x(second):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{second}</text>'
        for second in range(0, int(SECONDS) + 1, 60)
    ]
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">seconds</text>')
    return "\n".join(parts)


def _x(second: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * second / SECONDS


def _y(rate: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(rate, MOST_RPS) / MOST_RPS)


def legend() -> str:
    """What the table's words mean."""
    return (
        f"Time is counted from the end of the trigger; wasted USD from its beginning, at {USD_PER_CALL} USD a call. "
        f"Back: at least {BACK_PERCENT} % of what is offered is answered in every {BIN_SECONDS} seconds from then on, "
        "with every seed."
    )
