"""What we call things in other people's pods. Renaming one breaks pods that run; see contract §1 and §2."""

from __future__ import annotations

from typing import Final

GROUP: Final = "spendmesh.io"

LABEL_INJECT: Final = "spendmesh.io/inject"
"""On namespaces and pods: `enabled` or `disabled`; the pod's word counts more."""
LABEL_INJECTED: Final = "spendmesh.io/injected"
"""`"true"` on every pod that we changed: what the operator watches."""

ANNOTATION_BOOTSTRAP: Final = "spendmesh.io/bootstrap"
"""`protocol.pack_bootstrap`: what the sidecar obeys until the control plane speaks."""
ANNOTATION_CPU: Final = "spendmesh.io/sidecar-cpu"
ANNOTATION_CPU_LIMIT: Final = "spendmesh.io/sidecar-cpu-limit"
ANNOTATION_MEMORY: Final = "spendmesh.io/sidecar-memory"
ANNOTATION_MEMORY_LIMIT: Final = "spendmesh.io/sidecar-memory-limit"
ANNOTATION_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"

CONTAINER: Final = "spendmesh-sidecar"
VOLUME_PREFIX: Final = "spendmesh-"
"""Every volume with this prefix is ours: no container but the sidecar may mount one."""
VOLUME_TOKEN: Final = "spendmesh-token"  # noqa: S105  a name
VOLUME_KEYS: Final = "spendmesh-keys"
VOLUME_STATE: Final = "spendmesh-state"
VOLUME_BOOTSTRAP: Final = "spendmesh-bootstrap"

ENVIRONMENT_PREFIX: Final = "SPENDMESH_"
USER_NO_PROXY_PREFIX: Final = "SPENDMESH_USER_"
"""`NO_PROXY` from a ConfigMap keeps its source under this name, and `NO_PROXY` refers to it."""

DIRECTORY: Final = "/var/run/spendmesh"
DIRECTORY_TOKEN: Final = f"{DIRECTORY}/token"
DIRECTORY_KEYS: Final = f"{DIRECTORY}/keys"
DIRECTORY_STATE: Final = f"{DIRECTORY}/state"
DIRECTORY_BOOTSTRAP: Final = f"{DIRECTORY}/bootstrap"
SERVICE_ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"

PORT_DATA: Final = 15400
PORT_ADMIN: Final = 15490
PORT_ADMIN_NAME: Final = "spendmesh-admin"

USER_ID: Final = 65532
"""`nonroot` of the distroless images. An application under another one cannot read the sidecar through /proc."""
