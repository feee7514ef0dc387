"""The two policies: an application's own loop around calls that nobody retries, and one RetryBudget."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from spendmesh_operator.compile.attachment import Contest, Placed
from spendmesh_operator.compile.retries import retry_specs
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests import parse
from spendmesh_sidecar.core.specs import BreakerSpec, RetrySpec

EXAMPLE: Final = Path(__file__).resolve().parents[3] / "examples" / "failures" / "retries.yaml"
NAIVE_TRIES: Final = 3
"""Of the loop: an immediate double retry of whatever failed."""
NOTHING: Final = RetrySpec(name="nothing", attempts=0, breaker=BreakerSpec(consecutive_5xx_errors=0))


def manifest() -> dict[str, Any]:
    """The RetryBudget of examples/, as a user writes it."""
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return found


def spec() -> RetrySpec:
    """The same as a sidecar gets it."""
    written = manifest()
    key = ObjectKey(written["kind"], written["metadata"]["namespace"], written["metadata"]["name"])
    placed = Placed(key, "uid", 1, datetime(2026, 1, 1, tzinfo=UTC), parse(written), None)
    enforced, _ = retry_specs(Contest((placed,), (), {}))
    return enforced
