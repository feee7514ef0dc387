"""Run one attempt: build what goes to the provider, let its answer pass (`passage`), and say how it ended."""

from __future__ import annotations

from collections.abc import Sequence

from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.ledger.journal import LedgerUnwritable
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome, ParsedRequest, Settlement
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.client import Downstream
from spendmesh_sidecar.passage import Passage, Progress
from spendmesh_sidecar.telemetry.spans import AttemptSpan, TraceContext
from spendmesh_sidecar.time_limit import TimeLimit
from spendmesh_sidecar.upstream.request import KeyMissing, upstream_request
from spendmesh_sidecar.upstream.wire import ConnectFailed, ConnectionCut


class AttemptRunner:
    """Runs the attempts of one exchange, one after the other."""

    def __init__(
        self,
        plane: DataPlane,
        exchange: Exchange,
        request: ParsedRequest,
        trace: TraceContext,
        exchange_span_id: str,
    ) -> None:
        self._plane = plane
        self._exchange = exchange
        self._request = request
        self._trace = trace
        self._exchange_span_id = exchange_span_id
        self._spans: list[AttemptSpan] = []
        self.progress = Progress()
        self.upstream_seconds = 0.0

    async def run(self, step: Attempt, client: Downstream) -> Outcome:
        """One request to one target. What a provider does is an outcome, never an exception."""
        plane = self._plane
        began = plane.clock.monotonic()
        span = self._begin_span(step)
        self.progress.answer = None
        try:
            with TimeLimit(step.timeout_seconds, plane.loop) as limit:
                passage = Passage(plane, self._exchange, self._request, self.progress, step, client, span, began, limit)
                if plane.log.waits and self._request.operation.billed:
                    await plane.log.durable()
                sent = upstream_request(self._request, step, plane.keys, self._trace, span.span_id)
                outcome = await passage.run(sent)
        except KeyMissing:
            outcome = broken(Kind.KEY_MISSING)
        except LedgerUnwritable:
            outcome = broken(Kind.UNWRITTEN)
        except ConnectFailed:
            outcome = broken(Kind.CONNECT)
        except ConnectionCut:
            outcome = passage.broken(Kind.CUT)
        except TimeoutError:
            outcome = passage.broken(Kind.CLIENT_GONE if client.gone else Kind.TIMEOUT)
        finally:
            passage.close()
            took = plane.clock.monotonic() - began
            self.upstream_seconds += took
            span.end_unix = span.start_unix + took
        span.finish_reasons = outcome.finish_reasons
        span.response_id = outcome.response_id
        span.response_model = outcome.response_model
        return outcome

    def spans(self, settlements: Sequence[Settlement]) -> tuple[AttemptSpan, ...]:
        """The attempts with what they cost."""
        by_number = {settlement.number: settlement for settlement in settlements}
        for number, span in enumerate(self._spans, start=1):
            span.settlement = by_number.get(number)
        return tuple(self._spans)

    def _begin_span(self, step: Attempt) -> AttemptSpan:
        span = AttemptSpan(
            span_id=self._plane.new_id()[:16],
            operation=self._request.operation,
            stream=self._request.stream,
            base_url=step.provider.base_url,
            dialect=step.provider.dialect,
            start_unix=self._plane.clock.unix(),
            resend=step.number - 1,
        )
        self._spans.append(span)
        return span
