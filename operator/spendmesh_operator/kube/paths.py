"""Where objects live in the Kubernetes API, as URL paths. Knows no client."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

SPENDMESH: Final = "apis/spendmesh.io/v1alpha1"
CORE: Final = "api/v1"
APPS: Final = "apis/apps/v1"
BATCH: Final = "apis/batch/v1"
COORDINATION: Final = "apis/coordination.k8s.io/v1"
EVENTS: Final = "apis/events.k8s.io/v1"

ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105  a path

PLURALS: Final = {
    "ModelProvider": "modelproviders",
    "RoutingPolicy": "routingpolicies",
    "ModelBudget": "modelbudgets",
    "RetryBudget": "retrybudgets",
    "BudgetLedger": "budgetledgers",
}
"""Kinds of `spendmesh.io` and their names in paths."""


def collection(group_version: str, plural: str, namespace: str = "") -> str:
    """All objects of a kind, of one namespace or (empty) of the cluster."""
    inside = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
    return f"/{group_version}/{inside}{plural}"


def item(group_version: str, plural: str, namespace: str, name: str, subresource: str = "") -> str:
    """One object, or a subresource of it. An empty namespace is for kinds that have none."""
    path = f"{collection(group_version, plural, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def webhook_configuration(name: str) -> str:
    """A MutatingWebhookConfiguration."""
    return item("apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "", name)
