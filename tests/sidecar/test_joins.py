"""A call that repeats another one gets that one's answer: the provider is asked, and paid, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anthropic
import openai
import pytest

from relay import Relay
from sidecar_beside import DEADLINE_SECONDS, anthropic_client, attributes, chat, eventually, message, openai_client
from sidecar_manifests import provider, retries
from sidecar_world import World
from spendmesh_standin import FaultRule

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

    async def lose(self) -> None:
        """A client leaves while its call is with the provider."""
        lost = self.post()
        await self.asked()
        lost.cancel()
        await self.deserted()

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
    plane = world.sidecar.plane
    assert plane.client_retries.standing(plane.clock.monotonic()) == ("marked",)


@pytest.mark.parametrize("ask", SDKS.values(), ids=SDKS)
async def test_an_sdk_that_comes_after_the_end_gets_the_answer_that_was_kept(empty_world: World, ask: Ask) -> None:
    """Its first call was served to nobody; the provider is not asked again."""
    world = empty_world
    beside = await lines(world)
    answer = asyncio.ensure_future(ask(beside.to_sidecar.url))
    await beside.asked()
    beside.to_sidecar.shut()
    beside.to_sidecar.cut()
    await beside.deserted()
    beside.to_provider.release()
    await world.quiet()
    beside.to_sidecar.open()
    assert await answer
    assert beside.joins.outcomes == {"kept": 1}
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0


async def test_an_sdk_that_gives_up_waiting_asks_the_provider_once(empty_world: World) -> None:
    """The SDK's own clock runs out, again and again, before the provider answers, and it has not said how long."""
    world = empty_world
    beside = await lines(world, percent=100, minimum=1000)
    client = await world.client(f"{world.url}/openai/v1", max_retries=9, timeout=0.3)
    patient = {"x-stainless-read-timeout": "600"}
    answer = asyncio.ensure_future(client.chat.completions.create(**chat(), extra_headers=patient))
    await eventually(lambda: beside.joins.outcomes["in_flight"] >= 1)
    beside.to_provider.release()
    assert (await answer).choices
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0


# --- what a joined call is told ---------------------------------------------------------------------------


async def test_a_joined_call_says_what_it_added_which_is_nothing(empty_world: World) -> None:
    """Costs and attempts of all answers add up to what the provider did, in headers and in spans."""
    world = empty_world
    beside = await lines(world, held=False, deduplication={"mode": "All"})
    _, first, whole = await beside.post()
    status, headers, body = await beside.post(1)
    assert (status, body) == (200, whole)
    assert headers["x-spendmesh-joined"] == first["x-spendmesh-request-id"] != headers["x-spendmesh-request-id"]
    assert (headers["x-spendmesh-cost"], headers["x-spendmesh-attempts"]) == ("0.000000 USD", "0")
    for name in ("x-spendmesh-policy", "x-spendmesh-tier", "x-spendmesh-model", "x-spendmesh-reason", "content-type"):
        assert headers[name] == first[name]
    assert await world.total("spendmesh_requests_total", status="200") == 2
    assert await world.total("spendmesh_attempts_total") == 1
    assert await world.total("spendmesh_joins_total", outcome="kept") == 1
    assert await world.total("spendmesh_joinable_bytes") > len(whole)
    await world.stop_sidecar()
    exchanges = [attributes(span) for span in world.collector.spans if span["kind"] == 1]
    assert [each.get("spendmesh.joined") for each in exchanges] == [None, first["x-spendmesh-request-id"]]
    assert len(world.collector.attempts()) == 1 and world.collector.cost_nanos() == world.invoice_nanos


async def test_what_the_request_itself_got_wrong_is_answered_again(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world, held=False)
    world.standin.faults(FaultRule("status", status=400))
    first, again = await beside.post(), await beside.post(1)
    assert (first[0], first[2]) == (again[0], again[2]) and first[0] == 400
    assert again[1]["x-should-retry"] == "false"
    assert len(world.provider_requests()) == 1


