"""Events on users' objects, for `kubectl describe`. Written on change only; losing one harms nobody."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Protocol

from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import FIELD_MANAGER, Conflict, Kube, KubeError

Json = dict[str, Any]

MESSAGE_CHARACTERS_MAX = 1024
"""The API server's own limit for an Event's note."""

log = logging.getLogger(__name__)


class Draft(Protocol):
    """What is to be said (`status.EventDraft`)."""

    @property
    def type(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


async def publish(kube: Kube, about: Json, draft: Draft, now: datetime, once: str = "") -> bool:
    """
    Say it about the object; answers whether it is said. A refusal is logged, never raised.

    With `once`, an id, it is said once, however often this is called while the Event lives.
    """
    try:
        namespace = about["metadata"]["namespace"]
        await kube.create(paths.collection(paths.CORE, "events", namespace), event(about, draft, now, once))
    except Conflict:
        return True
    except KubeError as error:
        log.warning("an Event was not written: %s", error)
        return False
    return True


def event(about: Json, draft: Draft, now: datetime, once: str = "") -> Json:
    """A core/v1 Event; without `once` the API server makes its name unique."""
    metadata = about["metadata"]
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    prefix = f"{metadata['name'][:200]}."
    name = {"name": prefix + once} if once else {"generateName": prefix}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": name | {"namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        },
        "type": draft.type,
        "reason": draft.reason,
        "message": draft.message[:MESSAGE_CHARACTERS_MAX],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": f"spendmesh.io/{FIELD_MANAGER}",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
