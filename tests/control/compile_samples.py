"""Objects as the API server gives them, for tests of index, compile and status. Valid unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.index import OPERATOR_NAMESPACE, Index, ObjectKey
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.policy import Policy

NAMESPACE = "team-a"
SETTINGS = CompileSettings(cluster="test")
Raw = dict[str, Any]


def made(
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    *,
    day: int = 1,
    generation: int = 1,
    uid: str = "",
    namespace: str = NAMESPACE,
) -> Raw:
    """An object of ours, created on a day of January 2026."""
    return {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"{kind}-{name}",
            "generation": generation,
            "creationTimestamp": f"2026-01-{day:02d}T00:00:00Z",
        },
        "spec": dict(spec),
    }


def provider(name: str = "openai", dialect: str = "OpenAI", *, keyed: bool = True, **spec: Any) -> Raw:
    """A ModelProvider with the built-in prices of its dialect's inventor."""
    host = {"OpenAI": "https://api.openai.com/v1", "Anthropic": "https://api.anthropic.com"}[dialect]
    reference = {"name": "model-keys", "key": name}
    auth = {"type": "APIKey", "apiKey": {"secretKeyRef": reference}} if keyed else {"type": "None"}
    return made("ModelProvider", name, {"dialect": dialect, "baseURL": host, "auth": auth, **spec})


def section(
    alias: str = "openai", *, tiers: Mapping[str, str] | None = None, default: str = "", to: str = ""
) -> dict[str, Any]:
    """The section providers + tiers + defaultTier: one target for each tier, from its model."""
    models = tiers or {"economy": "gpt-5-nano", "standard": "gpt-5-mini", "premium": "gpt-5"}
    return {
        "providers": [{"name": alias, "ref": {"name": to or alias}}],
        "tiers": [
            {"name": tier, "targets": [{"name": "only", "provider": alias, "model": model}]}
            for tier, model in models.items()
        ],
        "defaultTier": default or next(iter(models)),
    }


def routing(name: str = "route", *, day: int = 1, generation: int = 1, **spec: Any) -> Raw:
    """A RoutingPolicy; with the usual section unless another field says what it is about."""
    sections = {"providers", "match", "rules", "bounds"}
    return made(
        "RoutingPolicy", name, spec if sections & spec.keys() else section() | spec, day=day, generation=generation
    )


def budget(name: str = "team", *, day: int = 1, generation: int = 1, amount: Any = "10.00", **spec: Any) -> Raw:
    """A ModelBudget with one monthly limit in USD, or with `limits`."""
    limit = {"name": "monthly", "currency": "USD", "amount": amount, "window": {"type": "Calendar", "period": "Month"}}
    return made("ModelBudget", name, {"limits": [limit], **spec}, day=day, generation=generation)


def organisation_budget(name: str = "org", *, selector: Any = None, amount: Any = "100.00", **spec: Any) -> Raw:
    """A ModelBudget of the operator's namespace for the namespaces of `selector`; for all without one."""
    whole = budget(name, amount=amount, namespaceSelector=selector or {}, **spec)
    whole["metadata"]["namespace"] = OPERATOR_NAMESPACE
    return whole


def namespace(name: str = NAMESPACE, **labels: str) -> Raw:
    """A Namespace with labels."""
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def retries(name: str = "retry", *, day: int = 1, attempts: int = 1, **spec: Any) -> Raw:
    """A RetryBudget that differs from others by its attempts."""
    return made("RetryBudget", name, {"retry": {"attempts": attempts}, **spec}, day=day)


def pod(name: str = "web-1", *, deployment: str = "web", namespace: str = NAMESPACE, **labels: str) -> Raw:
    """A pod of a Deployment, as its ReplicaSet makes it; without one if `deployment` is empty."""
    labels = labels or {"app": "web"}
    owners = [{"kind": "ReplicaSet", "name": f"{deployment}-abc12", "controller": True}] if deployment else []
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "labels": labels | ({"pod-template-hash": "abc12"} if deployment else {}),
            "ownerReferences": owners,
        },
    }


def indexed(*raws: Raw, secrets_complete: bool = False) -> Index:
    """An index that has seen `raws` in this order."""
    index = Index(secrets_complete=secrets_complete)
    for raw in raws:
        index.add(raw)
    return index


def compiled(*raws: Raw, previous: Compiled | None = None, settings: CompileSettings = SETTINGS) -> Compiled:
    """What compile makes of `raws`."""
    return compile_index(indexed(*raws), settings, load_prices(), previous)


def policy_of(result: Compiled, pod_name: str = "web-1") -> Policy:
    """The policy of a pod that is known."""
    found = result.policy_of(f"uid-{pod_name}")
    assert found is not None
    return found.policy


def condition(result: Compiled, kind: str, name: str, type_: str, namespace: str = NAMESPACE) -> tuple[str, str]:
    """Status and reason of an object's condition."""
    return conditions(result, kind, name, namespace)[type_][:2]


def message(result: Compiled, kind: str, name: str, type_: str, namespace: str = NAMESPACE) -> str:
    """Message of an object's condition."""
    return conditions(result, kind, name, namespace)[type_][2]


def conditions(result: Compiled, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, tuple[str, str, str]]:
    """All conditions of an object: status, reason, message."""
    verdict = result.verdicts[ObjectKey(kind, namespace, name)]
    return {finding.type: (finding.status, finding.reason, finding.message) for finding in verdict.conditions}


def counts(result: Compiled, kind: str, name: str, namespace: str = NAMESPACE) -> tuple[int, int]:
    """Matched and effective workloads of an object."""
    verdict = result.verdicts[ObjectKey(kind, namespace, name)]
    return len(verdict.matched), len(verdict.effective)
