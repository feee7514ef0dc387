"""What a run came to, in the columns of the table, and the mean of runs that differ in their seed only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exchange_driver import USD_PER_CALL
from stormsim.fleet import BIN_SECONDS, Counts, Fleet, Line
from stormsim.provider import TRIGGER

Span = tuple[float, float]
FIRST_MINUTE: Final[Span] = (TRIGGER[1], TRIGGER[1] + 60)
LATE: Final[Span] = (TRIGGER[1] + 150, TRIGGER[1] + 330)
BACK_PERCENT: Final = 80
"""Of what is offered, answered in each `BIN_SECONDS` to the end: then service is back."""


@dataclass(frozen=True)
class Figures:
    """Rates are a second; spans are counted from the end of the trigger, `during` is the trigger."""

    first_minute_rps: float
    late_rps: float
    during_amplification: float
    """Tries sent for each call. Below 1 where calls are refused before they are sent."""
    late_amplification: float
    late_wasted_rps: float
    wasted_usd: float
    """From the trigger's beginning on."""
    retries_per_call: float
    """The same time."""
    back_after_seconds: float | None
    """None: never."""


@dataclass(frozen=True)
class Run:
    """With one seed."""

    figures: Figures
    counts: Counts


@dataclass(frozen=True)
class Result:
    """All runs of a line, by their seed."""

    line: Line
    runs: dict[int, Run]

    @property
    def mean(self) -> Figures:
        """Of all runs; back only when the last of them is."""
        every = [run.figures for run in self.runs.values()]
        names = [name for name in Figures.__dataclass_fields__ if name != "back_after_seconds"]
        means = {name: statistics.fmean(getattr(one, name) for one in every) for name in names}
        backs = [one.back_after_seconds for one in every]
        known = [back for back in backs if back is not None]
        return Figures(**means, back_after_seconds=max(known) if len(known) == len(backs) else None)


def play(line: Line, seed: int) -> Run:
    """One run."""
    counts = Fleet(line, seed).run()
    return Run(figures(counts, line.offered), counts)


def figures(counts: Counts, offered: int) -> Figures:
    """What was counted, as the table says it."""
    aftermath = (TRIGGER[0], LATE[1])
    return Figures(
        first_minute_rps=_rate(counts.good, FIRST_MINUTE),
        late_rps=_rate(counts.good, LATE),
        during_amplification=_share(counts.sent, counts.calls, TRIGGER),
        late_amplification=_share(counts.sent, counts.calls, LATE),
        late_wasted_rps=_rate(counts.wasted, LATE),
        wasted_usd=USD_PER_CALL * _sum(counts.wasted, aftermath),
        retries_per_call=_share(counts.retries, counts.calls, aftermath),
        back_after_seconds=_back(counts.good, offered),
    )


def _sum(counted: Sequence[int], span: Span) -> int:
    return sum(counted[int(span[0] // BIN_SECONDS) : int(span[1] // BIN_SECONDS)])


def _rate(counted: Sequence[int], span: Span) -> float:
    return _sum(counted, span) / (span[1] - span[0])


def _share(counted: Sequence[int], of: Sequence[int], span: Span) -> float:
    return _sum(counted, span) / _sum(of, span)


def _back(good: Sequence[int], offered: int) -> float | None:
    """Seconds after the trigger's end from which on no bin is short."""
    short = [place for place, count in enumerate(good) if count * 100 < BACK_PERCENT * offered * BIN_SECONDS]
    last = max(short, default=-1)
    return None if last == len(good) - 1 else max(0.0, (last + 1) * BIN_SECONDS - TRIGGER[1])
