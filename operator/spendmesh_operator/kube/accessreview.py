"""
Whether a person may read or correct a budget: two questions to the API server. Implements `control.people.Authorizer`.

Answers are not remembered: people ask seldom, and a right that was taken away must end at once.
"""

from __future__ import annotations

from typing import Any, Final

from spendmesh_operator.control.auth import AuthUnavailable, Forbidden, Unauthenticated
from spendmesh_operator.control.people import Right
from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Kube, KubeError
from spendmesh_operator.kube.tokenreview import TOKEN_BYTES_MAX
from spendmesh_operator.manifests import GROUP
from spendmesh_sidecar.protocol import AUDIENCE

_VERBS: Final[dict[Right, dict[str, str]]] = {
    "read": {"verb": "get"},
    "correct": {"verb": "create", "subresource": "corrections"},
}


class AccessReviewer:
    """TokenReview for the person, SubjectAccessReview for the right."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def authorize(self, token: str, right: Right, namespace: str, name: str) -> str:
        """The person's name. Raises Unauthenticated, Forbidden or AuthUnavailable."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            raise Unauthenticated(
                f"send a token for audience {AUDIENCE}: kubectl create token NAME --audience {AUDIENCE}"
            )
        try:
            review = await self._kube.review_token(token, AUDIENCE)
            user = review.get("user") or {}
            if not review.get("authenticated") or AUDIENCE not in (review.get("audiences") or []):
                raise Unauthenticated(
                    f"the API server does not accept this token for audience {AUDIENCE}: "
                    f"kubectl create token NAME --audience {AUDIENCE}"
                )
            answer = await self._kube.create(paths.ACCESS_REVIEWS, _question(user, right, namespace, name))
        except KubeError as error:
            raise AuthUnavailable(f"the API server could not be asked for your rights: {error}") from error
        person = str(user.get("username", ""))
        if not (answer.get("status") or {}).get("allowed"):
            raise Forbidden(_refusal(person, right, namespace, name))
        return person


def _question(user: dict[str, Any], right: Right, namespace: str, name: str) -> dict[str, Any]:
    attributes = {"group": GROUP, "resource": "modelbudgets", **_VERBS[right]}
    if right == "read" and not name:
        attributes["verb"] = "list"
    attributes |= {key: value for key, value in (("namespace", namespace), ("name", name)) if value}
    spec: dict[str, Any] = {"user": user.get("username", ""), "resourceAttributes": attributes}
    spec |= {key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def _refusal(person: str, right: Right, namespace: str, name: str) -> str:
    what = f"modelbudgets.{GROUP}" if right == "read" else f"modelbudgets.{GROUP}/corrections"
    verb = "create" if right == "correct" else "get" if name else "list"
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    return f"{person} may not {verb} {what} {where}: ask for a role that allows it"
