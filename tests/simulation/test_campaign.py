"""
The whole ledger in simulated time: thousands of histories keep every promise, and what was not tested is said.

A module of its own, so that it runs beside all others.
"""

from __future__ import annotations

import os

import pytest

from ledgersim import campaign
from ledgersim.faults import FAULTS
from ledgersim.run import Result
from ledgersim.shrink import shrink

HISTORIES = int(os.environ.get("SPENDMESH_SIM_HISTORIES", "5000"))


@pytest.mark.timeout(3600)
def test_thousands_of_histories_keep_every_promise_and_meet_every_fault() -> None:
    """invoice <= ledger <= limit, conservation, no false refusal; each fault and each transition often enough."""
    said: list[str] = []

    total = campaign.run(0, HISTORIES, None, os.cpu_count() or 1, said.append)

    assert total.violations == [], [replay(seed) for seed, _ in total.violations[:2]]
    assert campaign.too_rare(total) == {}
    assert total.count == HISTORIES


def replay(seed: int) -> str:
    """A failing seed as one line to play again."""
    shrunk = shrink(seed)
    return f"{shrunk.replay}: {shrunk.error}"


def test_what_occurred_too_rarely_is_named() -> None:
    """A campaign that never saw a fault says nothing about it."""
    missing = campaign.too_rare(Result(count=1000))
    assert set(FAULTS) <= set(missing)
    assert missing["ledger: quarantined, fork"] == (0, campaign.PER_THOUSAND["ledger: quarantined, fork"])
