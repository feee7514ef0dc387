"""One history, or many: what a seed comes to, as numbers that a parent process can add up."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ledgersim.broken import Broken
from ledgersim.checker import Violation
from ledgersim.loop import Stuck
from ledgersim.workload import History, draw
from ledgersim.world import World

FAILURES = (Violation, Stuck, AssertionError, RuntimeError, LookupError, TypeError, ValueError)
"""What ends a history, and not those after it: a promise that did not hold, or a defect of product or simulation."""
COLLECT_EVERY = 16
"""Histories between collections: each leaves a heap of cycles, and none lives long."""


@dataclass
class Result:
    """What histories came to."""

    count: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)
    """Seed, and what did not hold."""

    def add(self, other: Result) -> None:
        """Add another part."""
        self.count += other.count
        self.happened += other.happened
        self.violations += other.violations


def play(history: History, broken: Broken = Broken()) -> World:
    """Play one history to its end. Raises Violation or Stuck. What the product logs of faults is not shown."""
    log = logging.getLogger("spendmesh")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return World(history, broken).run()
    finally:
        log.setLevel(level)


def failure(history: History, broken: Broken = Broken()) -> Exception | None:
    """Why a history fails; None if it does not."""
    try:
        play(history, broken)
    except FAILURES as error:
        return error
    return None


def play_seeds(seeds: Iterable[int], broken: Broken = Broken()) -> Result:
    """Play histories of seeds, and go on after a violation."""
    result = Result()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for seed in seeds:
            result.count += 1
            try:
                result.happened += play(draw(seed), broken).happened
            except FAILURES as error:
                result.violations.append((seed, str(error) or repr(error)))
            if result.count % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        if collecting:
            gc.enable()
    return result
