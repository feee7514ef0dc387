"""What holds for all tests: real parts (`tests/parts`), laws that say the same each time, and who goes first."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["parts_fixtures", "kinds_fixtures"]

REAL_PARTS = {"control_plane", "helm", "collector", "node", "node_collector", "postgres", "litellm"}
CAMPAIGN = "test_campaign.py"

# The same examples in each run, however slow the machine is: `--hypothesis-profile=explore` looks for others.
settings.register_profile("repeat", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("repeat"), derandomize=False, max_examples=2_000)
settings.load_profile("repeat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by what a test asks for, not by hand. The campaign goes first: it has the cores whenever no other test does,
    at the lowest priority."""
    items.sort(key=lambda item: item.path.name != CAMPAIGN)
    for item in items:
        if REAL_PARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")
