"""Fixtures of the kinds: each file of the corpora, and an API server that has our kinds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane import ControlPlane
from kinds_samples import samples
from kinds_server import KindsServer
from part_process import wait_until
from spendmesh_operator.manifests import API_VERSION, KINDS

CRDS = Path(__file__).parents[2] / "crds"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`accepted`, `rejected` and `updated` are each file of the folder of that name."""
    for argument, folder in (("accepted", "accepted"), ("rejected", "rejected"), ("updated", "updates")):
        if argument in metafunc.fixturenames:
            found = samples(folder)
            metafunc.parametrize(argument, list(found.values()), ids=list(found))


@pytest.fixture(scope="module")
def kinds_server(control_plane: ControlPlane) -> Iterator[KindsServer]:
    """The committed crds/ on a real API server, established; removed again so that other tests may install them."""
    namespace = "test-kinds"
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=90s", "-f", str(CRDS))
    control_plane.create_namespace(namespace)
    wait_until(lambda: _kinds_served(control_plane) == KINDS.keys(), "all kinds are served", 60, [])
    yield KindsServer(control_plane, namespace)
    control_plane.kubectl("delete", "--wait", "--timeout=120s", "-f", str(CRDS))


def _kinds_served(plane: ControlPlane) -> set[str]:
    status, answer = plane.api.request("GET", f"/apis/{API_VERSION}")
    return {item["kind"] for item in answer["resources"] if "/" not in item["name"]} if status == 200 else set()


@pytest.fixture(scope="session")
def committed_crds() -> dict[str, dict[str, Any]]:
    """The committed CustomResourceDefinitions by kind."""
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(CRDS.glob("*.yaml"))]
    return {document["spec"]["names"]["kind"]: document for document in documents}
