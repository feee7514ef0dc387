"""Smuggled, oversized and slow requests, too many connections, strange callers: the listener's own limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import Any

import pytest

from sidecar_beside import chat, eventually, message
from sidecar_requests import ANTHROPIC, GOOD, HEAD, OPENAI, nothing_happened, post, raw
from sidecar_world import World
from spendmesh_sidecar.limits import Limits
from spendmesh_sidecar.settings import Address
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

SMUGGLED = b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLING: dict[str, bytes] = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED,
    "length with plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "length in other digits": HEAD + "Content-Length: ５\r\n\r\nhello".encode(),
    "length in hex": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space before colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "folded": HEAD + b"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n",
    "control character": HEAD + b"X-A: b\x00c\r\n\r\n",
    "name with space": HEAD + b"X A: b\r\n\r\n",
    "bad chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;\n\r\nhello\r\n0\r\n\r\n",
    "chunk size with underscore": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1_0\r\nhello\r\n0\r\n\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "other protocol": b"POST /openai/v1/chat/completions HTTQ/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: other\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", SMUGGLING.values(), ids=SMUGGLING)
async def test_row_27_a_request_that_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    shared_world: World, request_bytes: bytes
) -> None:
    answer = await raw(shared_world, request_bytes)
    assert re.findall(rb"HTTP/1\.[01] (\d+)", answer) == [b"400"]
    assert b'"code":"request_invalid"' in answer and b"x-should-retry: false" in answer
    nothing_happened(shared_world)


@pytest.mark.parametrize(("path", "member"), [(OPENAI, "code"), (ANTHROPIC, "type")])
async def test_row_26_all_bodies_together_are_bounded_and_the_next_one_may_come_later(
    empty_world: World, path: str, member: str
) -> None:
    """Each is small enough; refused is the one for which there is no room beside the others, until they have ended."""
    body = GOOD + b" " * (600 - len(GOOD))
    world = await empty_world.start(limits=Limits(bodies_bytes=1_000))
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(HEAD + b"Connection: close\r\nContent-Length: 600\r\n\r\n" + body[:500])

    async def no_room() -> bool:
        return (await post(world, path, body))[0] == 413

    await eventually(no_room)
    status, headers, answer = await post(world, path, body)
    assert (status, headers["x-should-retry"], headers["retry-after"]) == (413, "false", "5")
    assert answer["error"][member] == "request_too_large" and "500 bytes" in answer["error"]["message"]

    writer.write(body[500:])
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    for _ in range(3):
        assert (await post(world, OPENAI, body))[0] == 200


async def test_row_26_a_body_that_is_too_large_is_refused_whether_announced_or_not(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(body_bytes=10_000))
    status, headers, answer = await post(world, OPENAI, b"0" * 10_001)
    assert (status, answer["error"]["code"], headers["x-should-retry"]) == (413, "request_too_large", "false")

    async def pieces() -> Any:
        for _ in range(20):
            yield b"0" * 1000

    async with world.http.post(world.url + ANTHROPIC, data=pieces()) as got:
        refused = json.loads(await got.read())
    assert (got.status, refused["error"]["type"]) == (413, "request_too_large")
    nothing_happened(world)


async def test_row_26_a_body_of_many_tiny_chunks_is_read_as_one(world: World) -> None:
    async def pieces() -> Any:
        for position in range(len(GOOD)):
            yield GOOD[position : position + 1]

    async with world.http.post(world.url + OPENAI, data=pieces()) as got:
        assert got.status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"X-A: " + b"b" * 20_000 + b"\r\n",
        b"".join(b"X-%d: b\r\n" % n for n in range(200)),
    ],
    ids=["long", "many"],
)
async def test_row_26_headers_have_limits(shared_world: World, head: bytes) -> None:
    answer = await raw(shared_world, HEAD + head + b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ") and b'"code":"request_invalid"' in answer
    nothing_happened(shared_world)


async def test_row_22_a_body_that_comes_too_slowly_is_refused(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(body_seconds=0.1, linger_seconds=0.1))
    answer = await raw(world, HEAD + b"Connection: close\r\nContent-Length: 50\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"did not arrive within" in answer
    nothing_happened(world)


@pytest.mark.parametrize("begun", [HEAD[:20], HEAD, HEAD + b"X-A"], ids=["line", "head", "header"])
async def test_row_22_a_head_that_comes_too_slowly_ends_the_connection(empty_world: World, begun: bytes) -> None:
    world = await empty_world.start(limits=Limits(head_seconds=0.1))
    assert await raw(world, begun) == b""
    assert (await post(world, OPENAI, GOOD))[0] == 200


async def test_row_22_a_connection_on_which_nothing_comes_is_closed(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(keepalive_seconds=0.1))
    assert await raw(world, b"") == b""


async def test_row_22_a_long_answer_is_no_slow_head(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(head_seconds=0.1))
    world.standin.faults(FaultRule("slow", ttft_seconds=0.3))
    for _ in range(2):
        assert (await post(world, OPENAI, GOOD))[0] == 200


async def test_row_22_connections_above_the_limit_are_closed_and_those_below_are_served(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(connections=20))
    address = world.sidecar.address
    held = [await asyncio.open_connection(address.host, address.port) for _ in range(20)]
    assert await raw(world, HEAD + b"Content-Length: 0\r\n\r\n") == b""
    for _, writer in held:
        writer.close()

    async def served() -> bool:
        answer = await raw(world, HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))
        return answer.startswith(b"HTTP/1.1 200 ")

    await eventually(served)


async def test_requests_sent_ahead_are_answered_in_their_order(world: World) -> None:
    models = (b"small-1", b"medium-1", b"nobody", b"small-1")
    bodies = [GOOD.replace(b"auto", model) for model in models]
    request = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)
    last = HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    answer = await raw(world, request + last)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"200", b"403", b"200", b"400"]
    assert re.findall(rb'"model":"([a-z]+-\d)"', answer) == [b"small-1", b"medium-1", b"small-1"]


async def test_a_client_that_leaves_in_the_middle_of_its_request_changes_nothing(world: World) -> None:
    address = world.sidecar.address
    whole = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
    for end in (1, 30, len(HEAD), len(HEAD) + 25, len(whole) - 1):
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(whole[:end])
        await writer.drain()
        writer.transport.abort()
    await world.quiet()
    nothing_happened(world)


async def test_a_body_that_comes_while_another_call_runs_waits_and_arrives_whole(world: World) -> None:
    """Reading stops at half a megabyte that nobody takes yet, and goes on when its call's turn has come."""
    world.standin.faults(FaultRule("slow", ttft_seconds=0.3))
    large = GOOD.replace(b"auto", b"small-1")[:-1] + b" " * 2_000_000 + b"}"
    first = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
    answer = await raw(world, first + HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(large), large))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"200"]
    assert world.provider_requests()[1].body_sha256 == hashlib.sha256(large).hexdigest()


