"""The container and the volumes that a pod gets; what its own containers get is in `wiring`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spendmesh_operator.injection import names
from spendmesh_sidecar.protocol import AUDIENCE

Json = dict[str, Any]

TOKEN_SECONDS = 3600
"""Kubelet renews at 80 %. One hour as Istio and Linkerd are well above, TokenRequest's floor is ten minutes."""
STATE_SIZE = "32Mi"
"""In memory with durability Process, so part of the container's memory limit. A log and its successor take 4 MiB."""
READY_SECONDS_MAX = 120
"""How long a node may take to start the sidecar before kubelet restarts it; ready takes about a second."""

_QUANTITY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?(m|k|M|G|Ki|Mi|Gi)?")


class InvalidTunable(ValueError):
    """An annotation of the pod that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, kw_only=True)
class InjectionConfig:
    """What is the same for every pod of a cluster. Comes from the chart's values."""

    image: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    control_url: str
    """`https://` address of the control server as pods reach it."""
    control_ca: str
    """PEM of the authority (or authorities, while one replaces another) that signs the control server's certificate."""
    durability: Literal["Process", "Node"] = "Process"
    """What the ledger's log survives: Process keeps it in memory, Node on the node's disk, where every call waits."""
    otlp_endpoint: str = ""
    """Base URL of an OTLP/HTTP receiver; empty: the sidecar sends no spans."""
    cpu_request: str = "10m"
    cpu_limit: str = ""
    """Empty: none. A limit on CPU adds latency to every call while nothing else needs the CPU."""
    memory_request: str = "64Mi"
    memory_limit: str = "192Mi"


@dataclass(frozen=True, kw_only=True, order=True)
class ProviderKey:
    """One key that the sidecar finds at `SPENDMESH_KEYS_DIR/key_name`."""

    key_name: str
    secret: str
    """A Secret of the pod's own namespace."""
    item: str
    """The one item of it that is mounted."""


def sidecar_container(config: InjectionConfig, annotations: Mapping[str, str]) -> Json:
    """
    The native sidecar, restricted as Pod Security Standards ask.

    It gets nothing of the application's environment, HTTP_PROXY neither: it calls providers directly.
    Defaults of the API server that matter for comparison (ports' protocol) are written out.
    Raises InvalidTunable.
    """
    probe = {"port": names.PORT_ADMIN_NAME}
    return {
        "name": names.CONTAINER,
        "image": config.image,
        "imagePullPolicy": config.pull_policy,
        "restartPolicy": "Always",
        "env": _environment(config),
        "ports": [{"name": names.PORT_ADMIN_NAME, "containerPort": names.PORT_ADMIN, "protocol": "TCP"}],
        "resources": _resources(config, annotations),
        "startupProbe": {
            "httpGet": {"path": "/readyz", **probe},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": READY_SECONDS_MAX,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", **probe},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", **probe},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": names.USER_ID,
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": names.VOLUME_TOKEN, "mountPath": names.DIRECTORY_TOKEN, "readOnly": True},
            {"name": names.VOLUME_KEYS, "mountPath": names.DIRECTORY_KEYS, "readOnly": True},
            {"name": names.VOLUME_STATE, "mountPath": names.DIRECTORY_STATE},
            {"name": names.VOLUME_BOOTSTRAP, "mountPath": names.DIRECTORY_BOOTSTRAP, "readOnly": True},
        ],
    }


def sidecar_volumes(keys: Sequence[ProviderKey], durability: Literal["Process", "Node"]) -> list[Json]:
    """Token, keys, state and bootstrap copy. No one but the sidecar mounts them."""
    medium = {"medium": "Memory"} if durability == "Process" else {}
    return [
        {
            "name": names.VOLUME_TOKEN,
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "audience": AUDIENCE,
                            "expirationSeconds": TOKEN_SECONDS,
                            "path": "token",
                        }
                    }
                ]
            },
        },
        {"name": names.VOLUME_KEYS, "projected": {"sources": [_key_source(key) for key in sorted(set(keys))]}},
        {"name": names.VOLUME_STATE, "emptyDir": {**medium, "sizeLimit": STATE_SIZE}},
        {
            "name": names.VOLUME_BOOTSTRAP,
            "downwardAPI": {
                "items": [
                    {
                        "path": "bootstrap",
                        "fieldRef": {"fieldPath": f"metadata.annotations['{names.ANNOTATION_BOOTSTRAP}']"},
                    }
                ]
            },
        },
    ]


def _key_source(key: ProviderKey) -> Json:
    # optional: a missing Secret is reported by the sidecar, it does not hold up the pod (contract §3).
    return {
        "secret": {"name": key.secret, "items": [{"key": key.item, "path": key.key_name}], "optional": True},
    }


def _environment(config: InjectionConfig) -> list[Json]:
    def field(name: str, path: str) -> Json:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    environment = [
        field("POD_IP", "status.podIP"),
        field("SPENDMESH_POD_NAME", "metadata.name"),
        field("SPENDMESH_POD_NAMESPACE", "metadata.namespace"),
        field("SPENDMESH_POD_UID", "metadata.uid"),
        {"name": "SPENDMESH_LISTEN", "value": f"127.0.0.1:{names.PORT_DATA}"},
        {"name": "SPENDMESH_ADMIN_LISTEN", "value": f"$(POD_IP):{names.PORT_ADMIN}"},
        {"name": "SPENDMESH_CONTROL_URL", "value": config.control_url},
        {"name": "SPENDMESH_CONTROL_CA", "value": config.control_ca},
        {"name": "SPENDMESH_TOKEN_FILE", "value": f"{names.DIRECTORY_TOKEN}/token"},
        {"name": "SPENDMESH_KEYS_DIR", "value": names.DIRECTORY_KEYS},
        {"name": "SPENDMESH_STATE_DIR", "value": names.DIRECTORY_STATE},
        {"name": "SPENDMESH_BOOTSTRAP_FILE", "value": f"{names.DIRECTORY_BOOTSTRAP}/bootstrap"},
    ]
    if config.durability != "Process":
        environment.append({"name": "SPENDMESH_DURABILITY", "value": config.durability})
    if config.otlp_endpoint:
        environment.append({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": config.otlp_endpoint})
    return environment


def _resources(config: InjectionConfig, annotations: Mapping[str, str]) -> Json:
    def pick(annotation: str, default: str) -> str:
        value = annotations.get(annotation, default)
        if value and not _QUANTITY.fullmatch(value):
            raise InvalidTunable(
                f"annotation {annotation} is {value[:40]!r}: write a quantity such as 100m or 128Mi, or remove it"
            )
        return value

    requests = {
        "cpu": pick(names.ANNOTATION_CPU, config.cpu_request),
        "memory": pick(names.ANNOTATION_MEMORY, config.memory_request),
    }
    limits = {
        "cpu": pick(names.ANNOTATION_CPU_LIMIT, config.cpu_limit),
        "memory": pick(names.ANNOTATION_MEMORY_LIMIT, config.memory_limit),
    }
    chosen = {"requests": requests, "limits": limits}
    return {kind: kept for kind, wanted in chosen.items() if (kept := {k: v for k, v in wanted.items() if v})}
