"""Whoever found too little is waited for by others: for ten seconds, never by itself, and forgotten afterwards."""

from __future__ import annotations

import pytest

from ledger_samples import BUDGET, START_MS
from spendmesh_operator.ledger.books.accounts import AccountKey
from spendmesh_operator.ledger.books.pressure import PRESSURE_MS, Pressure

KEY = AccountKey("test", BUDGET, "hourly", (), START_MS // 1000)
END_MS = START_MS + PRESSURE_MS


@pytest.fixture
def pressure() -> Pressure:
    """A pod found 300 too little."""
    found = Pressure()
    found.note((KEY,), 300, "pod-a", START_MS)
    return found


@pytest.mark.parametrize(
    ("uid", "now_ms", "asked"),
    [("pod-b", START_MS, 300), ("pod-b", END_MS - 1, 300), ("pod-b", END_MS, 0), ("pod-a", START_MS, 0)],
)
def test_others_are_asked_for_a_need_while_it_is_new(pressure: Pressure, uid: str, now_ms: int, asked: int) -> None:
    assert pressure.on(KEY, uid, now_ms) == asked


@pytest.mark.parametrize(("swept_ms", "asked"), [(END_MS - 1, 300), (END_MS, 0)])
def test_a_sweep_forgets_what_is_over_and_nothing_else(pressure: Pressure, swept_ms: int, asked: int) -> None:
    """What is over stays over, also where the clock goes back."""
    pressure.sweep(swept_ms)

    assert pressure.on(KEY, "pod-b", START_MS) == asked


def test_without_a_need_nobody_is_asked() -> None:
    assert Pressure().on(KEY, "pod-b", START_MS) == 0
