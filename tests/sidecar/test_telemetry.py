"""Spans: OTLP/HTTP JSON as a collector reads it, W3C context, and what happens when nobody takes them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from spendmesh_sidecar.core.types import Decision, Kind, Operation, Settlement, Usage
from spendmesh_sidecar.settings import Settings
from spendmesh_sidecar.telemetry.exporter import MAX_QUEUED, REQUEST_SPANS, Telemetry
from spendmesh_sidecar.telemetry.metrics import Metrics
from spendmesh_sidecar.telemetry.otlp import MAX_KEPT, Encoder
from spendmesh_sidecar.telemetry.spans import AttemptSpan, ExchangeSpan, TraceContext

CHAT = Operation("chat", "OpenAI", "POST", "/chat/completions", True, "chat")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def exchange(*, sampled: bool = True, attempts: int = 1) -> ExchangeSpan:
    settlements = tuple(
        Settlement(
            reservation=f"r/attempt-{n}",
            number=n,
            target="medium",
            tier="standard",
            provider="openai",
            model="medium-1",
            kind=Kind.SUCCESS,
            status=200,
            usage=Usage(input_tokens=100, cache_read_tokens=20, cache_write_tokens=5, output_tokens=7),
            source="exact",
            cost_nanos=2**53 + n,
            currency="USD",
            price_version="own",
            reserved_nanos=10**16,
        )
        for n in range(1, attempts + 1)
    )
    spans = tuple(
        AttemptSpan("b" * 15 + str(s.number), CHAT, False, "https://api.example/v1", "OpenAI", 1.0, 2.0, settlement=s)
        for s in settlements
    )
    context = TraceContext(TRACE, PARENT, sampled)
    decision = Decision("team-a/p@1", "standard", "default", "openai/medium-1", attempts, settlements)
    return ExchangeSpan(context, "a" * 16, "r", CHAT, "chat", 1.0, 2.5, 200, "", decision, ("team-a/team",), spans)


def written(*exchanges: ExchangeSpan, encoder: Encoder | None = None) -> list[dict[str, Any]]:
    encoder = encoder or Encoder([("service.name", "sidecar")])
    [resource] = json.loads(encoder.request([encoder.spans(each) for each in exchanges]))["resourceSpans"]
    assert attributes(resource["resource"]) == {"service.name": "sidecar"}
    [scope] = resource["scopeSpans"]
    return scope["spans"]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def test_tokens_and_cost_stand_on_attempts_only_so_that_sums_over_spans_are_true() -> None:
    parent, *attempts = written(exchange(attempts=2))
    assert not {key for key in attributes(parent) if "cost" in key or "usage" in key}
    assert [int(attributes(a)["spendmesh.cost.nanos"]) for a in attempts] == [2**53 + 1, 2**53 + 2]
    assert {attributes(a)["gen_ai.usage.input_tokens"] for a in attempts} == {"125"}
    assert all(a["parentSpanId"] == parent["spanId"] and a["traceId"] == TRACE for a in attempts)
    assert (parent["kind"], attempts[0]["kind"]) == (1, 3)


def test_64_bit_integers_are_strings_as_the_proto3_json_mapping_demands() -> None:
    _, span = written(exchange())
    assert span["startTimeUnixNano"] == "1000000000"
    assert {"key": "spendmesh.cost.nanos", "value": {"intValue": str(2**53 + 1)}} in span["attributes"]


def test_a_span_says_who_was_asked_for_what_and_how_it_ended() -> None:
    parent, attempt = written(exchange())
    assert (parent["name"], attempt["name"]) == ("spendmesh chat", "chat medium-1")
    assert attributes(parent) == {
        "spendmesh.request_id": "r",
        "spendmesh.policy": "team-a/p@1",
        "spendmesh.tier": "standard",
        "spendmesh.task": "chat",
        "spendmesh.reason": "default",
        "spendmesh.budget": {"values": [{"stringValue": "team-a/team"}]},
        "spendmesh.attempts": "1",
        "http.response.status_code": "200",
    }
    assert attributes(attempt) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "medium-1",
        "gen_ai.usage.input_tokens": "125",
        "gen_ai.usage.output_tokens": "7",
        "gen_ai.usage.cache_read.input_tokens": "20",
        "gen_ai.usage.cache_write.input_tokens": "5",
        "gen_ai.usage.cache_creation.input_tokens": "5",
        "server.address": "api.example",
        "server.port": "443",
        "spendmesh.cost.nanos": str(2**53 + 1),
        "spendmesh.cost.currency": "USD",
        "spendmesh.price.version": "own",
        "spendmesh.usage.source": "exact",
        "spendmesh.tier": "standard",
        "spendmesh.attempt": "1",
        "http.response.status_code": "200",
    }
    assert (attempt["status"], attempt["flags"]) == ({}, 1)


def test_what_differs_between_two_calls_is_never_taken_from_the_first() -> None:
    """Texts of attributes are kept: each member that can differ alone must make another text."""
    first = exchange()
    (one,) = first.attempts
    settled = one.settlement
    assert settled is not None
    usage = replace(settled.usage, service_tier="priority")
    changes: list[dict[str, Any]] = [
        {"model": "m2"}, {"currency": "EUR"}, {"price_version": "v2"}, {"source": "worst"}, {"tier": "premium"},
        {"number": 2}, {"usage": usage}, {"status": 503}, {"kind": Kind.TRANSIENT}, {"status": None},
        {"kind": Kind.TRANSIENT, "error_code": "overloaded"},
    ]  # fmt: skip
    attempts = [replace(one, settlement=replace(settled, **change)) for change in changes]
    differing: list[dict[str, Any]] = [
        {"operation": replace(CHAT, genai_name="embeddings")}, {"base_url": "http://b.example:8080/v1"},
        {"dialect": "Anthropic"}, {"stream": True}, {"resend": 1}, {"response_model": "m3"},
        {"finish_reasons": ("stop",)}, {"finish_reasons": ("length",)}, {"response_id": "a"}, {"settlement": None},
        {"first_chunk_seconds": 0.25},
    ]  # fmt: skip
    attempts += [replace(one, **change) for change in differing]
    exchanges = [replace(first, attempts=(attempt,)) for attempt in attempts]
    outer: list[dict[str, Any]] = [
        {"task": "t"}, {"budgets": ()}, {"budgets": ("a/b",)}, {"status": 402}, {"error": "x"}, {"request_id": "r2"},
        {"decision": replace(first.decision, policy="p2")}, {"decision": replace(first.decision, tier="t2")},
        {"decision": replace(first.decision, reason="asked")}, {"decision": replace(first.decision, attempts=3)},
    ]  # fmt: skip
    exchanges += [replace(first, **change) for change in outer]
    shared = Encoder([("service.name", "sidecar")])
    together = written(first, *exchanges, first, encoder=shared)
    assert together == [span for each in (first, *exchanges, first) for span in written(each)]


def test_kept_texts_are_bounded_whatever_clients_choose() -> None:
    encoder = Encoder([("service.name", "sidecar")])
    for number in range(3 * MAX_KEPT):
        [parent, _] = written(replace(exchange(), task=f"task-{number}"), encoder=encoder)
        assert attributes(parent)["spendmesh.task"] == f"task-{number}"
    assert encoder.kept <= MAX_KEPT


@pytest.mark.parametrize("text", ['quote " backslash \\', "line\nend\x00\x1f", "grüße 🙂", "half \ud800 sign"])
def test_any_text_makes_a_request_that_a_collector_can_read(text: str) -> None:
    [parent, attempt] = written(replace(exchange(), task=text, error=text), exchange())[:2]
    assert attributes(parent)["spendmesh.task"] == text.replace("\ud800", "?")
    assert parent["status"] == {"code": 2} and attempt["status"] == {}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-xyz-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-extra",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_a_malformed_traceparent_begins_a_new_trace(header: str) -> None:
    assert TraceContext.parse(header, "") is None


def test_a_callers_trace_is_continued_with_its_sampling_decision() -> None:
    context = TraceContext.parse(f"00-{TRACE}-{PARENT}-00", "vendor=1")
    assert context == TraceContext(TRACE, PARENT, sampled=False, state="vendor=1")
    assert context.traceparent("c" * 16) == f"00-{TRACE}-{'c' * 16}-00"


def telemetry(url: str = "http://127.0.0.1:9/v1/traces") -> tuple[Telemetry, Metrics]:
    metrics = Metrics()
    settings = Settings(control_url="http://127.0.0.1:1", otlp_traces_url=url)
    return Telemetry(settings, metrics), metrics


def dropped(metrics: Metrics) -> dict[str, int]:
    lines = [line for line in metrics.render({}).decode().splitlines() if line.startswith("spendmesh_spans_dropped")]
    return {line.split('"')[1]: int(line.split()[-1]) for line in lines}


def test_a_full_queue_drops_spans_and_counts_them() -> None:
    exporter, metrics = telemetry()
    for _ in range(MAX_QUEUED + 3):
        exporter.record(exchange())
    assert dropped(metrics) == {"queue_full": 6}


def test_an_unsampled_trace_is_not_exported_and_counted() -> None:
    exporter, metrics = telemetry()
    exporter.record(exchange(sampled=False))
    assert dropped(metrics) == {"unsampled": 2}


def test_a_collector_that_refuses_costs_its_slice_and_nothing_else() -> None:
    async def scenario() -> tuple[int, dict[str, int]]:
        seen = 0

        async def take(request: web.BaseRequest) -> web.Response:
            nonlocal seen
            seen += len(json.loads(await request.read())["resourceSpans"][0]["scopeSpans"][0]["spans"])
            return web.Response(status=503)

        runner = web.ServerRunner(web.Server(take))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        exporter, metrics = telemetry(f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces")
        await exporter.start()
        for _ in range(40):
            exporter.record(exchange())
        await exporter.stop()
        await runner.cleanup()
        return seen, dropped(metrics)

    assert asyncio.run(scenario()) == (80, {"collector_refused": 80})


def test_batches_follow_each_other_on_one_connection_to_the_collector() -> None:
    """A connection with an unread answer is closed, and the next batch would begin with a new one and its TLS."""

    async def scenario() -> tuple[int, int]:
        connections = batches = 0

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections, batches
            connections += 1
            while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                batches += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
                await asyncio.sleep(0.05)  # a collector whose answer comes in two pieces
                writer.write(b"{}")
                if batches == 3:
                    break
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0, limit=2**22)
        exporter, metrics = telemetry(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces")
        await exporter.start()
        for _ in range(REQUEST_SPANS + REQUEST_SPANS // 4):  # each has two spans
            exporter.record(exchange())
        await exporter.stop()
        server.close()
        await server.wait_closed()
        assert dropped(metrics) == {}
        return connections, batches

    assert asyncio.run(scenario()) == (1, 3)
