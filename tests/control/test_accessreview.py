"""Who may read a bill or book a correction, by a real API server's RBAC: `spendmesh_operator.kube.accessreview`."""

from __future__ import annotations

import asyncio

import pytest

from control_plane import ControlPlane
from spendmesh_operator.control.auth import AuthError, AuthUnavailable, Forbidden, Unauthenticated
from spendmesh_operator.control.people import Right
from spendmesh_operator.kube.accessreview import AccessReviewer
from spendmesh_operator.kube.client import Kube

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUDIENCE = "spendmesh.io"


def person(plane: ControlPlane, namespace: str, name: str, *rules: tuple[str, str], audience: str = AUDIENCE) -> str:
    """A ServiceAccount that may do (verb, resource) in its namespace; its token."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    plane.api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    if rules:
        role = [{"apiGroups": ["spendmesh.io"], "resources": [what], "verbs": [verb]} for verb, what in rules]
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": role}
        plane.api.call("POST", f"{RBAC}/namespaces/{namespace}/roles", body)
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        plane.api.call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", binding)
    return plane.token(namespace, name, audience)


def ask(plane: ControlPlane, token: str, right: Right, namespace: str, name: str = "") -> str | type[AuthError]:
    """Whose right it is, or why not."""

    async def run() -> str | type[AuthError]:
        kube = await Kube.connect(str(plane.kubeconfig))
        try:
            return await AccessReviewer(kube).authorize(token, right, namespace, name)
        except AuthError as error:
            assert not token or token not in str(error)
            return type(error)
        finally:
            await kube.close()

    return asyncio.run(run())


def test_who_may_read_the_budget_reads_its_bill_and_nobody_elses(control_plane: ControlPlane) -> None:
    """`get` opens one budget, `list` all of the namespace; neither opens another namespace, or all of them."""
    control_plane.create_namespace("bill-a")
    control_plane.create_namespace("bill-b")
    one = person(control_plane, "bill-a", "reader", ("get", "modelbudgets"))
    all_of_it = person(control_plane, "bill-a", "lister", ("list", "modelbudgets"))
    who = "system:serviceaccount:bill-a:reader"

    assert ask(control_plane, one, "read", "bill-a", "team") == who
    assert ask(control_plane, one, "read", "bill-a") is Forbidden
    assert ask(control_plane, all_of_it, "read", "bill-a") == who.replace("reader", "lister")
    for token in (one, all_of_it):
        assert ask(control_plane, token, "read", "bill-b", "team") is Forbidden
        assert ask(control_plane, token, "read", "") is Forbidden


def test_a_correction_is_a_right_of_its_own(control_plane: ControlPlane) -> None:
    """Who may write budgets may not thereby declare that money was not spent."""
    control_plane.create_namespace("bill-c")
    writer = person(control_plane, "bill-c", "writer", ("create", "modelbudgets"), ("get", "modelbudgets"))
    auditor = person(control_plane, "bill-c", "auditor", ("create", "modelbudgets/corrections"))

    assert ask(control_plane, writer, "correct", "bill-c", "team") is Forbidden
    assert ask(control_plane, auditor, "correct", "bill-c", "team") == "system:serviceaccount:bill-c:auditor"


def test_a_token_for_something_else_opens_nothing(control_plane: ControlPlane) -> None:
    """Nor one that is forged, or none."""
    control_plane.create_namespace("bill-d")
    other = person(control_plane, "bill-d", "other", ("list", "modelbudgets"), audience="vault")

    for token in (other, "forged", ""):
        assert ask(control_plane, token, "read", "bill-d") is Unauthenticated


def test_an_operator_that_may_not_ask_says_so(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the ClusterRole nobody is let in, and the sentence names the failed question."""
    kubeconfig = control_plane.kubeconfig_for("nobody")

    async def run() -> None:
        kube = await Kube.connect(str(kubeconfig))
        try:
            await AccessReviewer(kube).authorize("t", "read", "bill-a", "team")
        finally:
            await kube.close()

    with pytest.raises(AuthUnavailable, match="could not be asked for your rights"):
        asyncio.run(run())