# --- tries of one call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [1, 5])
async def test_a_client_that_never_stops_retrying_gets_the_tries_of_one_call(empty_world: World, marked: int) -> None:
    """It ignores x-should-retry: one retry of ours and the first try are all that the provider sees."""
    world = empty_world
    beside = await lines(world, held=False, attempts=1, percent=100, minimum=1000)
    world.standin.faults(FaultRule("status", status=503))
    assert [(await beside.post(number))[0] for number in range(marked + 1)] == [503] * (marked + 1)
    assert len(world.provider_requests()) == 2
    world.standin.faults()
    assert (await beside.post())[0] == 200, "a first try is a new call"


async def test_a_retry_goes_on_with_the_tries_that_its_lost_call_has_left(empty_world: World) -> None:
    """The first try was read for nobody and not repeated, as nobody was there; the retry makes the second one."""
    world = empty_world
    beside = await lines(world, attempts=1, percent=100, minimum=1000)
    world.standin.faults(FaultRule("status", status=503))
    await beside.lose()
    beside.to_provider.release()
    await world.quiet()
    assert (await beside.post(1))[0] == (await beside.post(2))[0] == 503
    assert len(world.provider_requests()) == 2
    assert await world.total("spendmesh_client_retries_total", outcome="charged") == 1


async def test_a_call_is_retried_for_those_who_joined_it(empty_world: World) -> None:
    """Its own client has left, and its first try fails: as somebody is there, the next one is made."""
    world = empty_world
    beside = await lines(world, attempts=1, percent=100, minimum=1000)
    world.standin.faults(FaultRule("status", status=503, first=1))
    await beside.lose()
    again = beside.post(1)
    await beside.joined()
    assert not world.sidecar.plane.draining
    beside.to_provider.release()
    assert (await again)[0] == 200
    assert len(world.provider_requests()) == 2
    assert await world.total("spendmesh_client_retries_total", outcome="charged") == 0


async def test_the_last_who_leaves_ends_the_tries_of_a_call(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world, attempts=1, percent=100, minimum=1000)
    world.standin.faults(FaultRule("status", status=503))
    await beside.lose()
    again = beside.post(1)
    await beside.joined()
    again.cancel()
    await beside.deserted()
    beside.to_provider.release()
    await world.quiet()
    assert len(world.provider_requests()) == 1


# --- what is not joined -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"x_spendmesh_user": "ben"},
        {"x_spendmesh_session": "s2"},
        {"body": chat("another question")},
        {"accept": "application/xml"},
    ],
    ids=lambda each: next(iter(each)),
)
async def test_a_retry_of_somebody_else_is_a_call_of_its_own(empty_world: World, other: Json) -> None:
    world = empty_world
    beside = await lines(world, percent=0, minimum=1)
    own = {"x_spendmesh_user": "ada", "x_spendmesh_session": "s1", "accept": "*/*"}
    calls = [beside.post(0, **own)]
    await beside.asked()
    calls.append(beside.post(1, **{**own, **other}))
    await beside.asked(2)
    beside.to_provider.release()
    assert [(await each)[0] for each in calls] == [200, 200]
    assert beside.joins.outcomes == {"missed": 1}


async def test_equal_calls_that_are_no_retries_stay_apart(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world)
    calls = [beside.post() for _ in range(3)]
    await beside.asked(3)
    beside.to_provider.release()
    answers = [await each for each in calls]
    assert {status for status, _, _ in answers} == {200}
    assert not any("x-spendmesh-joined" in headers for _, headers, _ in answers)


async def test_equal_calls_are_one_where_the_policy_wants_it(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world, deduplication={"mode": "All"})
    first = beside.post()
    await beside.asked()
    others = [beside.post() for _ in range(3)]
    await beside.joined(3)
    beside.to_provider.release()
    bodies = {(await each)[2] for each in (first, *others)}
    assert len(bodies) == 1 and len(world.provider_requests()) == 1


async def test_a_call_that_was_given_up_is_not_joined(empty_world: World) -> None:
    """Its client left while it waited before a retry: it makes no further try, and a retry of it has to."""
    world = empty_world
    pauses = {"retry": {"codes": [503], "attempts": 1, "backoff": "30s", "maxBackoff": "30s", "jitter": "None"}}
    beside = await lines(world, held=False, percent=100, minimum=1000, **pauses)
    world.standin.faults(FaultRule("status", status=503, first=1))
    lost = beside.post()
    await beside.asked()
    await eventually(lambda: not world.sidecar.plane.ledger.open_reservations)
    lost.cancel()
    await world.quiet()
    assert (await beside.post(1))[0] == 200
    assert beside.joins.outcomes == {"missed": 1}
    assert len(world.provider_requests()) == 2


