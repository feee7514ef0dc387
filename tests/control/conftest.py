"""A real API server with our kinds, for the tests of what touches Kubernetes."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane import ControlPlane

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kinds(control_plane: ControlPlane) -> ControlPlane:
    """The shared control plane, with the CRDs of this tree."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=90s", "-f", str(ROOT / "crds"))
    return control_plane
