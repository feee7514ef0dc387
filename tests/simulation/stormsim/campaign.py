"""All lines of the table, each with its seeds, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

from stormsim.figures import Result, play
from stormsim.fleet import Line
from stormsim.rows import ROWS

SEEDS: Final = (1, 2, 3)
PODS: Final = (20, 200)
OFFERED, BUSIER = 80, 90
BUSIER_KEYS: Final = ("ours", "breaker")
"""Rows that are also run nearer to the provider's capacity."""


def lines() -> list[Line]:
    """In the order of the table."""
    usual = [Line(row, pods, OFFERED) for pods in PODS for row in ROWS]
    return usual + [Line(row, PODS[0], BUSIER) for row in ROWS if row.key in BUSIER_KEYS]


def run(table: Sequence[Line], seeds: Sequence[int], jobs: int, say: Callable[[str], None]) -> list[Result]:
    """Play every line with every seed, the longest runs first, and tell how far it is."""
    runs = [(line, seed) for line in table for seed in seeds]
    longest_first = sorted(runs, key=lambda run: -run[0].row.client_retries * run[0].row.spec.attempts)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), os.nice, (5,)) as pool:
        running = {run: pool.submit(play, *run) for run in longest_first}
        for number, _ in enumerate(as_completed(running.values()), 1):
            if number % 6 == 0:
                say(f"{number} of {len(runs)} runs")
    return [Result(line, {seed: running[line, seed].result() for seed in seeds}) for line in table]