async def test_a_client_may_wait_for_a_word_before_it_sends_its_body(world: World) -> None:
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
    async with asyncio.timeout(60):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(GOOD)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


# --- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "evil.example:15400"},
        {"Host": "169.254.169.254"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
    ],
    ids=lambda headers: next(iter(headers.values())),
)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, "/spendmesh/v1/status"])
async def test_a_browser_s_request_or_a_strange_host_is_refused(
    shared_world: World, headers: dict[str, str], path: str
) -> None:
    status, got, _ = await post(shared_world, path, GOOD, **headers)
    assert (status, got["x-spendmesh-error"]) == (403, "client_refused")
    nothing_happened(shared_world)


@pytest.mark.parametrize("host", ["127.0.0.1:15400", "localhost", "localhost:80", "[::1]:15400"])
async def test_our_own_names_are_no_strange_hosts(shared_world: World, host: str) -> None:
    async with shared_world.http.get(f"{shared_world.url}/spendmesh/v1/status", headers={"Host": host}) as got:
        assert got.status == 200


async def test_a_listener_that_others_can_reach_demands_its_token(empty_world: World) -> None:
    world = await empty_world.start(listen=Address("0.0.0.0", 0), client_token="canary-client-token")
    world.url = world.url.replace("0.0.0.0", "127.0.0.1")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wr\xf6ng"}, {"authorization": "canary"}):
        status, got, answer = await post(world, OPENAI, GOOD, **headers)
        assert (status, got["x-spendmesh-error"]) == (401, "client_refused")
        assert "canary" not in json.dumps(answer)
    nothing_happened(world)
    good = await world.client(f"{world.url}/openai/v1", key="canary-client-token")
    assert (await good.chat.completions.create(**chat())).choices
    headers = {"x-api-key": "canary-client-token", "anthropic-version": "2023-06-01"}
    assert (await post(world, ANTHROPIC, json.dumps(message()).encode(), **headers))[0] == 200
    assert "canary" not in repr(world.provider_requests())
