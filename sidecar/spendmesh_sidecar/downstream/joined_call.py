"""A call that gets another call's answer: what its client and the records are told of it. It cost nothing."""

from __future__ import annotations

from collections.abc import Sequence

from spendmesh_sidecar.core.joins.originals import Original
from spendmesh_sidecar.core.types import Decision, ParsedRequest
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.audience import follow
from spendmesh_sidecar.downstream.client import Downstream
from spendmesh_sidecar.errors import ClientGone
from spendmesh_sidecar.telemetry.spans import ExchangeSpan, TraceContext

_OWN = frozenset({"x-spendmesh-request-id", "x-spendmesh-attempts", "x-spendmesh-cost"})
NOTHING = "0.000000"
"""What a join costs, in any currency."""


class JoinedCall:
    """One client request that makes no attempt, from its parsed form to its last byte, its span and its counters."""

    def __init__(
        self, plane: DataPlane, original: Original, request: ParsedRequest, trace: TraceContext, request_id: str
    ) -> None:
        self._plane = plane
        self._original = original
        self._request = request
        self._trace = trace
        self._request_id = request_id
        self._told: dict[str, str] = {}
        """The answer's headers."""

    async def run(self, client: Downstream) -> bool:
        """Answer the client; False: its original was given up, so that the call has to be made after all."""
        plane, began = self._plane, self._plane.clock.monotonic()
        began_unix = plane.clock.unix()
        plane.enter()
        status: int | None = 499  # nginx: the client closed the request
        try:
            status = await follow(client, plane.joins, self._original, self._headers)
        except ClientGone:
            pass
        finally:
            plane.leave()
            if status is not None:
                self._record(status, began, began_unix)
        return status is not None

    def _headers(self, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """The answer's own, and of ours what this call added: neither attempts nor cost."""
        self._told = dict(headers)
        kept = [pair for pair in headers if pair[0].lower() not in _OWN]
        ours = [
            ("x-spendmesh-request-id", self._request_id),
            ("x-spendmesh-joined", self._original.request_id),
            ("x-spendmesh-attempts", "0"),
        ]
        cost = next((value for name, value in headers if name == "x-spendmesh-cost"), "")
        if cost:
            ours.append(("x-spendmesh-cost", f"{NOTHING} {cost.split()[1]}"))
        return kept + ours

    def _record(self, status: int, began: float, began_unix: float) -> None:
        plane, operation = self._plane, self._request.operation
        told = self._told
        decision = Decision(
            policy=told.get("x-spendmesh-policy", ""),
            tier=told.get("x-spendmesh-tier", ""),
            reason=told.get("x-spendmesh-reason", ""),
            model=told.get("x-spendmesh-model", ""),
        )
        error = (told.get("x-spendmesh-error") or str(status)) if status >= 400 else ""
        took = plane.clock.monotonic() - began
        plane.metrics.answered(operation.name, decision.tier, status, error, took, 0.0)
        if self._request.client_retry:
            plane.client_retried("joined")
        if plane.telemetry.enabled:
            plane.telemetry.record(
                ExchangeSpan(
                    context=self._trace,
                    span_id=plane.new_id()[:16],
                    request_id=self._request_id,
                    operation=operation,
                    task=self._request.hints.task,
                    start_unix=began_unix,
                    end_unix=began_unix + took,
                    status=status,
                    error=error,
                    decision=decision,
                    budgets=(),
                    attempts=(),
                    joined=self._original.request_id,
                )
            )
