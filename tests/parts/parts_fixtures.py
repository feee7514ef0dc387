"""pytest fixtures over the real parts. Loaded by `pytest_plugins = ["parts_fixtures"]` in tests/conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

import parts
from control_plane import ControlPlane
from go_toolchain import PartsUnavailable
from litellm_library import library
from node import Node
from otel_collector import Collector
from postgres import Postgres, wheel


def programs_or_skip(*groups: str) -> dict[str, Path]:
    """The programs of these groups. Where they cannot be had the test is skipped with the reason, or fails if CI is
    `true`."""
    try:
        return parts.ensure(*groups)
    except PartsUnavailable as unavailable:
        skip_or_fail(str(unavailable))


def skip_or_fail(reason: str) -> NoReturn:
    """Skips the test with the reason, or fails it if CI is `true`: there nothing is skipped."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"in CI nothing is skipped: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """One real API server for the whole run: name your namespaces and users after your test. Its files stay when a
    test failed."""
    with ControlPlane(programs_or_skip("control-plane")) as running:
        yield running
        if request.session.testsfailed:
            running.keep_files = True
            print(f"\nthe control plane's logs are kept in {running.folder}")


@pytest.fixture(scope="session")
def helm() -> Path:
    """The path of a real Helm."""
    return programs_or_skip("helm")["helm"]


@pytest.fixture(scope="session")
def litellm() -> Path:
    """The folder with LiteLLM's packages; `litellm_library.python` runs with it."""
    programs_or_skip("litellm")
    return library(parts.open_cache().root)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """One real PostgreSQL for the whole run: make a database for your test."""
    package = wheel()
    if package is None:
        skip_or_fail("PostgreSQL's wheel is not installed: make setup")
    with Postgres(package) as running:
        yield running
        if request.session.testsfailed:
            print(running.log[-2000:])


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A real OpenTelemetry Collector of the test's own, started empty."""
    with Collector(programs_or_skip("collector")["otelcol"]) as running:
        yield running


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """One real node for the whole run, gone with it. Its logs stay when a test failed."""
    programs_or_skip("node")
    running = Node.up(f"t{os.getpid()}", with_parent=True)
    try:
        yield running
    finally:
        running.down(keep_logs=bool(request.session.testsfailed))


@pytest.fixture
def node_collector(node: Node) -> Iterator[Collector]:
    """A real Collector on the machine, at an address that pods of the node reach."""
    with Collector(programs_or_skip("collector")["otelcol"], node.host_address) as running:
        yield running
