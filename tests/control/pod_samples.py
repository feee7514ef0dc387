"""Pods as users write them, for the tests of injection. No fixtures here: plain builders."""

from __future__ import annotations

import copy
from typing import Any

from spendmesh_operator.injection import InjectionConfig, ProviderKey

Json = dict[str, Any]

CONFIG = InjectionConfig(
    image="registry.example/spendmesh-sidecar:0.1.0",
    control_url="https://spendmesh-control.spendmesh-system.svc",
    control_ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    otlp_endpoint="http://collector.observability.svc:4318",
)
KEYS = (ProviderKey(key_name="openai", secret="model-keys", item="openai"),)
ENABLED = {"spendmesh.io/inject": "enabled"}


def pod(**spec: Any) -> Json:
    """A pod with one container; `spec` adds to or replaces fields of its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app-0", "namespace": "team-a", "labels": {"app": "support"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}], **copy.deepcopy(spec)},
    }


def as_server_returns(mutated: Json) -> Json:
    """The same pod with what an API server and the ServiceAccount admission plugin add to it."""
    changed = copy.deepcopy(mutated)
    spec = changed["spec"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("volumeMounts", []).append(
            {
                "name": "kube-api-access-abcde",
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            }
        )
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                container[probe] = {"successThreshold": 1, **container[probe]}
                container[probe]["httpGet"] = {"scheme": "HTTP", **container[probe]["httpGet"]}
        for entry in container.get("env", []):
            if "fieldRef" in entry.get("valueFrom", {}):
                entry["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for volume in spec["volumes"]:
        for kind in ("projected", "downwardAPI"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)
        for item in volume.get("downwardAPI", {}).get("items", []):
            item["fieldRef"].setdefault("apiVersion", "v1")
    spec["volumes"].append({"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": []}})
    return changed


def environment(container: Json) -> dict[str, Any]:
    """Environment by name; a value, or the source it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}
