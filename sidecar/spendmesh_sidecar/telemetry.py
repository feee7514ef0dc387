"""
Spans, off the request path: a finished exchange leaves small records in a bounded queue, a task turns them into
OTLP/HTTP JSON in slices of at most 64.

The SDK's exporter would cost every pod 27 MB and stall the loop for 30 ms a batch: OTLP's
JSON encoding needs neither it nor protobuf. A full queue drops spans and counts them, never requests, never money.
No prompt, key or user value is in a span. Names: contract §5 and OpenTelemetry GenAI.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import msgspec

from spendmesh_sidecar.core.types import Decision, Operation, Settlement
from spendmesh_sidecar.metrics import Metrics
from spendmesh_sidecar.settings import Settings

MAX_QUEUED = 8192
"""Spans waiting; the SDK's own default for a batch processor is 2048."""
SLICE = 64
"""Spans a request: 64 take 0.4 ms to encode, so that no stream waits for them."""
FLUSH_SECONDS = 0.25
MAX_TRACESTATE = 512
"""Characters that W3C Trace Context asks everybody to propagate; a longer one is dropped, as it allows."""
EXPORT_TIMEOUT_SECONDS = 10.0
"""OTEL_EXPORTER_OTLP_TIMEOUT default."""

_PROVIDER_NAMES = {"OpenAI": "openai", "Anthropic": "anthropic"}
_INTERNAL, _CLIENT = 1, 3
_ERROR = 2

Value = str | bool | int | float | tuple[str, ...]
log = logging.getLogger("spendmesh.telemetry")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a span hangs (W3C Trace Context). Ids in lower-case hex; an empty parent is a root."""

    trace_id: str
    parent_id: str
    sampled: bool = True
    state: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str) -> TraceContext | None:
        """Read the headers; None when there are none or they are malformed (then a new trace begins)."""
        parts = traceparent.strip().split("-")
        if len(parts) < 4 or len(parts[0]) != 2 or parts[0] == "ff" or (parts[0] == "00" and len(parts) != 4):
            return None
        trace_id, parent_id, flags = parts[1:4]
        if (len(trace_id), len(parent_id), len(flags)) != (32, 16, 2) or not all(map(_is_hex, parts[:4])):
            return None
        if not trace_id.strip("0") or not parent_id.strip("0"):
            return None
        kept = tracestate if len(tracestate) <= MAX_TRACESTATE and tracestate.isascii() else ""
        return cls(trace_id, parent_id, bool(int(flags, 16) & 1), kept)

    def traceparent(self, span_id: str) -> str:
        """The header for a call made inside span `span_id`."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"


@dataclass(slots=True)
class AttemptSpan:
    """What the pipeline notes of one attempt; cost and tokens come with its settlement."""

    span_id: str
    operation: Operation
    stream: bool
    server_address: str
    server_port: int
    dialect: str
    start_unix: float
    end_unix: float = 0.0
    first_chunk_seconds: float | None = None
    finish_reasons: tuple[str, ...] = ()
    response_id: str = ""
    response_model: str = ""
    resend: int = 0
    settlement: Settlement | None = None


@dataclass(slots=True)
class ExchangeSpan:
    """One client request with all its attempts."""

    context: TraceContext
    span_id: str
    request_id: str
    operation: Operation
    task: str
    start_unix: float
    end_unix: float
    status: int
    error: str
    decision: Decision
    budgets: tuple[str, ...]
    attempts: tuple[AttemptSpan, ...]


