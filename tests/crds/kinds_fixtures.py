"""pytest fixtures over an API server that has our kinds. Loaded by `pytest_plugins` in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane import ControlPlane
from kinds_server import KindsServer
from part_process import wait_until
from spendmesh_operator.manifests import API_VERSION, KINDS

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def kinds(control_plane: ControlPlane) -> ControlPlane:
    """The shared control plane, with the CRDs of this tree: established, served, described, and known to kubectl."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=90s", "-f", str(CRDS))
    wait_until(lambda: _served(control_plane) >= KINDS.keys(), "all kinds are served", 90)
    wait_until(lambda: _described(control_plane) >= KINDS.keys(), "all kinds are described", 90)
    control_plane.forget_discovery()
    return control_plane


@pytest.fixture(scope="module")
def kinds_server(kinds: ControlPlane) -> Iterator[KindsServer]:
    """The kinds in a namespace of their own; nothing is left there for those who look at all namespaces."""
    namespace = "test-kinds"
    kinds.create_namespace(namespace)
    yield KindsServer(kinds, namespace)
    for kind in KINDS.values():
        kinds.api.call("DELETE", f"/apis/{API_VERSION}/namespaces/{namespace}/{kind.CRD.plural}")


def _served(plane: ControlPlane) -> set[str]:
    status, answer = plane.api.request("GET", f"/apis/{API_VERSION}")
    return {item["kind"] for item in answer["resources"] if "/" not in item["name"]} if status == 200 else set()


def _described(plane: ControlPlane) -> set[str]:
    """What `kubectl explain` reads, which follows a moment later."""
    status, answer = plane.api.request("GET", f"/openapi/v3/apis/{API_VERSION}")
    return {name.rpartition(".")[2] for name in answer["components"]["schemas"]} if status == 200 else set()
