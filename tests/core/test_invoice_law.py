"""Parsing, scanning and pricing against a provider that keeps its own invoice: equal when clean, never below it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from spendmesh_operator.prices import load_table
from spendmesh_sidecar.core.operations import parse, parse_request, rewrite
from spendmesh_sidecar.core.operations.headers import ClientHeaders, credentials, upstream_headers
from spendmesh_sidecar.core.outcome import Actual, actual, answered, broken
from spendmesh_sidecar.core.prices.costs import Pricing, cost, worst_cost
from spendmesh_sidecar.core.specs import ProviderSpec
from spendmesh_sidecar.core.types import Kind
from spendmesh_sidecar.core.usage.scanners import scanner
from spendmesh_standin import DEFAULT_KEYS, FaultRule, InvoiceLine, Settings, StandIn

PRICING = Pricing(load_table().lists)
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Settled:
    """One call as the ledger would have it."""

    actual: Actual
    nanos: int
    reserved: int


class Market:
    """A running stand-in, called with what the pure layer makes of a request."""

    def __init__(self, standin: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        self.standin = standin
        self._loop = loop

    def faults(self, *rules: FaultRule) -> None:
        async def act() -> None:
            self.standin.faults(*rules)

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(DEADLINE_SECONDS)

    def invoice(self) -> InvoiceLine:
        """The only line, as soon as it is there: a call is booked when it has ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if lines := self._lines():
                (line,) = lines
                return line
            time.sleep(0.01)
        raise AssertionError("the stand-in booked nothing")

    def _lines(self) -> tuple[InvoiceLine, ...]:
        async def act() -> tuple[InvoiceLine, ...]:
            return self.standin.invoice().lines

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(DEADLINE_SECONDS)

    def call(self, path: str, body: dict[str, Any]) -> Settled:
        """Reserve, send, scan and settle one call."""
        operation = parse("POST", path).operation
        request = parse_request(operation, json.dumps(body).encode(), [])
        assert request.unpriced_fields == ()
        anthropic = operation.dialect == "Anthropic"
        provider = ProviderSpec(
            alias="a", ref="n/a", dialect=operation.dialect, base_url="", price_list=operation.dialect.lower()
        )
        price = PRICING.resolve(provider, request.model)
        assert price is not None
        bounds = request.bounds
        maximum = bounds.max_output_tokens or price.max_output_tokens if bounds.output_field else 0
        assert maximum is not None
        now = int(time.time())
        reserved = worst_cost(price, request.bounds, maximum, now)
        watch = scanner(operation, request.stream, "long" in request.bounds.cache_writes)
        client_headers = ClientHeaders.of([("anthropic-version", "2023-06-01")])
        key = credentials(operation.dialect, DEFAULT_KEYS[1 if anthropic else 0].secret)
        headers = dict([*upstream_headers(operation.dialect, client_headers).items(), key])
        sent = rewrite(request, request.model, maximum or None, True)
        base = "" if anthropic else "/v1"
        connection = http.client.HTTPConnection("127.0.0.1", self.standin.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request("POST", base + operation.upstream_path, sent, headers)
            response = connection.getresponse()
            status, given = response.status, response.getheaders()
            error = response.read() if status != 200 else b""
            while status == 200 and (chunk := response.read1(37)):
                watch.feed(chunk)
            outcome = answered(operation.dialect, status, given, error, now, watch.observe())
        except (http.client.HTTPException, ConnectionError):
            outcome = broken(Kind.CUT, watch.observe())
        finally:
            connection.close()
        found = actual(operation.dialect, outcome, request.bounds, maximum, price)
        nanos = {"worst": reserved, "void": 0}.get(found.source)
        if nanos is None:
            nanos = cost(price, found.usage, now, request.bounds.service_tiers)
        return Settled(found, nanos, reserved)


@pytest.fixture(scope="module")
def running() -> Iterator[Market]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    standin = StandIn(Settings())
    asyncio.run_coroutine_threadsafe(standin.start(), loop).result(DEADLINE_SECONDS)
    yield Market(standin, loop)
    asyncio.run_coroutine_threadsafe(standin.stop(), loop).result(DEADLINE_SECONDS)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE_SECONDS)
    loop.close()


@pytest.fixture
def market(running: Market) -> Market:
    running.faults()
    asyncio.run_coroutine_threadsafe(_reset(running.standin), running._loop).result(DEADLINE_SECONDS)
    return running


async def _reset(standin: StandIn) -> None:
    standin.reset()


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text + " " + "padding " * 200}]


