"""The control plane that other tests stand on is a real one: its version, its authorization, its tokens."""

from __future__ import annotations

import json
import subprocess

import pytest

import parts
from control_plane import ControlPlane
from kube_api import ApiRefused


def test_the_api_server_reports_its_version_in_full(control_plane: ControlPlane) -> None:
    """Clients parse this version: Helm chooses API versions by it, and a build without one says v0.0.0."""
    program = parts.ensure("control-plane")["kube-apiserver"]
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = json.loads(control_plane.kubectl("get", "--raw", "/version").stdout)
    assert said.split() == ["Kubernetes", version["gitVersion"]]
    assert version["gitVersion"].startswith(f"v{version['major']}.{version['minor']}.")
    assert int(version["minor"]) >= 30


def test_a_user_without_a_role_is_refused(control_plane: ControlPlane) -> None:
    """RBAC is on: a certificate alone allows nothing."""
    stranger = control_plane.kubeconfig_for("stranger", ["strangers"])
    answer = control_plane.kubectl("get", "secrets", "-A", kubeconfig=stranger, check=False)
    assert answer.returncode != 0
    assert 'User "stranger" cannot list resource "secrets"' in answer.stderr


def test_a_user_gets_what_the_groups_role_allows(control_plane: ControlPlane) -> None:
    """The groups of the certificate are the groups that RBAC sees."""
    control_plane.kubectl("create", "clusterrole", "cp-readers", "--verb=list", "--resource=configmaps")
    control_plane.kubectl(
        "create", "clusterrolebinding", "cp-readers", "--clusterrole=cp-readers", "--group=cp-readers"
    )
    reader = control_plane.kubeconfig_for("someone", ["cp-readers"])
    assert "yes" in control_plane.kubectl("auth", "can-i", "list", "configmaps", kubeconfig=reader).stdout
    assert "no" in control_plane.kubectl("auth", "can-i", "list", "secrets", kubeconfig=reader, check=False).stdout


def test_a_token_names_the_pod_it_is_bound_to_and_dies_with_it(control_plane: ControlPlane) -> None:
    """What the control server trusts: TokenReview tells audience, ServiceAccount and pod, and refuses once the pod is
    gone."""
    control_plane.create_namespace("cp-tokens")
    spec = {"containers": [{"name": "main", "image": "none"}], "terminationGracePeriodSeconds": 0}
    pods = "/api/v1/namespaces/cp-tokens/pods"
    pod = control_plane.api.call("POST", pods, {"metadata": {"name": "holder"}, "spec": spec})
    uid = pod["metadata"]["uid"]
    # Two tokens: the API server remembers for ten seconds which token it found good.
    token, unseen = (
        control_plane.token("cp-tokens", "default", "spendmesh-test", pod=("holder", uid)) for _ in range(2)
    )

    def review(token: str, audience: str) -> dict[str, object]:
        body = {"spec": {"token": token, "audiences": [audience]}}
        status: dict[str, object] = control_plane.api.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)[
            "status"
        ]
        return status

    accepted = review(token, "spendmesh-test")
    user = accepted["user"]
    assert isinstance(user, dict)
    assert accepted["authenticated"] is True
    assert user["username"] == "system:serviceaccount:cp-tokens:default"
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]
    assert not review(token, "another-audience").get("authenticated")

    control_plane.api.call("DELETE", f"{pods}/holder")
    assert not review(unseen, "spendmesh-test").get("authenticated")


def test_a_refused_object_is_told_with_status_and_message(control_plane: ControlPlane) -> None:
    """Tests read why the API server refused from the exception."""
    with pytest.raises(ApiRefused) as refused:
        control_plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "Not_A_Name"}})
    assert refused.value.status == 422
    assert "metadata.name" in str(refused.value)
