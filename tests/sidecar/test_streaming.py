"""A stream passes as it comes, ends as it ended, and is read to its end for the bill."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import psutil
import pytest
from aiohttp import web

from sidecar_beside import DEADLINE_SECONDS, Rogue, chat, eventually, message
from sidecar_manifests import provider
from sidecar_world import World
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

STYLES = ["crlf", "cr", "comments", "no_space", "split_utf8", "one_byte", "after_done", "gzip"]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["unasked", "usage"])
async def test_each_openai_chunk_arrives_before_the_next_one_exists(world: World, options: dict[str, Any]) -> None:
    world.standin.faults(FaultRule("withhold", stream=True))
    words = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for chunk in await world.openai.chat.completions.create(**chat("[[out=12]]"), **options, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                words.append(chunk.choices[0].delta.content)
                world.standin.acknowledge(chunk.id)
    assert len(words) == 12


async def test_each_anthropic_event_arrives_before_the_next_one_exists(world: World) -> None:
    world.standin.faults(FaultRule("withhold", stream=True))
    words, identifier = [], ""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in await world.anthropic.messages.create(**message("[[out=12]]"), stream=True):
            if event.type == "message_start":
                identifier = event.message.id
            if event.type == "content_block_delta":
                words.append(event.delta.text)
                world.standin.acknowledge(identifier)
    assert len(words) == 12


@pytest.mark.parametrize("style", STYLES)
async def test_any_framing_of_a_stream_arrives_whole_and_is_billed_exactly(world: World, style: Any) -> None:
    asked = chat("café [[out=6]]")
    plain = [
        chunk.choices[0].delta
        async for chunk in await world.direct_openai.chat.completions.create(
            **{**asked, "model": "medium-1"}, stream=True
        )
    ]
    before = world.invoice_nanos
    world.standin.faults(FaultRule("framing", styles=(style,)))
    framed = [
        chunk.choices[0].delta async for chunk in await world.openai.chat.completions.create(**asked, stream=True)
    ]
    assert framed == plain
    assert await world.settled() == world.invoice_nanos - before > 0


@pytest.mark.parametrize("style", STYLES)
async def test_any_framing_of_an_anthropic_stream_is_billed_exactly(world: World, style: Any) -> None:
    world.standin.faults(FaultRule("framing", styles=(style,)))
    async with world.anthropic.messages.stream(**message("café [[out=6]]")) as stream:
        assert len((await stream.get_final_text()).split()) == 6
    assert await world.settled() == world.invoice_nanos > 0


async def test_a_stream_without_its_end_mark_ends_for_the_client_as_it_ended(world: World) -> None:
    world.standin.faults(FaultRule("framing", styles=("no_done",)))
    chunks = [chunk async for chunk in await world.openai.chat.completions.create(**chat("[[out=4]]"), stream=True)]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert await world.settled() >= world.invoice_nanos > 0


@pytest.mark.parametrize("clean", [False, True], ids=["reset", "closed"])
@pytest.mark.parametrize("bill", ["full", "streamed"])
async def test_a_stream_that_is_cut_is_cut_for_the_client_and_settled_at_least_at_the_invoice(
    world: World, clean: bool, bill: Any
) -> None:
    world.standin.faults(FaultRule("reset_after_chunks", chunks=3, clean=clean, bill=bill))
    words = 0
    with pytest.raises((openai.APIConnectionError, *_broken())):
        async for chunk in await world.openai.chat.completions.create(**chat("[[out=500]]"), stream=True):
            words += bool(chunk.choices[0].delta.content)
    assert words == 3
    assert len(world.provider_requests()) == 1, "what went downstream is not tried again"
    await _at_least_the_invoice(world)


async def test_an_anthropic_stream_that_is_cut_is_settled_at_least_at_the_invoice(world: World) -> None:
    world.standin.faults(FaultRule("reset_after_chunks", chunks=3, bill="full"))
    with pytest.raises((anthropic.APIConnectionError, *_broken())):
        async for _ in await world.anthropic.messages.create(**message("[[out=500]]"), stream=True):
            pass
    await _at_least_the_invoice(world)


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule("no_usage"),
        FaultRule("zero_usage"),
        FaultRule("double_usage"),
        FaultRule("reasoning_outside", tokens=400),
        FaultRule("error_event", chunks=3, bill="full"),
        FaultRule("tier_upgrade", tier="priority"),
    ],
    ids=lambda rule: rule.action,
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_misreported_answer_is_settled_at_least_at_the_invoice(
    world: World, dialect: str, stream: bool, rule: FaultRule
) -> None:
    world.standin.faults(rule)
    text = "[[out=300]]"
    try:
        if dialect == "openai":
            answer: Any = await world.openai.chat.completions.create(**chat(text, max_tokens=2000), stream=stream)
        else:
            answer = await world.anthropic.messages.create(**message(text), stream=stream)
        if stream:
            assert [part async for part in answer]
    except (openai.APIError, anthropic.APIError):
        assert rule.action == "error_event"
    await _at_least_the_invoice(world)


async def test_a_client_that_leaves_is_billed_what_the_provider_bills(world: World) -> None:
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=30]]"), stream=True)
    chunk = await anext(aiter(stream))
    await stream.close()
    await eventually(lambda: world.sidecar.plane.draining)
    world.standin.acknowledge(chunk.id, 100)
    settled = await world.settled()
    (line,) = world.standin.invoice().lines
    assert (line.reason, line.tokens.output) == ("ok", 30)
    assert settled == line.cost_nanos
    assert await world.total("spendmesh_requests_total", status="499") == 1


async def test_a_client_that_leaves_a_silent_stream_is_waited_for_a_bounded_time(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(drain_seconds=0.05))
    world.standin.faults(FaultRule("stall", chunks=2, bill="full"))
    stream = await world.openai.chat.completions.create(**chat("[[out=500]]"), stream=True)
    await anext(aiter(stream))
    await stream.close()
    await _at_least_the_invoice(world)


async def test_too_many_answers_without_a_reader_are_cut_and_charged(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(drains=2))
    world.standin.faults(FaultRule("stall", chunks=1, bill="full"))
    streams = [await world.openai.chat.completions.create(**chat("[[out=50]]"), stream=True) for _ in range(4)]
    for stream in streams:
        await anext(aiter(stream))
        await stream.close()
    await eventually(lambda: world.sidecar.plane.active == 2)
    assert world.sidecar.plane.draining == 2
    await world.standin.stop()
    await _at_least_the_invoice(world)


async def test_a_client_that_leaves_before_the_answer_is_billed_what_the_provider_bills(world: World) -> None:
    world.standin.faults(FaultRule("slow", ttft_seconds=1.0))  # the client is gone before the answer comes
    call = asyncio.create_task(world.openai.chat.completions.create(**chat("[[out=30]]")))
    await eventually(lambda: world.standin.in_flight)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await eventually(lambda: world.sidecar.plane.draining)
    assert await world.settled() == world.invoice_nanos > 0


async def test_a_client_that_leaves_during_a_pause_gets_no_further_attempt(world: World) -> None:
    world.standin.faults(FaultRule("status", status=429, retry_after=4, first=1))
    call = asyncio.create_task(world.openai.chat.completions.create(**chat()))
    await eventually(lambda: world.sidecar.plane.breakers and world.provider_requests() and not world.standin.in_flight)
    await eventually(lambda: not world.sidecar.plane.ledger.open_reservations)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await world.settled() == world.invoice_nanos == 0
    assert len(world.provider_requests()) == 1


async def test_what_came_before_a_cut_reaches_a_slow_reader(empty_world: World) -> None:
    """A cut loses no byte that the provider had sent, and never looks like an end."""
    world, torrent = empty_world, Torrent()
    torrent.PIECES, torrent.cut = 20, True
    await world.start(sidecar=False)
    await world.serve(torrent)
    await world.apply(provider("openai", f"{torrent.url}/v1"))
    await world.start_sidecar()
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(stream=True)) as response:
        await eventually(lambda: not world.sidecar.plane.active, "the sidecar still waits for the reader")
        size = 0
        with pytest.raises(aiohttp.ClientPayloadError):
            async for chunk in response.content.iter_any():
                size += len(chunk)
    assert size == 20 * len(torrent.PIECE)


async def test_a_reader_that_does_not_read_holds_the_provider_back(empty_world: World) -> None:
    """The sidecar keeps no more of a stream than its buffers hold."""
    world, torrent = empty_world, Torrent()
    torrent.PIECES = 1200  # 78 MB: more than Linux's largest buffers of two connections, which grow under load
    await world.start(sidecar=False)
    await world.serve(torrent)
    await world.apply(provider("openai", f"{torrent.url}/v1"))
    await world.start_sidecar()
    payload = chat(stream=True)
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=payload) as response:
        await eventually(lambda: torrent.held_back)
        size = sum([len(chunk) async for chunk in response.content.iter_any()])
    assert size >= torrent.PIECES * len(torrent.PIECE)
    assert await world.settled() > 0


async def test_row_24_a_line_without_an_end_passes_in_bounded_memory_and_settles_the_worst(empty_world: World) -> None:
    world, torrent = empty_world, Torrent()
    torrent.PIECE, torrent.PIECES = b"x" * 65_000, 300
    await world.start(sidecar=False)
    await world.serve(torrent)
    await world.apply(provider("openai", f"{torrent.url}/v1"))
    await world.start_sidecar()
    before = psutil.Process().memory_info().rss
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(stream=True)) as response:
        size = sum([len(chunk) async for chunk in response.content.iter_any()])
    assert size >= 300 * 65_000
    assert psutil.Process().memory_info().rss - before < 15_000_000
    assert await world.settled() > 30_000_000, "the worst case of an answer without a maximum"


class Torrent(Rogue):
    """A provider that streams much more than all buffers on the way hold."""

    PIECE = b": " + b"x" * 65_000 + b"\n\n"
    PIECES = 500
    held_back = False
    cut = False

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(self.PIECES):
            writing = asyncio.create_task(response.write(self.PIECE))
            done, _ = await asyncio.wait({writing}, timeout=0.2)
            self.held_back = self.held_back or not done
            await writing
        if self.cut:
            await eventually(lambda: request.transport is None or not request.transport.get_write_buffer_size())
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(b"data: [DONE]\n\n")
        return response


def _broken() -> tuple[type[Exception], ...]:
    """What the SDKs' transport raises while a body is read."""
    return (httpx2.RemoteProtocolError, httpx2.ReadError)


async def _at_least_the_invoice(world: World) -> None:
    used = await world.settled()
    await eventually(lambda: not world.standin.in_flight)
    assert used >= world.invoice_nanos > 0
    await world.stop_sidecar()
    account = world.account()
    assert (account.state.settled, account.held, account.quarantined) == (used, 0, 0)
    assert world.collector.cost_nanos() == used
