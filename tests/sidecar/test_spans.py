"""Spans reach a collector, continue the caller's trace and add up; whatever becomes of it, calls do not notice."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sidecar_beside import attributes, chat, eventually, message
from sidecar_world import World
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def spans_of(world: World, **headers: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make a call; its exchange span and its attempt spans."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    await world.openai.chat.completions.create(**chat(), extra_headers=names)
    await world.stop_sidecar()
    (exchange,) = (span for span in world.collector.spans if span["kind"] == 1)
    return exchange, [span for span in world.collector.spans if span["kind"] == 3]


async def test_the_caller_s_trace_continues_to_the_provider(world: World) -> None:
    exchange, (attempt,) = await spans_of(world, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    assert (exchange["traceId"], exchange["parentSpanId"], exchange["traceState"]) == (TRACE, PARENT, "vendor=1")
    assert (attempt["traceId"], attempt["parentSpanId"]) == (TRACE, exchange["spanId"])
    (seen,) = world.provider_requests()
    assert dict(seen.headers)["traceparent"] == f"00-{TRACE}-{attempt['spanId']}-01"
    assert dict(seen.headers)["tracestate"] == "vendor=1"


@pytest.mark.parametrize("broken", ["", "00-xyz-1-01", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01"])
async def test_without_a_caller_s_trace_one_begins(world: World, broken: str) -> None:
    exchange, (attempt,) = await spans_of(world, traceparent=broken, tracestate="vendor=1")
    assert "parentSpanId" not in exchange
    assert exchange["traceId"] == attempt["traceId"] != TRACE
    (seen,) = world.provider_requests()
    assert dict(seen.headers)["traceparent"].split("-")[1:3] == [exchange["traceId"], attempt["spanId"]]
    assert "tracestate" not in dict(seen.headers)


async def test_a_trace_that_is_not_sampled_stays_so(world: World) -> None:
    await world.openai.chat.completions.create(**chat(), extra_headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await world.stop_sidecar()
    assert world.collector.spans == []
    assert dict(world.provider_requests()[0].headers)["traceparent"].endswith("-00")


async def test_a_span_says_what_was_decided_and_an_attempt_what_it_cost(world: World) -> None:
    exchange, (attempt,) = await spans_of(world, x_spendmesh_task="extract")
    said, spent = attributes(exchange), attributes(attempt)
    assert said["spendmesh.policy"] == "team-a/support@1"
    assert (said["spendmesh.tier"], said["spendmesh.task"], said["spendmesh.reason"]) == (
        "economy",
        "extract",
        "rule:extract",
    )
    assert said["spendmesh.budget"]["values"] == [{"stringValue": "team-a/team"}]
    assert attempt["name"] == "chat small-1"
    assert spent["gen_ai.operation.name"] == "chat" and spent["gen_ai.provider.name"] == "openai"
    assert spent["gen_ai.response.model"] == "small-1"
    (line,) = world.standin.invoice().lines
    assert int(spent["gen_ai.usage.input_tokens"]) == line.tokens.prompt
    assert int(spent["gen_ai.usage.output_tokens"]) == line.tokens.output
    assert (int(spent["spendmesh.cost.nanos"]), spent["spendmesh.cost.currency"]) == (line.cost_nanos, "USD")
    assert spent["spendmesh.usage.source"] == "exact"
    assert not [name for name in said if "cost" in name or "token" in name]


async def test_each_attempt_has_a_span_of_its_own_and_sums_are_true(world: World) -> None:
    world.standin.faults(FaultRule("status", status=500, first=1, bill="full"))
    exchange, attempts = await spans_of(world)
    first, second = (attributes(attempt) for attempt in attempts)
    assert {attempt["parentSpanId"] for attempt in attempts} == {exchange["spanId"]}
    assert (first["error.type"], first["http.response.status_code"]) == ("server_error", "500")
    assert (first["spendmesh.usage.source"], second["spendmesh.usage.source"]) == ("worst", "exact")
    assert second["http.request.resend_count"] == "1"
    assert world.collector.cost_nanos() == world.account().state.settled >= world.invoice_nanos


async def test_a_stream_says_when_its_first_chunk_came(world: World) -> None:
    async with world.anthropic.messages.stream(**message()) as stream:
        await stream.get_final_message()
    await world.stop_sidecar()
    (attempt,) = world.collector.attempts()
    assert attempt["gen_ai.response.time_to_first_chunk"] > 0
    assert attempt["gen_ai.response.finish_reasons"]["values"] == [{"stringValue": "end_turn"}]


async def test_a_refused_call_has_a_span_that_says_why(world: World) -> None:
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(model="nobody-s")) as got:
        assert got.status == 403
    await world.stop_sidecar()
    (span,) = world.collector.spans
    assert attributes(span)["error.type"] == "model_unpriced"
    assert span["status"] == {"code": 2}


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(empty_world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        world = await empty_world.start(otlp_traces_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1/traces")
        for _ in range(5):
            assert (await world.openai.chat.completions.create(**chat())).choices

        async def counted() -> bool:
            return await world.total("spendmesh_spans_dropped_total") == 10

        await eventually(counted)
        assert await world.close_the_books() == world.invoice_nanos > 0


async def test_a_collector_that_never_answers_holds_up_no_call(empty_world: World) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        world = await empty_world.start(otlp_traces_url=f"http://127.0.0.1:{port}/v1/traces")
        for _ in range(5):
            assert (await world.openai.chat.completions.create(**chat())).choices
        await world.quiet()
        assert world.rights.used == world.invoice_nanos > 0
        await world.stop_sidecar()