class Telemetry:
    """The queue and its exporter. Without an endpoint it does nothing and costs nothing."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._url = settings.otlp_traces_url
        self._headers = {"content-type": "application/json", **dict(settings.otlp_headers)}
        self._resource = {"attributes": _attributes(settings.resource)}
        self._queue: deque[ExchangeSpan] = deque()
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What runs in the background."""
        return (self._task,) if self._task is not None else ()

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return bool(self._url)

    def record(self, span: ExchangeSpan) -> None:
        """Queue one exchange; drops and counts when the queue is full or the caller's trace is not sampled."""
        if not self._url:
            return
        if not span.context.sampled:
            self._dropped("unsampled", 1 + len(span.attempts))
        elif len(self._queue) >= MAX_QUEUED:
            self._dropped("queue_full", 1 + len(span.attempts))
        else:
            self._queue.append(span)

    async def start(self) -> None:
        """Begin exporting."""
        if self._url:
            timeout = aiohttp.ClientTimeout(total=EXPORT_TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
            self._task = asyncio.create_task(self._run(), name="telemetry")

    async def stop(self, seconds: float = 3.0) -> None:
        """Export what waits, at most this long, then end."""
        if self._task is None or self._session is None:
            return
        self._stopping.set()
        try:
            async with asyncio.timeout(seconds):
                await self._task
        except TimeoutError:
            self._dropped("shutdown", sum(1 + len(exchange.attempts) for exchange in self._queue))
        await self._session.close()

    async def _run(self) -> None:
        last = False
        while not last:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    last = await self._stopping.wait()
            except TimeoutError:
                pass  # the usual turn
            while self._queue:
                await self._export(self._slice())

    def _slice(self) -> list[ExchangeSpan]:
        taken: list[ExchangeSpan] = []
        spans = 0
        while self._queue and spans < SLICE:
            taken.append(self._queue.popleft())
            spans += 1 + len(taken[-1].attempts)
        return taken

    async def _export(self, exchanges: list[ExchangeSpan]) -> None:
        """One request; a collector that refuses or is away loses this slice, never more, and is never retried."""
        assert self._session is not None
        spans = sum(1 + len(exchange.attempts) for exchange in exchanges)
        try:
            body = encode(self._resource, exchanges)
        except ValueError:  # a text that is no Unicode (lone surrogates out of a header or an answer)
            self._dropped("not_encodable", spans)
            return
        try:
            async with self._session.post(self._url, data=body, headers=self._headers) as response:
                if response.status >= 300:
                    self._dropped("collector_refused", spans)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._dropped("collector_unreachable", spans)

    def _dropped(self, reason: str, spans: int) -> None:
        self._metrics.add("spendmesh_spans_dropped_total", (("reason", reason),), spans)


def encode(resource: object, exchanges: Iterable[ExchangeSpan]) -> bytes:
    """OTLP/HTTP JSON (opentelemetry-proto 1.x JSON mapping: ids in hex, 64-bit integers as strings)."""
    spans: list[dict[str, object]] = []
    for exchange in exchanges:
        spans.append(_exchange_span(exchange))
        spans += (_attempt_span(exchange, attempt) for attempt in exchange.attempts)
    scope = {"scope": {"name": "spendmesh"}, "spans": spans}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def _exchange_span(exchange: ExchangeSpan) -> dict[str, object]:
    decision = exchange.decision
    attributes: dict[str, Value] = {
        "spendmesh.request_id": exchange.request_id,
        "spendmesh.policy": decision.policy,
        "spendmesh.tier": decision.tier,
        "spendmesh.task": exchange.task,
        "spendmesh.reason": decision.reason,
        "spendmesh.budget": exchange.budgets,
        "spendmesh.attempts": decision.attempts,
        "http.response.status_code": exchange.status,
        "error.type": exchange.error,
    }
    return _span(
        exchange.context,
        exchange.span_id,
        exchange.context.parent_id,
        f"spendmesh {exchange.operation.name}",
        _INTERNAL,
        (exchange.start_unix, exchange.end_unix),
        attributes,
        failed=bool(exchange.error),
    )


def _attempt_span(exchange: ExchangeSpan, attempt: AttemptSpan) -> dict[str, object]:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": attempt.operation.genai_name,
        "gen_ai.provider.name": _PROVIDER_NAMES[attempt.dialect],
        "gen_ai.response.id": attempt.response_id,
        "gen_ai.response.model": attempt.response_model,
        "gen_ai.response.finish_reasons": attempt.finish_reasons,
        "server.address": attempt.server_address,
        "server.port": attempt.server_port,
    }
    if attempt.stream:
        attributes["gen_ai.request.stream"] = True
    if attempt.resend:
        attributes["http.request.resend_count"] = attempt.resend
    if attempt.first_chunk_seconds is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.first_chunk_seconds
    model, failed = "", False
    if (settled := attempt.settlement) is not None:
        model = settled.model
        failed = settled.kind.value != "success"
        attributes |= _settled(settled, failed)
    return _span(
        exchange.context,
        attempt.span_id,
        exchange.span_id,
        f"{attempt.operation.genai_name} {model}".strip(),
        _CLIENT,
        (attempt.start_unix, attempt.end_unix),
        attributes,
        failed,
    )


def _settled(settled: Settlement, failed: bool) -> dict[str, Value]:
    """Tokens and cost of one attempt: only here, so that sums over spans are true."""
    usage = settled.usage
    attributes: dict[str, Value] = {
        "gen_ai.request.model": settled.model,
        "gen_ai.usage.input_tokens": usage.total_input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "spendmesh.cost.nanos": settled.cost_nanos,
        "spendmesh.cost.currency": settled.currency,
        "spendmesh.price.version": settled.price_version,
        "spendmesh.usage.source": settled.source,
        "spendmesh.tier": settled.tier,
        "spendmesh.attempt": settled.number,
    }
    if usage.cache_read_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if written := usage.cache_write_tokens + usage.cache_write_long_tokens:
        # Both names: the newer one, and the one that today's backends read.
        attributes["gen_ai.usage.cache_write.input_tokens"] = written
        attributes["gen_ai.usage.cache_creation.input_tokens"] = written
    if usage.reasoning_tokens:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.service_tier:
        attributes["openai.response.service_tier"] = usage.service_tier
    if settled.status is not None:
        attributes["http.response.status_code"] = settled.status
    if failed:
        attributes["error.type"] = settled.error_code or settled.kind.value
    return attributes


def _span(
    context: TraceContext,
    span_id: str,
    parent_id: str,
    name: str,
    kind: int,
    times_unix: tuple[float, float],
    attributes: dict[str, Value],
    failed: bool,
) -> dict[str, object]:
    start, end = times_unix
    span: dict[str, object] = {
        "traceId": context.trace_id,
        "spanId": span_id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(int(start * 1e9)),
        "endTimeUnixNano": str(int(max(start, end) * 1e9)),
        "attributes": _attributes(attributes.items()),
        "status": {"code": _ERROR} if failed else {},
        "flags": 1,
    }
    if parent_id:
        span["parentSpanId"] = parent_id
    if context.state:
        span["traceState"] = context.state
    return span


def _attributes(pairs: Iterable[tuple[str, Value]]) -> list[dict[str, object]]:
    return [{"key": key, "value": _any_value(value)} for key, value in pairs if value != "" and value != ()]


def _any_value(value: Value) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, tuple):
        return {"arrayValue": {"values": [{"stringValue": item} for item in value]}}
    return {"stringValue": value}


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
