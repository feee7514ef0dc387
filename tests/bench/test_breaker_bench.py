"""The bench of breaker and concurrency runs, in its smallest size, and tells a figure for each case."""

from __future__ import annotations

import re

import pytest

from breaker import main


def test_each_case_tells_its_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    main(calls=2, rounds=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r" *\d+\.\d\d µs  a (call|look) .+", line) for line in lines), lines
