"""Fixtures of all tests: the real parts (`tests/parts`). What needs them is marked `real`, to be left out at will."""

from __future__ import annotations

import pytest

pytest_plugins = ["parts_fixtures"]

REAL_PARTS = {"control_plane", "helm", "collector", "node", "node_collector", "postgres"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by what a test asks for, not by hand."""
    for item in items:
        if REAL_PARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")
