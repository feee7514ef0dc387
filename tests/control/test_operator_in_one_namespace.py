"""`scope: Namespace`: a team installs Spendmesh for itself, without any cluster-wide reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster_samples import POLICIES
from control_plane import ControlPlane
from kube_api import ApiRefused
from operator_replicas import CHART, RELEASE, installed
from part_process import wait_until
from parts_fixtures import programs_or_skip

Json = dict[str, Any]


def test_a_release_of_one_namespace_governs_it_and_asks_for_nothing_else(helm: Path) -> None:
    """Policies accepted, a pod injected, no right used that was not given, other namespaces left alone."""
    with (
        ControlPlane(programs_or_skip("control-plane")) as plane,
        installed(plane, helm, "team-b", "scope=Namespace", "operator.replicas=1") as cluster,
    ):
        replica = cluster.start("spendmesh-1")
        cluster.wait_ready()
        cluster.lead_webhook_to(replica)
        plane.create_namespace("elsewhere", {"spendmesh.io/inject": "enabled"})
        for namespace in ("team-b", "elsewhere"):
            plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=POLICIES)

        def accepted(namespace: str) -> bool:
            path = f"/apis/spendmesh.io/v1alpha1/namespaces/{namespace}/routingpolicies/support"
            conditions: list[Json] = cluster.get(path).get("status", {}).get("conditions", [])
            return any(one["type"] == "Accepted" and one["status"] == "True" for one in conditions)

        wait_until(lambda: accepted("team-b"), "the policy is accepted", 90, [replica.running])
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "app-0", "labels": {"app": "support"}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        }
        created: list[Json] = []

        def injected() -> bool:
            try:
                created.append(plane.api.call("POST", "/api/v1/namespaces/team-b/pods", pod))
            except ApiRefused as refused:
                assert "failed calling webhook" in str(refused), refused
                return False
            return True

        wait_until(injected, "the webhook is reached", 90, [replica.running])
        assert created[0]["spec"]["initContainers"][0]["name"] == "spendmesh-sidecar"
        foreign = plane.api.call("POST", "/api/v1/namespaces/elsewhere/pods", pod)
        assert not foreign["spec"].get("initContainers") and not accepted("elsewhere")
        assert cluster.denied() == 0, json.dumps(replica.log())


def test_a_release_for_the_cluster_is_the_only_one(helm: Path) -> None:
    """Two that serve one namespace would refuse each other's pods. Releases of a namespace each stand side by side."""
    alone = pytest.raises(AssertionError, match="a release with scope Cluster has to be the only one")
    with ControlPlane(programs_or_skip("control-plane")) as plane:
        with (
            installed(plane, helm, "team-b", "scope=Namespace") as first,
            installed(plane, helm, "team-c", "scope=Namespace", "crds.install=false") as second,
        ):
            second.helm("upgrade", RELEASE, str(CHART), "--reuse-values")
            with alone, installed(plane, helm, "everywhere", "crds.install=false"):
                pass
        for release in (first, second):
            release.helm("uninstall", RELEASE)
        with (
            installed(plane, helm, "system", "crds.install=false"),
            alone,
            installed(plane, helm, "team-d", "scope=Namespace", "crds.install=false"),
        ):
            pass