async def test_a_policy_that_changes_meanwhile_parts_calls(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world, held=False, percent=0, minimum=1, deduplication={"mode": "All"})
    await beside.post(0, chat("ended before"))
    assert beside.joins.kept_bytes > 0
    beside.to_provider.hold()
    first = beside.post()
    await beside.asked(2)
    await world.apply(retries(percent=0, minimum=2, failures=0))
    await world.programmed()
    assert beside.joins.kept_bytes == 0
    second = beside.post(1)
    await beside.asked(3)
    beside.to_provider.release()
    assert ((await first)[0], (await second)[0]) == (200, 200)
    assert beside.joins.outcomes == {"missed": 1}


@pytest.mark.parametrize("spec", [{"deduplication": {"mode": "Off"}}, {"mode": "Observe"}], ids=str)
async def test_where_the_policy_joins_nothing_every_call_is_made(empty_world: World, spec: Json) -> None:
    world = empty_world
    beside = await lines(world, held=False, percent=0, minimum=10, **spec)
    for number in range(3):
        assert (await beside.post(number))[0] == 200
    assert len(world.provider_requests()) == 3
    assert beside.joins.kept_bytes == 0 and not beside.joins.outcomes


async def test_a_new_sidecar_knows_nothing_of_the_last_one_s_calls(empty_world: World) -> None:
    """Answers are kept in memory alone: after a restart the retry is made, and paid for."""
    world = empty_world
    beside = await lines(world, held=False, percent=0, minimum=1)
    await beside.post()
    await world.stop_sidecar()
    await world.start_sidecar()
    again = Lines(world, beside.to_provider, Relay(world.sidecar.address.port))
    await world.serve(again.to_sidecar)
    assert (await again.post(1))[0] == 200
    assert again.joins.outcomes == {"missed": 1}
    assert await world.total("spendmesh_client_retries_total", outcome="charged") == 1


# --- streams ----------------------------------------------------------------------------------------------


async def test_a_stream_is_joined_from_its_first_byte(world: World) -> None:
    """The provider makes each part only when the last one was read: the retry gets what has passed, and what comes."""
    world.standin.faults(FaultRule("withhold", stream=True))
    ask = {"json": chat("[[out=6]]", stream=True)}
    url = f"{world.url}/openai/v1/chat/completions"
    async with asyncio.timeout(DEADLINE_SECONDS), world.http.post(url, **ask) as first:
        begin = await first.content.readuntil(b"\n\n")
        identifier = json.loads(begin.removeprefix(b"data: "))["id"]
        async with world.http.post(url, **ask, headers={"x-stainless-retry-count": "1"}) as again:
            assert await again.content.readuntil(b"\n\n") == begin
            assert again.headers["x-spendmesh-joined"] == first.headers["x-spendmesh-request-id"]
            assert "x-spendmesh-cost" not in again.headers
            first.close()  # who has joined keeps it alive
            await eventually(lambda: world.sidecar.plane.active == 2)
            rest = b""
            while b"[DONE]" not in rest:
                world.standin.acknowledge(identifier)
                rest += await again.content.readany()
    assert rest.count(b'"content":"') == 6 and rest.endswith(b"data: [DONE]\n\n")
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0


