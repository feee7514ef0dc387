"""Fixtures of all tests: the real parts (`tests/parts`), and names of what was skipped in the last lines."""

from __future__ import annotations

pytest_plugins = ["parts_fixtures"]
