"""Fixtures of the cluster tests: one cluster and one installation for the whole run, and what to show on a failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from cluster_access import Cluster
from cluster_mesh import APP_IMAGE, Mesh, examples_for_standin, render
from go_toolchain import PartsUnavailable
from node import Node
from parts_fixtures import programs_or_skip, skip_or_fail

ACCOUNTS = (
    "team-a",
    "plain",
    "budget",
    "leader",
    "killed",
    "storm",
    "edit",
    "away",
    "away-budget",
    "jobs",
    "probe",
    "race",
    "race-on-postgres",
    "shared-storm",
)
"""Namespaces with an account of their own at the stand-in, so that each test's sums are its own."""


SETUP_SECONDS = 900
"""For one test with its fixtures: the first of a cold run builds four images on two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of this folder have their own time limit."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(SETUP_SECONDS))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of KUBECONFIG if that is set, else a real node of this run."""
    if given := os.environ.get("KUBECONFIG"):
        try:
            cluster = Cluster.of_user(Path(given).resolve())
        except PartsUnavailable as unavailable:
            skip_or_fail(str(unavailable))
    else:
        programs_or_skip("node", "helm", "collector")
        node: Node = request.getfixturevalue("node")
        cluster = Cluster.of_node(node)
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def mesh(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Spendmesh with two replicas by `helm install`, the stand-in and the Collector; team-a has no policy yet."""
    mesh = Mesh(cluster, ACCOUNTS)
    if os.environ.get("KUBECONFIG"):
        if cluster.node is None and mesh.installed():
            skip_or_fail("Spendmesh is installed on this cluster already: the tests would uninstall it")
        mesh.wipe()
    request.config.stash[MESH] = mesh
    mesh.prepare()
    mesh.install()
    mesh.wait_surroundings()
    yield mesh
    if os.environ.get("KUBECONFIG") and cluster.node is None:
        mesh.wipe()


@pytest.fixture(scope="session")
def support(mesh: Mesh) -> Mesh:
    """team-a with `examples/support` applied and two pods of its Deployment running, each with its sidecar."""
    mesh.namespace("team-a")
    mesh.cluster.apply(examples_for_standin())
    mesh.cluster.apply(render("support.yaml", image=APP_IMAGE))
    mesh.cluster.kubectl("-n", "team-a", "rollout", "status", "deployment/support", "--timeout=120s")
    return mesh


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's faults end with it."""
    yield
    mesh = request.config.stash.get(MESH, None)
    if mesh is not None and "mesh" in request.fixturenames:
        mesh.faults()


@pytest.fixture
def show() -> Callable[[str, str], None]:
    """Appends what a command printed to the file that SPENDMESH_SHOW names, if it names one."""

    def append(command: str, printed: str) -> None:
        if path := os.environ.get("SPENDMESH_SHOW"):
            with Path(path).open("a") as file:
                file.write(f"$ {command}\n{printed.rstrip()}\n\n")

    return append


MESH = pytest.StashKey[Mesh]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds logs and Events to the report of a failed test."""
    report = yield
    mesh = item.config.stash.get(MESH, None)
    if report.failed and mesh is not None:
        try:
            report.sections.append(("cluster", mesh.report()))
        except Exception as error:  # noqa: BLE001  the report is extra: the failure itself must be shown
            report.sections.append(("cluster", f"could not be asked: {error}"))
    return report
