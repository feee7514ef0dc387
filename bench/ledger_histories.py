"""How many histories of the whole ledger the simulation plays in a second."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "simulation"))

from findings import Findings, Goal, table
from ledgersim.run import play_seeds

GOAL = 5000 / 180
"""What `make test` plays, in three minutes."""


def histories(count: int) -> Findings:
    """Play the first seeds; counted in CPU time."""
    began = time.process_time()
    result = play_seeds(range(count))
    rate = result.count / (time.process_time() - began)
    if result.violations:
        raise RuntimeError(f"a promise did not hold: {result.violations[0]}")
    cores = os.cpu_count() or 1
    text = table(("histories", "a second of a core"), [(count, f"{rate:.1f}")])
    met = rate * cores >= GOAL
    promise = f"5,000 histories within three minutes on {cores} cores: ≥ {GOAL:.0f} a second"
    return Findings("histories", text, (Goal(promise, f"{rate * cores:.0f}", met),))
