"""How a shared retry budget stands in its status: coarse, since it moves with every call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from spendmesh_operator.retries.pool import PoolView
from spendmesh_operator.status.budget import timestamp
from spendmesh_sidecar.core.failures.retry_grants import FULL_RETRY


def shared_pool(name: str, pools: Iterable[PoolView]) -> PoolView | None:
    """The pool of a RetryBudget; of two, while its interval changes, the one that most pods are in. None: no pod is."""
    found = [pool for pool in pools if pool.name == name and pool.members]
    return max(found, key=lambda pool: pool.members, default=None)


def share_fields(pool: PoolView | None, now: datetime) -> dict[str, Any]:
    """`cluster` of a RetryBudget's status, in whole retries."""
    if pool is None:
        return {}
    fields: dict[str, Any] = {
        "members": pool.members,
        "capacityPerInterval": pool.capacity // FULL_RETRY,
        "granted": pool.granted // FULL_RETRY,
    }
    if pool.learning_seconds:
        fields["learningUntil"] = timestamp(now + timedelta(seconds=pool.learning_seconds))
    return {"cluster": fields}


def steps(status: Mapping[str, Any]) -> object:
    """What is worth a write: a number that has doubled or halved, and the end of learning."""
    cluster = status.get("cluster") or {}
    numbers = (cluster.get(name, 0) for name in ("members", "capacityPerInterval", "granted"))
    return [number.bit_length() for number in numbers], "learningUntil" in cluster
