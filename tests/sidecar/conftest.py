"""Fixtures of the sidecar's tests: one event loop, one world that is closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar_world import World


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the sidecar does."""
    return "asyncio"


@pytest.fixture
async def empty_world(tmp_path: Path) -> AsyncIterator[World]:
    """A world that the test starts itself, with objects or settings of its own."""
    world = World(tmp_path)
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture
async def world(empty_world: World) -> World:
    """A running world with the usual policy and a budget that is far away."""
    return await empty_world.start()


@pytest.fixture(scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A running world for all tests of a module that only make calls."""
    world = World(tmp_path_factory.mktemp("world"))
    try:
        yield await world.start()
    finally:
        await world.close()
