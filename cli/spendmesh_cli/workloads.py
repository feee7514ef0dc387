"""Workload manifests to the pods that they would have, so that `check` can say what applies to whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
INJECT = "spendmesh.io/inject"


def pod_of(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pod of a workload as the API server would show it; None where the manifest has no pod template."""
    kind, metadata = raw["kind"], raw["metadata"]
    if kind == "Pod":
        return {"kind": "Pod", "metadata": {**metadata, "uid": f"Pod/{metadata['namespace']}/{metadata['name']}"}}
    spec = _mapping(raw.get("spec"))
    if kind == "CronJob":
        spec = _mapping(_mapping(spec.get("jobTemplate")).get("spec"))
    template = _mapping(spec.get("template"))
    if not template:
        return None
    name = f"{metadata['name']} ({kind})"
    return {
        "kind": "Pod",
        "metadata": {
            "namespace": metadata["namespace"],
            "name": name,
            "uid": f"{kind}/{metadata['namespace']}/{metadata['name']}",
            "labels": _mapping(_mapping(template.get("metadata")).get("labels")),
            "ownerReferences": [{"controller": True, "kind": kind, "name": metadata["name"]}],
        },
    }


def injected(pod: Mapping[str, Any], namespace_labels: Mapping[str, str] | None) -> bool:
    """Whether the pod gets a sidecar. A namespace that is not among the manifests is taken to be enabled."""
    own = (pod["metadata"].get("labels") or {}).get(INJECT)
    if own is not None:
        return bool(own == "enabled")
    return namespace_labels is None or namespace_labels.get(INJECT) == "enabled"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
