"""The window of calls beside a list of every call."""

from __future__ import annotations

from hypothesis import given, strategies as st

from spendmesh_sidecar.core.failures.failure_window import SLOTS, FailureWindow

CALLS = st.lists(st.tuples(st.floats(0, 20, allow_nan=False), st.booleans()), max_size=60)


@given(interval_ms=st.integers(1_000, 60_000), calls=CALLS, after=st.floats(0, 90, allow_nan=False))
def test_totals_are_those_of_the_calls_in_the_last_slots(
    interval_ms: int, calls: list[tuple[float, bool]], after: float
) -> None:
    """Exact, whatever the pauses: the same as counting the calls whose slot is one of the last ten."""
    window, now, seen = FailureWindow(interval_ms), 100.0, []
    for pause, bad in calls:
        now += pause
        window.add(now, bad=bad)
        seen.append((now, bad))
    now += after

    def slot(at: float) -> int:
        return int(at * (SLOTS * 1000 / interval_ms))

    recent = [bad for at, bad in seen if slot(now) - slot(at) < SLOTS]
    assert window.totals(now) == (len(recent), sum(recent))
    assert window.totals(now + 2 * interval_ms / 1000) == (0, 0)
