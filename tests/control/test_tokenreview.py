"""Whose token it is, by a real API server; everything else is refused: `spendmesh_operator.kube.tokenreview`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from control_plane import ControlPlane
from spendmesh_operator.control.auth import AuthError, AuthUnavailable, Forbidden, Unauthenticated
from spendmesh_operator.identity import PodIdentity, ReplicaIdentity
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.tokenreview import CACHE_SECONDS, Replicas, TokenReviewer, identity_of

REPLICAS = Replicas("review-system", "operator")


def create_pod(plane: ControlPlane, namespace: str, name: str, service_account: str = "default") -> str:
    """A pod nobody runs; its uid."""
    spec = {"serviceAccountName": service_account, "containers": [{"name": "app", "image": "app"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    uid: str = plane.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", body)["metadata"]["uid"]
    return uid


def identify(plane: ControlPlane, token: str, kubeconfig: Any = None) -> PodIdentity | ReplicaIdentity:
    async def run() -> PodIdentity | ReplicaIdentity:
        kube = await Kube.connect(str(kubeconfig or plane.kubeconfig))
        try:
            return await TokenReviewer(kube, REPLICAS, lambda: 0.0).identify(token)
        finally:
            await kube.close()

    return asyncio.run(run())


def test_a_pods_projected_token_is_that_pod(control_plane: ControlPlane) -> None:
    control_plane.create_namespace("review-ok")
    uid = create_pod(control_plane, "review-ok", "app-0")
    token = control_plane.token("review-ok", "default", "spendmesh.io", pod=("app-0", uid))
    assert identify(control_plane, token) == PodIdentity("review-ok", "app-0", uid)


def test_an_operators_own_pod_is_a_replica(control_plane: ControlPlane) -> None:
    """Another pod of the same namespace is not: the ServiceAccount counts."""
    control_plane.create_namespace("review-system")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}}
    control_plane.api.call("POST", "/api/v1/namespaces/review-system/serviceaccounts", account)
    uid = create_pod(control_plane, "review-system", "spendmesh-1", "operator")
    token = control_plane.token("review-system", "operator", "spendmesh.io", pod=("spendmesh-1", uid))
    assert identify(control_plane, token) == ReplicaIdentity("spendmesh-1")
    other = create_pod(control_plane, "review-system", "other")
    token = control_plane.token("review-system", "default", "spendmesh.io", pod=("other", other))
    assert identify(control_plane, token) == PodIdentity("review-system", "other", other)


def test_another_audience_is_refused(control_plane: ControlPlane) -> None:
    """The token that every pod has for the API server opens nothing here, nor does one for somebody else."""
    control_plane.create_namespace("review-audience")
    uid = create_pod(control_plane, "review-audience", "app-0")
    for audience in ("", "vault"):
        token = control_plane.token("review-audience", "default", audience, pod=("app-0", uid))
        with pytest.raises(Unauthenticated) as refused:
            identify(control_plane, token)
        assert token not in str(refused.value)


def test_a_forged_or_damaged_token_is_refused(control_plane: ControlPlane) -> None:
    """The signature is checked: another pod's name in the claims does not help."""
    control_plane.create_namespace("review-forged")
    uid = create_pod(control_plane, "review-forged", "app-0")
    token = control_plane.token("review-forged", "default", "spendmesh.io", pod=("app-0", uid))
    header, claims, signature = token.split(".")
    for forged in ("", "x", "a.b.c", f"{header}.{claims}.", f"{header}.{claims[:-4]}AAAA.{signature}", "é" * 20):
        with pytest.raises(Unauthenticated):
            identify(control_plane, forged)
    with pytest.raises(Unauthenticated, match="bearer token"):
        identify(control_plane, "x" * 100_000)


def test_a_token_that_is_not_bound_to_a_pod_is_refused(control_plane: ControlPlane) -> None:
    control_plane.create_namespace("review-unbound")
    token = control_plane.token("review-unbound", "default", "spendmesh.io")
    with pytest.raises(Forbidden, match="not bound to a pod"):
        identify(control_plane, token)


def test_a_deleted_pods_token_is_refused(control_plane: ControlPlane) -> None:
    """Also when a pod of the same name has been created since: the uid is the identity."""
    control_plane.create_namespace("review-deleted")
    uid = create_pod(control_plane, "review-deleted", "app-0")
    token = control_plane.token("review-deleted", "default", "spendmesh.io", pod=("app-0", uid))
    control_plane.kubectl("delete", "pod", "-n", "review-deleted", "app-0", "--grace-period=0", "--force")
    create_pod(control_plane, "review-deleted", "app-0")
    with pytest.raises(Unauthenticated):
        identify(control_plane, token)


def test_without_the_right_to_review_nobody_gets_in(control_plane: ControlPlane) -> None:
    control_plane.create_namespace("review-right")
    uid = create_pod(control_plane, "review-right", "app-0")
    token = control_plane.token("review-right", "default", "spendmesh.io", pod=("app-0", uid))
    with pytest.raises(AuthUnavailable, match="ClusterRole"):
        identify(control_plane, token, control_plane.kubeconfig_for("review-nobody"))


# --- what a review says -----------------------------------------------------------------------------------


def review(**changes: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:team-a:default",
        "extra": {
            "authentication.kubernetes.io/pod-name": ["app-0"],
            "authentication.kubernetes.io/pod-uid": ["u1"],
        },
    }
    return {"authenticated": True, "audiences": ["spendmesh.io"], "user": user, **changes}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({}, Unauthenticated),
        (review(authenticated=False), Unauthenticated),
        (review(audiences=[]), Unauthenticated),
        (review(audiences=["https://kubernetes.default.svc"]), Unauthenticated),
        (review(user={"username": "alice"}), Forbidden),
        (review(user={"username": "system:serviceaccount:a:b"}), Forbidden),
        (review(user={**review()["user"], "extra": {"authentication.kubernetes.io/pod-uid": ["u1", "u2"]}}), Forbidden),
        (review(user={**review()["user"], "username": "system:node:n"}), Forbidden),
    ],
)
def test_a_review_that_names_no_single_pod_is_refused(status: dict[str, Any], error: type[AuthError]) -> None:
    """An API server that does not know audiences answers without them: that is a refusal too."""
    with pytest.raises(error):
        identity_of(status, REPLICAS)


class CountingKube:
    """Answers each review with a canned status; real reviews are tested above."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.asked += 1
        assert audience == "spendmesh.io"
        return self.answers.pop(0)


def test_an_identity_is_remembered_for_a_minute_and_a_refusal_is_not() -> None:
    now = [0.0]
    kube = CountingKube(review(), review(authenticated=False), review())
    reviewer = TokenReviewer(kube, REPLICAS, lambda: now[0])  # type: ignore[arg-type]

    async def run() -> None:
        await reviewer.identify("t")
        now[0] = CACHE_SECONDS - 0.001
        await reviewer.identify("t")
        assert kube.asked == 1
        now[0] = CACHE_SECONDS
        with pytest.raises(Unauthenticated):
            await reviewer.identify("t")
        await reviewer.identify("t")
        assert kube.asked == 3

    asyncio.run(run())


def test_tokens_are_not_kept_as_they_are() -> None:
    """A dump of the operator's memory holds digests only."""
    reviewer = TokenReviewer(CountingKube(review()), REPLICAS, lambda: 0.0)  # type: ignore[arg-type]
    asyncio.run(reviewer.identify("canary-token"))
    assert "canary-token" not in json.dumps([repr(key) for key in reviewer._known])
