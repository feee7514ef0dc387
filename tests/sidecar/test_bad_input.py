"""Malformed, oversized, slow and smuggled requests are refused in the client's own shape; nothing is reserved."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

import pytest

from sidecar_world import World, chat, eventually, message
from spendmesh_sidecar.limits import Limits
from spendmesh_sidecar.settings import Address
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

OPENAI, ANTHROPIC = "/openai/v1/chat/completions", "/anthropic/v1/messages"
GOOD = b'{"model":"auto","max_tokens":300,"messages":[{"role":"user","content":"hi"}]}'
DEEP = b"[" * 100_000

MALFORMED: dict[str, bytes] = {
    "no body": b"",
    "no object": b"[1,2]",
    "text": b"hello",
    "unfinished": GOOD[:-1],
    "trailing": GOOD + b"{}",
    "deep": GOOD[:-1] + b',"stop":' + DEEP + b"]" * 100_000 + b"}",
    "deep and unfinished": b'{"model":' + DEEP,
    "key twice": b'{"model":"small-1",' + GOOD[1:],
    "key twice, escaped": b'{"mod\\u0065l":"small-1",' + GOOD[1:],
    "nested money twice": GOOD[:-1] + b',"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
    "two maxima": GOOD[:-1] + b',"max_completion_tokens":5}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "another encoding": GOOD.decode().encode("utf-16"),
    "no text": GOOD.replace(b"hi", b"\xff\xfe"),
    "half a character": GOOD.replace(b"hi", b"\\ud800"),
    "not a number": GOOD.replace(b"300", b"NaN"),
    "endless": GOOD.replace(b"300", b"Infinity"),
    "huge number": GOOD.replace(b"300", b"9" * 5000),
    "huge exponent": GOOD.replace(b"300", b"1e400"),
    "fraction": GOOD.replace(b"300", b"300.5"),
    "negative": GOOD.replace(b"300", b"-1"),
    "number as text": GOOD.replace(b"300", b'"300"'),
    "switch": GOOD.replace(b"300", b"true"),
    "model as list": GOOD.replace(b'"auto"', b'["auto"]'),
    "model with a line end": GOOD.replace(b"auto", b"auto\\r\\nx-evil: 1"),
    "model with zero": GOOD.replace(b"auto", b"auto\\u0000"),
    "stream as text": GOOD[:-1] + b',"stream":"yes"}',
}


async def post(world: World, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    async with world.http.post(
        world.url + path, data=body, headers={"content-type": "application/json", **headers}
    ) as got:
        return got.status, got.headers, json.loads(await got.read())


async def raw(world: World, request: bytes) -> bytes:
    """Everything that comes back on a connection of our own until the sidecar closes it."""
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        async with asyncio.timeout(15):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def nothing_happened(world: World) -> None:
    assert world.provider_requests() == []
    assert world.rights.used == 0
    assert world.sidecar.plane.ledger.open_reservations == 0


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_row_23_a_malformed_body_is_refused_in_openai_s_shape(shared_world: World, body: bytes) -> None:
    status, headers, answer = await post(shared_world, OPENAI, body)
    assert (status, headers["x-should-retry"], headers["x-spendmesh-error"]) == (400, "false", "request_invalid")
    assert (answer["error"]["type"], answer["error"]["code"]) == ("spendmesh", "request_invalid")
    assert answer["error"]["message"]
    nothing_happened(shared_world)


@pytest.mark.parametrize("name", ["no body", "deep", "key twice", "byte order mark", "no text", "not a number"])
async def test_row_23_a_malformed_body_is_refused_in_anthropic_s_shape(shared_world: World, name: str) -> None:
    status, headers, answer = await post(shared_world, ANTHROPIC, MALFORMED[name])
    assert (status, headers["x-should-retry"]) == (400, "false")
    assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")
    assert answer["error"]["message"].startswith("request_invalid: ")
    nothing_happened(shared_world)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip"])
async def test_row_25_a_compressed_body_is_refused(shared_world: World, encoding: str) -> None:
    body = gzip.compress(b"0" * 10_000_000)
    status, _, answer = await post(shared_world, OPENAI, body, **{"content-encoding": encoding})
    assert (status, answer["error"]["param"]) == (400, "Content-Encoding")
    nothing_happened(shared_world)


FIELDS: dict[str, dict[str, Any]] = {
    "hosted search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "search options": {"web_search_options": {}},
    "hosted code": {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    "sound": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "file": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f-1"}}]}]},
    "unknown": {"surprise": 1},
    "base url": {"base_url": "http://169.254.169.254/"},
    "api base": {"api_base": "http://169.254.169.254/"},
}


@pytest.mark.parametrize("extra", FIELDS.values(), ids=FIELDS)
async def test_what_cannot_be_priced_is_refused_by_name_under_a_budget_in_money(
    shared_world: World, extra: dict[str, Any]
) -> None:
    status, _, answer = await post(shared_world, OPENAI, json.dumps({**chat(), **extra}).encode())
    assert status == 400
    assert answer["error"]["code"] in ("field_not_allowed", "request_invalid")
    assert answer["error"]["param"]
    nothing_happened(shared_world)


PATHS = {
    "unknown": "/openai/v1/responses",
    "other version": "/openai/v2/chat/completions",
    "traversal": "/openai/v1/../../admin",
    "encoded traversal": "/openai/v1/%2e%2e/chat/completions",
    "encoded slash": "/openai/v1%2fchat/completions",
    "doubled slash": "/openai//v1/chat/completions",
    "trailing slash": "/openai/v1/chat/completions/",
    "case": "/openai/v1/Chat/Completions",
    "parameter": "/openai/v1/chat/completions;x=1",
    "dialects mixed": "/anthropic/v1/chat/completions",
    "provider traversal": "/providers/../openai/v1/chat/completions",
    "provider with address": "/providers/user@evil/chat/completions",
    "files": "/openai/v1/files",
    "batches": "/openai/v1/batches",
    "realtime": "/openai/v1/realtime",
    "root": "/",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_row_32_any_other_path_is_refused(shared_world: World, path: str) -> None:
    request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(GOOD)}\r\n\r\n"
    answer = await raw(shared_world, request.encode() + GOOD)
    assert answer.startswith(b"HTTP/1.1 404 ") and b"operation_unsupported" in answer
    nothing_happened(shared_world)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
async def test_another_method_is_refused(shared_world: World, method: str) -> None:
    request = f"{method} {OPENAI} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = await raw(shared_world, request.encode())
    assert answer.split()[1] in (b"404", b"400")
    nothing_happened(shared_world)


HEAD = f"POST {OPENAI} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
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


async def test_a_malformed_body_under_a_named_provider_is_refused_in_that_provider_s_shape(world: World) -> None:
    status, _, answer = await post(world, "/providers/anthropic/v1/messages", b"{")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


DETAIL = "what the defect has in its hands"


class Defective:
    """A source of keys with a defect, for want of one of our own."""

    def get(self, name: str) -> str | None:
        raise LookupError(DETAIL)


async def test_a_defect_of_ours_is_an_error_without_details_and_settles_the_worst(
    empty_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = await empty_world.start(sidecar=False)
    await world.start_sidecar(keys=Defective())
    status, headers, answer = await post(world, OPENAI, GOOD)
    assert (status, headers["x-should-retry"], answer["error"]["code"]) == (500, "false", "internal_error")
    assert "LookupError" in caplog.text and DETAIL not in caplog.text
    assert await world.settled() > 0
    assert world.rights.held == 0


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


async def test_a_client_may_wait_for_a_word_before_it_sends_its_body(world: World) -> None:
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
    async with asyncio.timeout(15):
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
