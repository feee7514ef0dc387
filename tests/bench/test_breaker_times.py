"""The bench of ejecting and restoring runs, and its counts are those of the default breaker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from breaker_times import all_fail, every_second, main, measure, simulate, throttled

DOCS = Path(__file__).parents[2] / "docs" / "resilience.md"


def test_the_documented_rows_are_what_the_bench_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Save those of the real sidecar, which takes as long as it takes."""
    main(["--simulated"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 6 * 3 + 3
    table = DOCS.read_text().split("\n".join(lines[:2]))[1].split("\n\n")[0].strip().splitlines()
    simulated = [row for row in table if "real sidecar" not in row]
    assert len(simulated) > 10
    assert set(simulated) <= set(lines)


@pytest.mark.parametrize("rate", [0.2, 1.0, 10.0])
def test_five_failures_in_a_row_eject_and_one_where_another_sidecar_has_told(rate: float) -> None:
    """A quiet sidecar, which has no good calls to weigh against it."""
    alone = simulate(all_fail, rate, 60.0, 1, well=False)
    told = simulate(all_fail, rate, 60.0, 1, well=False, hint=True)
    assert alone is not None and told is not None
    assert (alone.calls_until_ejected, told.calls_until_ejected) == (5, 1)
    assert told.calls_in_outage < alone.calls_in_outage


def test_what_fails_half_of_the_time_needs_calls_to_be_seen() -> None:
    """Six calls in half a minute are fewer than `minRequests`."""
    assert simulate(every_second, 0.2, 60.0, 1) is None
    assert simulate(every_second, 1.0, 60.0, 1) is not None
    assert simulate(throttled, 1.0, 60.0, 1) is not None


def test_a_real_sidecar_ejects_and_comes_back() -> None:
    found = asyncio.run(measure(200.0, 0.0, {"baseEjectionTime": "1s", "maxEjectionTime": "1s"}))
    assert found.calls_until_ejected >= 5
    assert found.calls_in_outage >= found.calls_until_ejected