@pytest.mark.parametrize("ended", [False, True], ids=["in flight", "kept"])
async def test_a_stream_that_was_read_for_nobody_is_there_from_its_first_byte(world: World, ended: bool) -> None:
    """Its client left after the first part; what came while nobody listened is the retry's too."""
    world.standin.faults(FaultRule("withhold", stream=True))
    ask = {"json": chat("[[out=6]]", stream=True)}
    url = f"{world.url}/openai/v1/chat/completions"
    plane = world.sidecar.plane
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with world.http.post(url, **ask) as first:
            begin = await first.content.readuntil(b"\n\n")
            first.close()
        identifier = json.loads(begin.removeprefix(b"data: "))["id"]
        await eventually(lambda: plane.draining)
        before = plane.joins.kept_bytes
        for _ in range(20 if ended else 2):
            world.standin.acknowledge(identifier)
        await eventually(lambda: not plane.active if ended else plane.joins.kept_bytes > before)
        async with world.http.post(url, **ask, headers={"x-stainless-retry-count": "1"}) as again:
            whole = b""
            while b"[DONE]" not in whole:
                world.standin.acknowledge(identifier)
                whole += await again.content.readany()
    assert whole.startswith(begin) and whole.count(b'"content":"') == 6 + begin.count(b'"content":"')
    assert plane.joins.outcomes == {"kept" if ended else "in_flight": 1}
    assert len(world.provider_requests()) == 1
    assert await world.settled() == world.invoice_nanos > 0


async def test_a_stream_longer_than_may_be_kept_is_not_joined(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world, held=False, percent=0, minimum=1, deduplication={"mode": "All", "maxBytes": 65_536})
    body = chat("[[out=400]]", stream=True)
    _, _, whole = await beside.post(0, body)
    assert len(whole) > 65_536 / 4
    status, headers, _ = await beside.post(1, body)
    assert status == 200 and "x-spendmesh-joined" not in headers
    assert beside.joins.outcomes == {"missed": 1}
    assert len(world.provider_requests()) == 2


# --- Idempotency-Key --------------------------------------------------------------------------------------


async def test_a_key_gives_the_answer_of_its_call_and_goes_to_the_provider(empty_world: World) -> None:
    world = await empty_world.start(retries(deduplication={"mode": "IdempotencyKey"}))
    one, other = ({"Idempotency-Key": name} for name in ("key-1", "key-2"))
    first = await world.openai.chat.completions.create(**chat(), extra_headers=one)
    again = await world.openai.chat.completions.create(**chat(), extra_headers=one)
    assert again.id == first.id
    await world.openai.chat.completions.create(**chat(), extra_headers=other)
    sent = [dict(seen.headers)["idempotency-key"] for seen in world.provider_requests()]
    assert sent == ["key-1", "key-2"]


async def test_a_key_with_another_call_is_refused_in_the_words_of_each_api(empty_world: World) -> None:
    world = await empty_world.start(retries(deduplication={"mode": "IdempotencyKey"}))
    key = {"Idempotency-Key": "key-1"}
    await world.openai.chat.completions.create(**chat(), extra_headers=key)
    await world.anthropic.messages.create(**message(), extra_headers=key)  # another API's keys are its own
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await world.openai.chat.completions.create(**chat("else"), extra_headers=key)
    assert (refused.value.code, refused.value.type) == ("idempotency_key_reused", "spendmesh")
    with pytest.raises(anthropic.UnprocessableEntityError) as refused_too:
        await world.anthropic.messages.create(**message("else"), extra_headers=key)
    assert refused_too.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    for error in (refused.value, refused_too.value):
        assert error.response.headers["x-spendmesh-error"] == "idempotency_key_reused"
        assert error.response.headers["x-should-retry"] == "false"
    assert len(world.provider_requests()) == 2
    assert await world.total("spendmesh_joins_total", outcome="reused") == 2


async def test_a_key_of_another_user_is_another_key(empty_world: World) -> None:
    world = await empty_world.start(retries(deduplication={"mode": "IdempotencyKey"}))
    for user in ("ada", "ben"):
        headers = {"Idempotency-Key": "key-1", "x-spendmesh-user": user}
        await world.openai.chat.completions.create(**chat(f"for {user}"), extra_headers=headers)
    assert len(world.provider_requests()) == 2


# --- the end of a sidecar ---------------------------------------------------------------------------------


async def test_a_sidecar_that_stops_lets_joined_calls_finish(empty_world: World) -> None:
    world = empty_world
    beside = await lines(world)
    first = beside.post()
    await beside.asked()
    second = beside.post(1)
    await beside.joined()
    stopping = asyncio.create_task(world.stop_sidecar())
    await eventually(lambda: world.sidecar.plane.stopping)
    beside.to_provider.release()
    assert ((await first)[0], (await second)[0]) == (200, 200)
    await stopping
    assert len(world.provider_requests()) == 1
