"""Spans: OTLP/HTTP JSON as a collector reads it, W3C context, and what happens when nobody takes them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from spendmesh_sidecar.core.types import Decision, Kind, Operation, Settlement, Usage
from spendmesh_sidecar.metrics import Metrics
from spendmesh_sidecar.settings import Settings
from spendmesh_sidecar.telemetry import MAX_QUEUED, AttemptSpan, ExchangeSpan, Telemetry, TraceContext, encode

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
        AttemptSpan("b" * 15 + str(s.number), CHAT, False, "api.example", 443, "OpenAI", 1.0, 2.0, settlement=s)
        for s in settlements
    )
    context = TraceContext(TRACE, PARENT, sampled)
    decision = Decision("team-a/p@1", "standard", "default", "openai/medium-1", attempts, settlements)
    return ExchangeSpan(context, "a" * 16, "r", CHAT, "chat", 1.0, 2.5, 200, "", decision, ("team-a/team",), spans)


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def test_tokens_and_cost_stand_on_attempts_only_so_that_sums_over_spans_are_true() -> None:
    encoded = json.loads(encode({"attributes": []}, [exchange(attempts=2)]))
    parent, *attempts = encoded["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert not {key for key in attributes(parent) if "cost" in key or "usage" in key}
    assert [int(attributes(a)["spendmesh.cost.nanos"]) for a in attempts] == [2**53 + 1, 2**53 + 2]
    assert {attributes(a)["gen_ai.usage.input_tokens"] for a in attempts} == {"125"}
    assert all(a["parentSpanId"] == parent["spanId"] and a["traceId"] == TRACE for a in attempts)
    assert (parent["kind"], attempts[0]["kind"]) == (1, 3)


def test_64_bit_integers_are_strings_as_the_proto3_json_mapping_demands() -> None:
    span = json.loads(encode({"attributes": []}, [exchange()]))["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    assert span["startTimeUnixNano"] == "1000000000"
    assert {"key": "spendmesh.cost.nanos", "value": {"intValue": str(2**53 + 1)}} in span["attributes"]


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
