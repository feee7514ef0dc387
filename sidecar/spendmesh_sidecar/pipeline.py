"""
Drive one exchange: do each step that `core.exchange` decides, report each outcome, in whatever order life has it.

No decision is made here. What is here is I/O and its failures: waiting for rights, sleeping, answers that are
buffered or passed on chunk by chunk, a client that leaves in the middle.
"""

from __future__ import annotations

import asyncio

from spendmesh_sidecar.attempt import AttemptRunner
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.core.types import Acquire, Attempt, ParsedRequest, Respond, Wait
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.answers import refusal_answer
from spendmesh_sidecar.downstream.client import Downstream
from spendmesh_sidecar.errors import ClientGone
from spendmesh_sidecar.passage import Answer
from spendmesh_sidecar.telemetry.spans import ExchangeSpan, TraceContext

CLIENT_GONE = 499
"""nginx: the client closed the request."""


class Pipeline:
    """One client request from its parsed form to its last byte, its span and its counters."""

    def __init__(
        self,
        plane: DataPlane,
        exchange: Exchange,
        request: ParsedRequest,
        trace: TraceContext,
        request_id: str,
    ) -> None:
        self._plane = plane
        self._exchange = exchange
        self._request = request
        self._trace = trace
        self._request_id = request_id
        self._span_id = plane.new_id()[:16]
        self._waited_seconds = 0.0
        self._attempts = AttemptRunner(plane, exchange, request, trace, self._span_id)

    async def run(self, client: Downstream) -> None:
        """Answer the client; never raises for what a client or a provider did."""
        plane, began = self._plane, self._plane.clock.monotonic()
        began_unix = plane.clock.unix()
        plane.enter()
        status = CLIENT_GONE
        try:
            status = await self._answer(client)
        except ClientGone:
            pass
        finally:
            self._exchange.close(plane.clock.monotonic())
            plane.leave()
            self._record(status, began, began_unix)

    async def _answer(self, client: Downstream) -> int:
        respond = await self._drive(client)
        if respond.refusal is not None and not self._attempts.progress.committed:
            status, headers, body = refusal_answer(
                self._request.operation.dialect,
                respond.refusal,
                self._request_id,
                should_retry=respond.should_retry == "upstream",
            )
            said = {name for name, _ in headers}
            ours = (pair for pair in self._exchange.response_headers(True) if pair[0] not in said)
            await client.send(status, [*headers, *ours], body)
            return status
        answer = self._attempts.progress.answer
        if self._attempts.progress.committed:
            await client.finish(self._attempts.progress.whole)
            if client.gone:
                raise ClientGone
            return self._attempts.progress.committed_status
        if answer is None:
            raise ClientGone  # it was read for nobody, and not to its end
        await client.send(answer.status, self._headers(answer, respond), answer.body)
        return answer.status

    async def _drive(self, client: Downstream) -> Respond:
        plane, exchange = self._plane, self._exchange
        step = exchange.begin(*plane.clock.both())
        while True:
            match step:
                case Respond():
                    return step
                case Acquire():
                    asked = plane.clock.monotonic()
                    denials = await plane.leases.acquire(step.shortfalls, step.wait_seconds)
                    self._waited_seconds += plane.clock.monotonic() - asked
                    if client.gone:
                        raise ClientGone  # nothing is booked, nothing was sent
                    step = exchange.acquired(denials, *plane.clock.both())
                case Wait():
                    await _pause(client, step.seconds)
                    self._waited_seconds += step.seconds
                    step = exchange.resume(*plane.clock.both())
                case Attempt():
                    outcome = await self._attempts.run(step, client)
                    step = exchange.observe(outcome, *plane.clock.both(), client_gone=client.gone)

    def _headers(self, answer: Answer, respond: Respond) -> list[tuple[str, str]]:
        headers = [*answer.headers, *self._exchange.response_headers(True)]
        if answer.status >= 400 and respond.should_retry == "false":
            headers = [pair for pair in headers if pair[0].lower() != "x-should-retry"]
            headers.append(("x-should-retry", "false"))
        return headers

    def _record(self, status: int, began: float, began_unix: float) -> None:
        plane, exchange = self._plane, self._exchange
        decision = exchange.decision
        refusal = exchange.refusal
        took = plane.clock.monotonic() - began
        error = refusal.code if refusal else (str(status) if status >= 400 else "")
        added = max(0.0, took - self._waited_seconds - self._attempts.upstream_seconds)
        plane.metrics.answered(self._request.operation.name, decision.tier, status, error, took, added)
        if refusal is not None:
            plane.metrics.add("spendmesh_refusals_total", (("code", refusal.code),))
        if exchange.retry_denied:
            plane.metrics.add("spendmesh_retry_denied_total", (("reason", exchange.retry_denied),))
        self._note_client_retry(status, began, began + took)
        for shadow in exchange.observed_retries:
            plane.metrics.add("spendmesh_observed_retries_total", (("decision", shadow),))
        for settlement in decision.settlements:
            plane.metrics.settled(settlement)
        if plane.telemetry.enabled:
            plane.telemetry.record(
                ExchangeSpan(
                    context=self._trace,
                    span_id=self._span_id,
                    request_id=self._request_id,
                    operation=self._request.operation,
                    task=self._request.hints.task,
                    start_unix=began_unix,
                    end_unix=began_unix + took,
                    status=status,
                    error=error,
                    decision=decision,
                    budgets=_names(exchange.policy.budgets),
                    attempts=self._attempts.spans(decision.settlements),
                )
            )

    def _note_client_retry(self, status: int, began: float, now: float) -> None:
        plane, exchange, retries = self._plane, self._exchange, self._plane.client_retries
        if exchange.client_retry:
            plane.client_retried(exchange.client_retry)
        elif retries.failed and retries.repeats(self._request, began):
            plane.client_retried("unmarked")
        if status >= 400 and status != CLIENT_GONE and exchange.refusal is None:
            retries.fail(self._request, now)


@once
def _names(budgets: tuple[BudgetSpec, ...]) -> tuple[str, ...]:
    return tuple(budget.name for budget in budgets)


async def _pause(client: Downstream, seconds: float) -> None:
    """Sleep before a retry, which nobody needs when the client has left. Raises ClientGone."""
    left = asyncio.Event()
    client.when_gone(left.set)
    try:
        async with asyncio.timeout(seconds):
            while not client.gone:
                left.clear()
                await left.wait()
    except TimeoutError:
        return
    finally:
        client.when_gone(None)
    raise ClientGone
