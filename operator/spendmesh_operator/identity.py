"""Who speaks to the control server: a pod or another replica of the operator. Proof is `control.auth`'s business."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """A pod, as the API server knows it. The uid is the identity; the names are for people."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ReplicaIdentity:
    """A replica of the operator itself."""

    name: str
