"""
Spans as OTLP/HTTP JSON (opentelemetry-proto 1.x JSON mapping: ids in hex, 64-bit integers as strings).

Pure text. Most attributes are the same for many calls (policy, tier, model, provider): their text is written once and
kept; ids, times, tokens and cost are put around it. That is a tenth of what a tree of dictionaries costs.
Names: contract §5 and OpenTelemetry GenAI. No prompt, key or user value is in a span.
"""

from __future__ import annotations

from collections.abc import Iterable
from json.encoder import encode_basestring as quoted
from urllib.parse import urlsplit

from spendmesh_sidecar.core.types import Kind, Settlement
from spendmesh_sidecar.telemetry.spans import AttemptSpan, ExchangeSpan, TraceContext

MAX_KEPT = 512
"""Texts of attributes; an application has a few dozen combinations, but clients choose tasks and models."""

_PROVIDER_NAMES = {"OpenAI": "openai", "Anthropic": "anthropic"}
_PORTS = {"https": 443, "http": 80}
_INTERNAL, _CLIENT = 1, 3
_FAILED = '{"code":2}'

Value = str | bool | int | float | tuple[str, ...]


class Encoder:
    """Writes export requests of one resource."""

    def __init__(self, resource: Iterable[tuple[str, str]]) -> None:
        self._head = (
            f'{{"resourceSpans":[{{"resource":{{"attributes":[{_attributes(dict(resource))}]}},'
            '"scopeSpans":[{"scope":{"name":"spendmesh"},"spans":['
        )
        self._kept: dict[tuple[object, ...], str] = {}

    @property
    def kept(self) -> int:
        """Texts of attributes that are remembered."""
        return len(self._kept)

    def spans(self, exchange: ExchangeSpan) -> str:
        """One exchange with its attempts, as items of a list."""
        written = self._exchange(exchange)
        for attempt in exchange.attempts:
            written += f",{self._attempt(exchange, attempt)}"
        return written

    def request(self, spans: Iterable[str]) -> bytes:
        """The body of one export request."""
        # What is no Unicode (lone surrogates out of a header or an answer) becomes a question mark.
        return f"{self._head}{','.join(spans)}]}}]}}]}}".encode("utf-8", "replace")

    def _exchange(self, exchange: ExchangeSpan) -> str:
        decision = exchange.decision
        same = (
            "exchange",
            decision.policy,
            decision.tier,
            decision.reason,
            decision.attempts,
            exchange.task,
            exchange.budgets,
            exchange.status,
            exchange.error,
        )
        attributes = self._kept.get(same) or self._keep(
            same,
            {
                "spendmesh.policy": decision.policy,
                "spendmesh.tier": decision.tier,
                "spendmesh.task": exchange.task,
                "spendmesh.reason": decision.reason,
                "spendmesh.budget": exchange.budgets,
                "spendmesh.attempts": decision.attempts,
                "http.response.status_code": exchange.status,
                "error.type": exchange.error,
            },
        )
        if exchange.joined:
            attributes += f",{_pair('spendmesh.joined', exchange.joined)}"
        return _span(
            exchange.context,
            exchange.span_id,
            exchange.context.parent_id,
            f"spendmesh {exchange.operation.name}",
            _INTERNAL,
            (exchange.start_unix, exchange.end_unix),
            f'{{"key":"spendmesh.request_id","value":{{"stringValue":{quoted(exchange.request_id)}}}}},{attributes}',
            failed=bool(exchange.error),
        )

    def _attempt(self, exchange: ExchangeSpan, attempt: AttemptSpan) -> str:
        settled = attempt.settlement
        attributes = self._identity(attempt)
        if attempt.response_id:
            attributes += f',{{"key":"gen_ai.response.id","value":{{"stringValue":{quoted(attempt.response_id)}}}}}'
        if attempt.first_chunk_seconds is not None:
            seconds = attempt.first_chunk_seconds
            attributes += f',{{"key":"gen_ai.response.time_to_first_chunk","value":{{"doubleValue":{seconds!r}}}}}'
        name, failed = attempt.operation.genai_name, False
        if settled is not None:
            failed = settled.kind is not Kind.SUCCESS
            name = f"{name} {settled.model}" if settled.model else name
            attributes += f",{self._terms(settled, failed)}{_amounts(settled)}"
        times = (attempt.start_unix, attempt.end_unix)
        return _span(exchange.context, attempt.span_id, exchange.span_id, name, _CLIENT, times, attributes, failed)

    def _identity(self, attempt: AttemptSpan) -> str:
        """What was asked of whom, and who answered how."""
        same = (
            "identity",
            attempt.operation.genai_name,
            attempt.base_url,
            attempt.dialect,
            attempt.stream,
            attempt.resend,
            attempt.response_model,
            attempt.finish_reasons,
        )
        if (known := self._kept.get(same)) is not None:
            return known
        url = urlsplit(attempt.base_url)
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": attempt.operation.genai_name,
            "gen_ai.provider.name": _PROVIDER_NAMES[attempt.dialect],
            "gen_ai.response.model": attempt.response_model,
            "gen_ai.response.finish_reasons": attempt.finish_reasons,
            "server.address": url.hostname or "",
            "server.port": url.port or _PORTS.get(url.scheme, 0),
        }
        if attempt.stream:
            attributes["gen_ai.request.stream"] = True
        if attempt.resend:
            attributes["http.request.resend_count"] = attempt.resend
        return self._keep(same, attributes)

    def _terms(self, settled: Settlement, failed: bool) -> str:
        """By which model, tier and prices it was settled, and how it ended."""
        same = (
            "terms",
            settled.model,
            settled.currency,
            settled.price_version,
            settled.source,
            settled.tier,
            settled.number,
            settled.usage.service_tier,
            settled.status,
            failed and (settled.error_code or settled.kind.word),
        )
        if (known := self._kept.get(same)) is not None:
            return known
        attributes: dict[str, Value] = {
            "gen_ai.request.model": settled.model,
            "spendmesh.cost.currency": settled.currency,
            "spendmesh.price.version": settled.price_version,
            "spendmesh.usage.source": settled.source,
            "spendmesh.tier": settled.tier,
            "spendmesh.attempt": settled.number,
            "openai.response.service_tier": settled.usage.service_tier,
        }
        if settled.status is not None:
            attributes["http.response.status_code"] = settled.status
        if failed:
            attributes["error.type"] = settled.error_code or settled.kind.word
        return self._keep(same, attributes)

    def _keep(self, same: tuple[object, ...], attributes: dict[str, Value]) -> str:
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        written = self._kept[same] = _attributes(attributes)
        return written


