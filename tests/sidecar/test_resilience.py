"""Failures reach a provider no oftener than policy allows, and end in one clear answer."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from raw_provider import RawConnection, RawProvider, answering
from sidecar_beside import chat, eventually
from sidecar_manifests import provider, retries, routing
from sidecar_world import World
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

# --- clients that retry too ---------------------------------------------------------------------------------


async def test_an_sdk_is_answered_before_it_gives_up_and_does_not_ask_again(world: World) -> None:
    """A provider that never answers: without an answer the SDK would send its call anew, while ours still runs."""
    await world.openai.chat.completions.create(**chat())  # its rights are here, so the next call is sent at once
    world.standin.faults(FaultRule("hang", bill="full"))
    client = world.openai.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(**chat(), extra_headers={"x-stainless-read-timeout": "0.2"})
    assert (failed.value.status_code, failed.value.code) == (504, "attempt_timeout")
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert await world.total("spendmesh_requests_total") == 2
    assert len(world.provider_requests()) <= 2


async def test_a_client_that_retries_all_the_same_is_counted_and_refused(empty_world: World) -> None:
    """A client that ignores x-should-retry: where no call is joined, its retries are paid for like ours."""
    world = await empty_world.start(retries(percent=0, minimum=1, failures=0, deduplication={"mode": "Off"}))
    for number, status in ((0, 200), (1, 200), (2, 503)):
        answer = await world.http.post(
            f"{world.url}/openai/v1/chat/completions",
            json=chat(),
            headers={"x-stainless-retry-count": str(number)},
        )
        assert answer.status == status
    assert answer.headers["x-should-retry"] == "false"
    assert len(world.provider_requests()) == 2
    for outcome in ("charged", "denied"):
        assert await world.total("spendmesh_client_retries_total", outcome=outcome) == 1


# --- what holds for all calls -----------------------------------------------------------------------------


async def test_row_19_a_huge_hint_holds_for_the_next_call_too(world: World) -> None:
    world.standin.faults(FaultRule("status", status=429, retry_after=120))
    with pytest.raises(openai.RateLimitError):
        await world.openai.chat.completions.create(**chat())
    with pytest.raises(openai.InternalServerError) as refused:
        await world.openai.chat.completions.create(**chat())
    assert refused.value.code == "target_unavailable"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 120
    assert len(world.provider_requests()) == 1
    world.standin.faults()
    await world.openai.chat.completions.create(**chat(model="spendmesh/economy"))  # another model is not paused


async def test_an_account_without_money_is_left_alone_and_shown(world: World) -> None:
    world.standin.faults(FaultRule("status", status=429, code="insufficient_quota", type="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as spent:
        await world.openai.chat.completions.create(**chat())
    assert spent.value.code == "insufficient_quota"
    for _ in range(3):
        with pytest.raises(openai.InternalServerError) as refused:
            await world.openai.chat.completions.create(**chat(model="spendmesh/premium"))
        assert refused.value.code == "target_unavailable" and "out of money" in str(refused.value)
    assert len(world.provider_requests()) == 1
    assert await world.total("spendmesh_account_unpaid", provider="openai") == 1
    assert await world.total("spendmesh_account_unpaid", provider="anthropic") == 0
    assert (await world.status())["unpaid"] == {"openai": "insufficient_quota"}
    assert await world.settled() == world.invoice_nanos == 0


async def test_an_observed_retry_budget_is_told_beside_the_one_that_acts(empty_world: World) -> None:
    observed = retries(attempts=1, mode="Observe")
    observed["metadata"] = {**observed["metadata"], "name": "next", "uid": "RetryBudget/next"}
    world = await empty_world.start(observed)
    world.standin.faults(FaultRule("status", status=503, first=2))
    await world.openai.chat.completions.create(**chat())
    assert len(world.provider_requests()) == 3
    assert await world.total("spendmesh_observed_retries_total", decision="retry") == 1
    assert await world.total("spendmesh_observed_retries_total", decision="attempts") == 1


# --- streams ----------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ERROR = b'data: {"error":{"message":"m","type":"server_error","code":"slow_down"}}\n\n'


async def start_with(world: World, script: Any, **retry: Any) -> RawProvider:
    """The script as main target, the stand-in as second one."""
    main = RawProvider(script)
    await world.serve(main)
    await world.start(sidecar=False)
    targets = [
        {"name": "first", "provider": "openai", "model": "medium-1"},
        {"name": "second", "provider": "backup", "model": "medium-1", "priority": 1},
    ]
    tiers = [{"name": "standard", "targets": targets}]
    route = routing("openai", "backup", tiers=tiers, rules=[], bounds=[], defaultTier="standard")
    backup = provider("backup", world.standin.openai_url)
    await world.apply(provider("openai", f"{main.url}/v1"), backup, route, retries(failures=0, **retry))
    await world.start_sidecar()
    return main


async def test_row_20_a_stream_that_begins_with_an_error_is_tried_again(empty_world: World) -> None:
    """Nothing of it went downstream: the client sees one whole stream, from the next target."""
    world = empty_world
    main = await start_with(world, answering(HEAD, ERROR, close=True), attempts=1)
    stream = await world.openai.chat.completions.create(**chat("[[out=5]]"), stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(main.requests) == 1 and len(world.provider_requests()) == 1
    assert await world.total("spendmesh_attempts_total", outcome="throttled") == 1


async def test_row_20_an_error_at_a_stream_s_begin_arrives_as_it_came_where_nothing_helps(empty_world: World) -> None:
    world = empty_world
    await start_with(world, answering(HEAD, ERROR, close=True), attempts=0)
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(stream=True)) as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert await answer.read() == ERROR


async def silent(connection: RawConnection) -> None:
    await connection.request()
    await connection.gone()


async def silent_after_its_head(connection: RawConnection) -> None:
    await connection.request()
    await connection.send(HEAD)
    await connection.gone()


@pytest.mark.parametrize("script", [silent, silent_after_its_head])
async def test_row_20_a_stream_that_does_not_begin_in_time_ends_in_one_answer(empty_world: World, script: Any) -> None:
    """Headers without a byte after them are no beginning."""
    world = empty_world
    main = await start_with(world, script, attempts=0, timeouts={"firstByte": "100ms"})
    with pytest.raises(openai.InternalServerError) as failed:
        await world.openai.chat.completions.create(**chat(stream=True))
    assert (failed.value.status_code, failed.value.code) == (504, "attempt_timeout")
    await world.quiet()
    await eventually(lambda: main.open == 0, "its connection is still open")
    assert len((await world.status())["rights"]) == 1 and world.rights.used > 0, "it is charged at its worst case"


async def falls_silent(connection: RawConnection) -> None:
    await connection.request()
    await connection.send(HEAD, b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    await connection.gone()


async def test_row_20_a_stream_that_falls_silent_breaks_off_and_is_charged(empty_world: World) -> None:
    """What has begun is never tried again: the client sees that its stream is not whole."""
    world = empty_world
    main = await start_with(world, falls_silent, timeouts={"streamIdle": "100ms"})
    stream = await world.openai.chat.completions.create(**chat(stream=True))
    with pytest.raises((openai.APIConnectionError, *_broken())):
        async for _ in stream:
            pass
    await world.quiet()
    assert len(main.requests) == 1 and world.provider_requests() == []
    assert world.rights.used > 0


def _broken() -> tuple[type[Exception], ...]:
    """What the SDK's transport raises while a body is read."""
    return (httpx2.RemoteProtocolError, httpx2.ReadError)
