"""What must come out of the storm with every seed, not only on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stormsim.figures import Figures, Result
from stormsim.fleet import Line

STUCK_PERCENT: Final = 5
"""Of what is offered: where less is answered, service is not there."""
WASTE_PERCENT: Final = 2
"""Of what is offered, minutes later. A provider that is well is too late for 0.7 % of all calls (e^-5)."""
CALM_PERCENT: Final = 80
"""Of the provider's capacity: with less offered it gets well by itself within the time that is looked at."""


@dataclass(frozen=True)
class Promise:
    """A sentence about some lines of the table, and what is true of each of their runs then."""

    says: str
    about: Callable[[Line], bool]
    holds: Callable[[Figures, Line], bool]


def most_retries(line: Line) -> float:
    """Retries for each call: the percentage, and the floors of all pods, or the one that they share."""
    spec = line.row.spec
    floors = 1 if spec.scope == "Cluster" else line.pods
    floor_rps = floors * spec.min_retry_count * 1000 / spec.min_retry_interval_ms
    return spec.budget_percent / 100 + floor_rps / line.offered


def _are(*keys: str) -> Callable[[Line], bool]:
    return lambda line: line.row.key in keys


def _few_floors_and_calm(line: Line) -> bool:
    """Floors are a small part of all calls, and the provider is not nearly full."""
    floors = most_retries(line) - line.row.spec.budget_percent / 100
    calm = line.offered * 100 <= CALM_PERCENT * line.workers
    return line.row.key in ("ours", "cluster") and floors < 0.1 and calm


def _within_budget(run: Figures, line: Line) -> bool:
    most = most_retries(line)
    return max(run.retries_per_call, run.during_amplification - 1, run.late_amplification - 1) <= most


def _thrifty(run: Figures, line: Line) -> bool:
    return run.late_wasted_rps * 100 <= WASTE_PERCENT * line.offered


PROMISES: Final = (
    Promise(
        "retries without a budget and those of the industry's default keep an outage alive whose cause is gone",
        _are("naive", "stacked", "industry"),
        lambda run, line: run.late_rps * 100 <= STUCK_PERCENT * line.offered,
    ),
    Promise(
        "3 retries without a budget send at least 3 tries for a call",
        _are("naive"),
        lambda run, _: run.late_amplification >= 3,
    ),
    Promise(
        "under an SDK's 2 they send at least 10",
        _are("stacked"),
        lambda run, _: run.late_amplification >= 10,
    ),
    Promise(
        "ours makes at most its percentage and its floors of retries",
        _are("ours", "cluster", "breaker", "cluster + breaker"),
        _within_budget,
    ),
    Promise(
        "ours keeps no outage alive where floors are few and the provider is not nearly full; shared, there is one",
        _few_floors_and_calm,
        lambda run, line: run.late_rps * 100 >= 95 * line.offered and _thrifty(run, line),
    ),
    Promise(
        "ours with a breaker that denies is back within a minute",
        _are("breaker", "cluster + breaker"),
        lambda run, _: run.back_after_seconds is not None and run.back_after_seconds <= 60,
    ),
    Promise(
        f"ours with a breaker that denies wastes at most {WASTE_PERCENT} % later",
        _are("breaker", "cluster + breaker"),
        _thrifty,
    ),
)


def broken(results: Iterable[Result]) -> list[str]:
    """A line for each run that does not keep a promise about it."""
    return [
        f"{result.line}, seed {seed}: not true that {promise.says}; {run.figures}"
        for result in results
        for promise in PROMISES
        if promise.about(result.line)
        for seed, run in result.runs.items()
        if not promise.holds(run.figures, result.line)
    ]
