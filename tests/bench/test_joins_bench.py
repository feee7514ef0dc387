"""The bench of joins runs, in its smallest size, and tells a figure for each case."""

from __future__ import annotations

import re

import pytest

from joins import main


def test_each_case_tells_its_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    main(calls=2, rounds=1, readers=3, events=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r" *\d+\.\d\d µs  an? (call|event|join) .+", line) for line in lines), lines