CHAT, MESSAGES, EMBEDDINGS = "/openai/v1/chat/completions", "/anthropic/v1/messages", "/openai/v1/embeddings"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "gpt-4o", "messages": said("[[out=40]]")}),
    "chat n": (CHAT, {"model": "gpt-4o-mini", "messages": said("[[out=40]][[cached=128]]"), "n": 3, "max_tokens": 50}),
    "chat tier": (CHAT, {"model": "gpt-4o", "messages": said("[[out=9]]"), "service_tier": "priority"}),
    "chat tokens": (CHAT, {"model": "gpt-4o", "messages": said("[[in=1500]][[out=9]]")}),
    "chat thinking": (CHAT, {"model": "gpt-5-mini", "messages": said("[[out=9]][[reasoning=70]]")}),
    "chat prediction": (
        CHAT,
        {"model": "gpt-4o", "messages": said("[[out=9]]"), "prediction": {"type": "content", "content": "x " * 400}},
    ),
    "messages": (MESSAGES, {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": said("[[out=40]]")}),
    "messages thinking": (
        MESSAGES,
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 2_000,
            "thinking": {"type": "enabled", "budget_tokens": 1_024},
            "messages": said("[[out=40]][[reasoning=70]]"),
        },
    ),
    "messages cached": (
        MESSAGES,
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 99,
            "system": [
                {"type": "text", "text": "s " * 9_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "text", "text": "t " * 9_000, "cache_control": {"type": "ephemeral"}},
            ],
            "messages": said("[[out=40]]"),
        },
    ),
    "messages long": (
        MESSAGES,
        {"model": "claude-haiku-5-5", "max_tokens": 99, "messages": said("[[in=150000]][[out=9]]" + "x" * 150_000)},
    ),
    "embeddings": (EMBEDDINGS, {"model": "text-embedding-3-small", "input": ["a text", "another"] * 20}),
}
WAYS = [(name, stream) for name in CALLS for stream in (False, True) if not (stream and name == "embeddings")]


@pytest.mark.parametrize(("name", "stream"), WAYS)
def test_a_clean_call_is_settled_at_exactly_its_invoice(market: Market, name: str, stream: bool) -> None:
    """Every class of token, tiers, long context, choices, predictions: settled = invoiced ≤ reserved."""
    path, body = CALLS[name]
    settled = market.call(path, {**body, "stream": True} if stream else body)
    assert settled.actual.source == "exact"
    assert not settled.actual.excess
    assert 0 < settled.nanos == market.invoice().cost_nanos <= settled.reserved


@pytest.mark.parametrize(
    "style", ["crlf", "cr", "comments", "no_space", "split_utf8", "one_byte", "no_done", "after_done"]
)
@pytest.mark.parametrize("name", ["chat", "messages"])
def test_row_24_no_framing_changes_the_bill(market: Market, name: str, style: Any) -> None:
    """Row 24: however the stream is written, its usage is read."""
    market.faults(FaultRule("framing", styles=(style,)))
    path, body = CALLS[name]
    settled = market.call(path, {**body, "stream": True})
    assert settled.actual.source == "exact"
    assert settled.nanos == market.invoice().cost_nanos


FAULTS: dict[str, FaultRule] = {
    "reset": FaultRule("reset", bill="full"),
    "reset after chunks": FaultRule("reset_after_chunks", chunks=3, bill="full"),
    "clean end after chunks": FaultRule("reset_after_chunks", chunks=3, bill="full", clean=True),
    "error event": FaultRule("error_event", chunks=3, bill="full"),
    "error in 200": FaultRule("error_in_200", bill="full"),
    "500": FaultRule("status", status=500, bill="full"),
    "408": FaultRule("status", status=408, bill="full"),
    "503": FaultRule("status", status=503, bill="full", retry_after=1),
    "no usage": FaultRule("no_usage"),
    "zero usage": FaultRule("zero_usage"),
    "double usage": FaultRule("double_usage"),
    "cache writes": FaultRule("cache_writes", tokens=100),
    "cache writes of an hour": FaultRule("cache_writes", tokens=100, ttl="1h"),
    "reasoning outside": FaultRule("reasoning_outside", tokens=60),
    "tier upgrade": FaultRule("tier_upgrade", tier="priority", price_percent=100),
    "gzip": FaultRule("framing", styles=("gzip",)),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["chat", "messages"])
def test_row_20_no_fault_settles_below_the_invoice(market: Market, name: str, fault: str, stream: bool) -> None:
    """Row 20: failed attempts that are billed, usage that is missing, zero, twice or beside the count."""
    market.faults(FAULTS[fault])
    path, body = CALLS[name]
    settled = market.call(path, {**body, "stream": True} if stream else body)
    invoiced = market.invoice().cost_nanos
    assert invoiced <= settled.nanos <= settled.reserved
    assert invoiced > 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 529])
@pytest.mark.parametrize("name", ["messages", "chat"])
def test_what_is_free_before_output_stays_free(market: Market, name: str, status: int) -> None:
    """A storm of 429 leaves a budget as it was."""
    market.faults(FaultRule("status", status=status, bill="none", code="unsupported_value"))
    path, body = CALLS[name]
    settled = market.call(path, body)
    assert (settled.actual.source, settled.nanos, market.invoice().cost_nanos) == ("void", 0, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["chat", "messages"])
def test_usage_above_what_is_possible_is_marked(market: Market, name: str, stream: bool) -> None:
    """A provider that lies upwards is found out; its report is kept, and is far above the reservation."""
    market.faults(FaultRule("lying_usage"))
    path, body = CALLS[name]
    settled = market.call(path, {**body, "stream": True} if stream else body)
    assert settled.actual.excess
    assert settled.nanos > settled.reserved
