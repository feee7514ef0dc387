"""
Whose token is this: the API server's answer, checked and remembered for a moment. Implements `Authenticator`.

A sidecar is the pod that its token is bound to; the message's body says nothing about who sent it (contract §3).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spendmesh_operator.control.auth import AuthUnavailable, Forbidden, Unauthenticated
from spendmesh_operator.identity import PodIdentity, ReplicaIdentity
from spendmesh_operator.kube.client import Kube, KubeError, KubeUnavailable
from spendmesh_sidecar.protocol import AUDIENCE

Identity = PodIdentity | ReplicaIdentity

CACHE_SECONDS: Final = 60.0
"""A token of a deleted pod works so much longer at most; the API server itself remembers for 10 s."""
CACHE_ENTRIES_MAX: Final = 20_000
"""Two for each of ten thousand pods: a token is renewed once an hour."""
TOKEN_BYTES_MAX: Final = 16 * 1024
"""kube-apiserver reads at most 64 KiB of headers in all; real tokens are below 2 KiB."""

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class Replicas:
    """Who the operator's own replicas are: pods of this ServiceAccount."""

    namespace: str
    service_account: str


class TokenReviewer:
    """Asks the API server, at most once a minute for each token. Refusals are not remembered."""

    def __init__(self, kube: Kube, replicas: Replicas, monotonic: Callable[[], float]) -> None:
        self._kube = kube
        self._replicas = replicas
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()

    async def identify(self, token: str) -> Identity:
        """The pod or replica. Raises Unauthenticated, Forbidden, or AuthUnavailable when nobody could be asked."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            raise Unauthenticated("send the projected service account token as a bearer token")
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        now = self._monotonic()
        found = self._known.get(key)
        if found is not None and now < found[1]:
            return found[0]
        try:
            status = await self._kube.review_token(token, AUDIENCE)
        except KubeUnavailable as error:
            raise AuthUnavailable("the API server could not be asked whose token this is: retry") from error
        except KubeError as error:
            raise AuthUnavailable(f"the operator may not review tokens, see its ClusterRole: {error}") from error
        identity = identity_of(status, self._replicas)
        self._known[key] = (identity, now + CACHE_SECONDS)
        self._known.move_to_end(key)
        while len(self._known) > CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
        return identity


def identity_of(status: Mapping[str, Any], replicas: Replicas) -> Identity:
    """Read a TokenReview's status. Raises Unauthenticated or Forbidden; the messages hold nothing of the token."""
    if not status.get("authenticated"):
        raise Unauthenticated("the API server does not accept this token: it is expired, forged or its pod is gone")
    if AUDIENCE not in (status.get("audiences") or []):
        raise Unauthenticated(f"the token is not for audience {AUDIENCE}: use the projected token, not the pod's own")
    user = status.get("user") or {}
    parts = str(user.get("username", "")).split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"]:
        raise Forbidden("the token belongs to no ServiceAccount")
    namespace, service_account = parts[2:]
    extra = user.get("extra") or {}
    name, uid = _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID))
    if not name or not uid:
        raise Forbidden("the token is not bound to a pod: only a pod's projected token is accepted")
    if (namespace, service_account) == (replicas.namespace, replicas.service_account):
        return ReplicaIdentity(name=name)
    return PodIdentity(namespace=namespace, name=name, uid=uid)


def _only(values: object) -> str:
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else ""
