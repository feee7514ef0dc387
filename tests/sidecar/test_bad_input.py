"""Malformed requests are refused in the client's own shape, by name, and before anything is reserved."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from sidecar_beside import chat
from sidecar_requests import ANTHROPIC, GOOD, OPENAI, nothing_happened, post, raw
from sidecar_world import World

pytestmark = pytest.mark.anyio

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
