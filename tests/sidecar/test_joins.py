"""A call that repeats another one gets that one's answer: the provider is asked, and paid, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anthropic
import openai
import pytest

from relay import Relay
from sidecar_beside import anthropic_client, chat, eventually, message, openai_client
from sidecar_manifests import provider, retries
from sidecar_world import World

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


class Lines:
    """A world whose provider can be held, and whose clients come over a line that can break."""

    def __init__(self, world: World, to_provider: Relay, to_sidecar: Relay) -> None:
        self.world, self.to_provider, self.to_sidecar = world, to_provider, to_sidecar

    @property
    def joins(self) -> Any:
        return self.world.sidecar.plane.joins

    async def asked(self, calls: int = 1) -> None:
        """Wait until so many calls have reached the provider."""
        await eventually(lambda: len(self.world.provider_requests()) == calls)

    async def joined(self, calls: int = 1, outcome: str = "in_flight") -> None:
        """Wait until so many calls have got another one's answer."""
        await eventually(lambda: self.joins.outcomes[outcome] == calls)

    async def deserted(self) -> None:
        """Wait until the sidecar reads an answer for nobody."""
        await eventually(lambda: self.world.sidecar.plane.draining)

    def post(self, retry: int = 0, body: Json | None = None, **headers: str) -> asyncio.Task[tuple[int, Any, bytes]]:
        """A call of a client that marks its retries, over the line."""
        marked = {"x-stainless-retry-count": str(retry), **{name.replace("_", "-"): headers[name] for name in headers}}

        async def ask() -> tuple[int, Any, bytes]:
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"{self.to_sidecar.url}/openai/v1/chat/completions", json=body or chat(), headers=marked
                ) as answer,
            ):
                return answer.status, answer.headers, await answer.read()

        return asyncio.create_task(ask())


async def lines(world: World, held: bool = True, **spec: Any) -> Lines:
    """Start the world between two lines. Every retry of a client that joins nothing is refused."""
    await world.start(sidecar=False)
    to_provider = Relay(urlsplit(world.standin.url).port or 0, held=held)
    await world.serve(to_provider)
    objects = (
        provider("openai", f"{to_provider.url}/v1"),
        provider("anthropic", to_provider.url, "Anthropic"),
        retries(**{"percent": 0, "minimum": 0, "failures": 0, **spec}),
    )
    await world.apply(*objects)
    await world.start_sidecar()
    to_sidecar = Relay(world.sidecar.address.port)
    await world.serve(to_sidecar)
    return Lines(world, to_provider, to_sidecar)


# --- the official SDKs, with their own retries on ---------------------------------------------------------

Ask = Callable[[str], Awaitable[str]]


async def openai_async(url: str) -> str:
    async with openai_client(f"{url}/openai/v1", max_retries=2) as client:
        return (await client.chat.completions.create(**chat())).id


async def openai_sync(url: str) -> str:
    def ask() -> str:
        with openai.OpenAI(base_url=f"{url}/openai/v1", api_key="injected", max_retries=2) as client:
            return client.chat.completions.create(**chat()).id

    return await asyncio.to_thread(ask)


async def openai_stream(url: str) -> str:
    async with openai_client(f"{url}/openai/v1", max_retries=2) as client:
        stream = await client.chat.completions.create(**chat(), stream=True)
        return [chunk async for chunk in stream][-1].id


async def anthropic_async(url: str) -> str:
    async with anthropic_client(f"{url}/anthropic", max_retries=2) as client:
        return (await client.messages.create(**message())).id


async def anthropic_sync(url: str) -> str:
    def ask() -> str:
        with anthropic.Anthropic(base_url=f"{url}/anthropic", api_key="injected", max_retries=2) as client:
            return client.messages.create(**message()).id

    return await asyncio.to_thread(ask)


async def anthropic_stream(url: str) -> str:
    async with (
        anthropic_client(f"{url}/anthropic", max_retries=2) as client,
        client.messages.stream(**message()) as stream,
    ):
        return (await stream.get_final_message()).id


SDKS: dict[str, Ask] = {
    each.__name__: each
    for each in (openai_async, openai_sync, openai_stream, anthropic_async, anthropic_sync, anthropic_stream)
}


@pytest.mark.parametrize("ask", SDKS.values(), ids=SDKS)
async def test_an_sdk_that_lost_its_connection_joins_its_own_call(empty_world: World, ask: Ask) -> None:
    """The SDK asks anew while the provider still works on its first call: one call, one bill, no retry paid."""
    world = empty_world
    beside = await lines(world)
    answer = asyncio.ensure_future(ask(beside.to_sidecar.url))
    await beside.asked()
    beside.to_sidecar.cut()
    await beside.joined()
    beside.to_provider.release()
    assert await answer
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0
    assert await world.total("spendmesh_client_retries_total", outcome="joined") == 1
    assert await world.total("spendmesh_client_retries_total") == 1


@pytest.mark.parametrize("ask", SDKS.values(), ids=SDKS)
async def test_an_sdk_that_comes_after_the_end_gets_the_answer_that_was_kept(empty_world: World, ask: Ask) -> None:
    """Its first call was served to nobody; the provider is not asked again."""
    world = empty_world
    beside = await lines(world)
    answer = asyncio.ensure_future(ask(beside.to_sidecar.url))
    await beside.asked()
    beside.to_sidecar.hold()  # what comes back now is lost on the way
    beside.to_provider.release()
    await eventually(lambda: world.invoice_nanos and not world.sidecar.plane.active)
    beside.to_sidecar.cut()
    beside.to_sidecar.release()
    assert await answer
    assert beside.joins.outcomes == {"kept": 1}
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0