def _amounts(settled: Settlement) -> str:
    """Tokens and cost of one attempt: only here, so that sums over spans are true."""
    usage = settled.usage
    text = (
        f',{{"key":"gen_ai.usage.input_tokens","value":{{"intValue":"{usage.total_input_tokens}"}}}}'
        f',{{"key":"gen_ai.usage.output_tokens","value":{{"intValue":"{usage.output_tokens}"}}}}'
        f',{{"key":"spendmesh.cost.nanos","value":{{"intValue":"{settled.cost_nanos}"}}}}'
    )
    more: dict[str, Value] = {}
    if usage.cache_read_tokens:
        more["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if written := usage.cache_write_tokens + usage.cache_write_long_tokens:
        # Both names: the newer one, and the one that today's backends read.
        more["gen_ai.usage.cache_write.input_tokens"] = written
        more["gen_ai.usage.cache_creation.input_tokens"] = written
    if usage.reasoning_tokens:
        more["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return f"{text},{_attributes(more)}" if more else text


def _span(
    context: TraceContext,
    span_id: str,
    parent_id: str,
    name: str,
    kind: int,
    times_unix: tuple[float, float],
    attributes: str,
    failed: bool,
) -> str:
    start, end = times_unix
    parent = f'"parentSpanId":"{parent_id}",' if parent_id else ""
    state = f'"traceState":{quoted(context.state)},' if context.state else ""
    return (
        f'{{"traceId":"{context.trace_id}","spanId":"{span_id}",{parent}{state}"name":{quoted(name)},"kind":{kind},'
        f'"startTimeUnixNano":"{int(start * 1e9)}","endTimeUnixNano":"{int(max(start, end) * 1e9)}",'
        f'"attributes":[{attributes}],"status":{_FAILED if failed else "{}"},"flags":1}}'
    )


def _attributes(values: dict[str, Value]) -> str:
    """Key-value pairs; empty texts and lists are left out."""
    return ",".join(_pair(key, value) for key, value in values.items() if value != "" and value != ())


def _pair(key: str, value: Value) -> str:
    if isinstance(value, str):
        typed = f'"stringValue":{quoted(value)}'
    elif isinstance(value, bool):
        typed = f'"boolValue":{"true" if value else "false"}'
    elif isinstance(value, int):
        typed = f'"intValue":"{value}"'
    elif isinstance(value, float):
        typed = f'"doubleValue":{value!r}'
    else:
        items = ",".join(f'{{"stringValue":{quoted(item)}}}' for item in value)
        typed = f'"arrayValue":{{"values":[{items}]}}'
    return f'{{"key":{quoted(key)},"value":{{{typed}}}}}'
