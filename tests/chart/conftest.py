"""Rendering the chart with the real Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "spendmesh"
Json = dict[str, Any]
Render = Callable[..., list[Json]]


@pytest.fixture(scope="session")
def chart() -> Path:
    """The chart's folder."""
    return CHART


@pytest.fixture(scope="session")
def helm_template(helm: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm template` with `--set` values; the caller looks at the exit status."""

    def run(*settings: str, namespace: str = "spendmesh-system", version: str = "1.35.0") -> Any:
        command = [str(helm), "template", "spendmesh", str(CHART), "-n", namespace, "--kube-version", version]
        for setting in settings:
            command += ["--set-json", setting]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(scope="session")
def render(helm_template: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects that the chart makes of some values."""

    def run(*settings: str, **options: str) -> list[Json]:
        done = helm_template(*settings, **options)
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return run
