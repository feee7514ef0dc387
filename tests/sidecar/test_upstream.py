"""
What the sidecar's `Upstream` promises, against a raw server: framings, splits, cuts at each byte, limits, reuse, TLS.

On asyncio's own loop and on uvloop, which the sidecar runs on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from part_certificates import Authority
from raw_provider import RawConnection, RawProvider, Script, answering, bytewise
from sidecar_beside import eventually
from spendmesh_sidecar.upstream.connection import MAX_FIELD_BYTES, MAX_FIELDS, MAX_INTERIM
from spendmesh_sidecar.upstream.pool import PooledUpstream
from spendmesh_sidecar.upstream.wire import ConnectFailed, ConnectionCut, Upstream, UpstreamRequest

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
BODY = b'{"model":"m"}'


@pytest.fixture(
    scope="module",
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Both event loops."""
    return request.param


@asynccontextmanager
async def talking(
    script: Script, keepalive_seconds: float = 3600.0
) -> AsyncIterator[tuple[PooledUpstream, RawProvider]]:
    """
    An upstream and its provider; at the end nothing may be left open.

    Connections are kept for longer than a test waits, so that whatever is closed was closed for its own reason.
    """
    provider = RawProvider(script)
    await provider.start()
    upstream = PooledUpstream(keepalive_seconds=keepalive_seconds)
    try:
        yield upstream, provider
        await upstream.close()
        await eventually(lambda: provider.open == 0, "a connection stayed open")
        assert upstream.open_connections == 0
    finally:
        await upstream.close()
        await provider.stop()


def post(url: str, body: bytes = BODY, **headers: str) -> UpstreamRequest:
    return UpstreamRequest("POST", f"{url}/v1/chat/completions", list(headers.items()), body)


async def call(upstream: Upstream, request: UpstreamRequest) -> tuple[int, dict[str, str], bytes]:
    response = await upstream.send(request)
    try:
        body = b"".join([chunk async for chunk in response.chunks()])
    finally:
        response.close()
    return response.status, {name.lower(): value for name, value in response.headers}, body


# --- framings ---------------------------------------------------------------------------------------------

FRAMINGS = {
    "length": (OK, 200, b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
    "chunked": (CHUNKED, 200, b"hello world"),
    "chunk extension": (CHUNKED.replace(b"5\r\n", b"5;name=value\r\n"), 200, b"hello world"),
    "trailer": (CHUNKED.replace(b"0\r\n\r\n", b"0\r\nx-checksum: 1\r\n\r\n"), 200, b"hello world"),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"hello"),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK, 200, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b""),
    "error": (b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 2\r\n\r\n{}", 429, b"{}"),
    "redirect": (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302, b""),
    "no reason": (b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "compressed": (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_framing_arrives_whole_and_leaves_the_connection_usable(framing: str, split: bool) -> None:
    raw, status, body = FRAMINGS[framing]
    async with talking(answering(*(bytewise(raw) if split else (raw,)))) as (upstream, provider):
        for _ in range(2):
            assert (await call(upstream, post(provider.url)))[::2] == (status, body)
        assert [len(asked) for asked in provider.requests] == [2]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ],
)
async def test_an_answer_that_ends_with_the_connection_is_whole_and_the_next_call_gets_another(
    raw: bytes, split: bool
) -> None:
    async with talking(answering(*(bytewise(raw) if split else (raw,)), close=True)) as (upstream, provider):
        for _ in range(2):
            assert (await call(upstream, post(provider.url)))[::2] == (200, b"hello")
        assert [len(asked) for asked in provider.requests] == [1, 1]


async def test_chunks_arrive_one_by_one_as_the_provider_sends_them() -> None:
    seen = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            await connection.send(b"1\r\n%d\r\n" % number)
            await seen.wait()  # the next one only when this one was read
            seen.clear()
        await connection.send(b"0\r\n\r\n")

    async with talking(script) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        got = []
        async for chunk in response.chunks():
            got.append(chunk)
            seen.set()
        response.close()
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_headers_are_given_as_they_were_received() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-One: a\r\nx-one: b\r\nX-Text: gr\xc3\xbc\xc3\x9fe\r\ncontent-length: 0\r\n\r\n"
    async with talking(answering(raw)) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        assert list(response.headers)[:3] == [("X-One", "a"), ("x-one", "b"), ("X-Text", "grüße")]
        response.close()


# --- what is sent -----------------------------------------------------------------------------------------


async def test_exactly_the_given_request_is_written() -> None:
    async with talking(answering(OK)) as (upstream, provider):
        request = UpstreamRequest(
            "POST", f"{provider.url}/v1/messages?beta=true", [("x-api-key", "k"), ("accept", "*/*")], BODY
        )
        await call(upstream, request)
        await call(upstream, UpstreamRequest("GET", f"{provider.url}/v1/models/a%20b", [], b""))
        await call(upstream, UpstreamRequest("POST", provider.url, [], b""))
    host = provider.url.removeprefix("http://").encode()
    assert provider.requests == [
        [
            b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: "
            + host
            + b"\r\ncontent-length: %d\r\n" % len(BODY)
            + b"x-api-key: k\r\naccept: */*\r\n\r\n"
            + BODY,
            b"GET /v1/models/a%20b HTTP/1.1\r\nhost: " + host + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: " + host + b"\r\ncontent-length: 0\r\n\r\n",
        ]
    ]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_header_cannot_begin_another_one(value: str) -> None:
    async with talking(answering(OK)) as (upstream, provider):
        with pytest.raises(ValueError):
            await upstream.send(post(provider.url, tracestate=value))
        assert provider.requests in ([], [[]])


async def test_a_large_body_is_sent_whole_while_the_provider_reads_slowly() -> None:
    body = bytes(range(256)) * 4096 * 8

    async def script(connection: RawConnection) -> None:
        assert (await connection.request()).endswith(body)
        await connection.send(OK)
        await connection.gone()

    async with talking(script) as (upstream, provider):
        assert (await call(upstream, post(provider.url, body)))[2] == b"hello"


async def test_a_provider_that_answers_before_it_has_read_the_request_gets_no_second_one() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await connection.gone()

    async with talking(script) as (upstream, provider):
        for _ in range(2):
            assert (await call(upstream, post(provider.url, b"x" * 2**25)))[0] == 413
        assert len(provider.requests) == 2


# --- cuts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [RawConnection.finish, RawConnection.reset], ids=["fin", "rst"])
@pytest.mark.parametrize("raw", [OK, CHUNKED], ids=["length", "chunked"])
async def test_a_cut_at_any_byte_is_an_error_and_never_a_short_answer(
    raw: bytes, end: Callable[[RawConnection], None]
) -> None:
    places = iter(range(len(raw)))
    place = 0

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(raw[:place])
        end(connection)

    async with talking(script) as (upstream, provider):
        for place in places:  # noqa: B007 - the script reads it
            with pytest.raises(ConnectionCut):
                await call(upstream, post(provider.url))
        assert [len(asked) for asked in provider.requests] == [1] * len(raw)


async def test_a_reset_does_not_end_a_body_that_has_no_length() -> None:
    read = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await read.wait()
        connection.reset()

    async with talking(script) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        chunks = response.chunks()
        assert await anext(chunks) == b"hel"
        read.set()
        with pytest.raises(ConnectionCut):
            await anext(chunks)
        response.close()


async def test_what_came_before_a_cut_is_read_before_the_reader_hears_of_it() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(CHUNKED.partition(b"0\r\n\r\n")[0])
        connection.finish()

    async with talking(script) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        await eventually(lambda: provider.open == 0)
        got = bytearray()
        with pytest.raises(ConnectionCut):
            async for chunk in response.chunks():
                got += chunk
        response.close()
    assert bytes(got) == b"hello world"


GARBAGE = {
    "banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "version": b"HTTP/3.7 200 OK\r\ncontent-length: 0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "long chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello world\r\n0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nbytes",
    "endless 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INTERIM + 1) + OK,
    "one large field": b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_FIELD_BYTES + b"\r\ncontent-length: 0\r\n\r\n",
    "endless field": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2**20,
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MAX_FIELDS + 1) + b"content-length: 0\r\n\r\n",
    "garbage after it": OK + b"garbage\r\n\r\n",
    "null": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_no_http_or_too_large_is_cut_and_its_connection_not_used_again(kind: str) -> None:
    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(GARBAGE[kind])
        await connection.gone()

    async with talking(script) as (upstream, provider):
        for _ in range(2):
            with pytest.raises(ConnectionCut):
                await call(upstream, post(provider.url))
        await eventually(lambda: provider.open == 0, "the connection was kept")
        assert [len(asked) for asked in provider.requests] == [1, 1]


# --- time and cancellation --------------------------------------------------------------------------------


async def test_a_caller_that_gives_up_before_the_head_closes_the_connection() -> None:
    async with talking(answering()) as (upstream, provider):
        waiting = asyncio.create_task(upstream.send(post(provider.url)))
        await eventually(lambda: any(provider.requests))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: provider.open == 0, "the provider still works for nobody")


async def test_a_caller_that_gives_up_in_the_body_closes_the_connection() -> None:
    async with talking(answering(CHUNKED[:-20])) as (upstream, provider):
        response = await upstream.send(post(provider.url))

        async def read() -> None:
            async for _ in response.chunks():
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        response.close()
        await eventually(lambda: provider.open == 0, "the provider still works for nobody")


async def test_closing_unread_closes_the_connection_and_may_be_done_twice() -> None:
    async with talking(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        response.close()
        response.close()
        await eventually(lambda: provider.open == 0)


async def test_closing_the_upstream_ends_what_is_being_read_as_a_cut() -> None:
    async with talking(answering(b"HTTP/1.1 200 OK\r\n\r\nhel")) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        await upstream.close()
        with pytest.raises(ConnectionCut):
            await call_rest(response)


async def test_a_connection_that_is_made_while_all_are_closed_serves_its_call_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking(answering(OK)) as (upstream, provider):
        asked, found = asyncio.Event(), asyncio.Event()

        async def slow(*_: Any, **__: Any) -> list[Any]:
            asked.set()
            await found.wait()
            return [(2, 1, 6, "", ("127.0.0.1", provider.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
        calling = asyncio.create_task(call(upstream, post(provider.url)))
        await asked.wait()
        await upstream.close()
        found.set()
        assert (await calling)[2] == b"hello"
        await eventually(lambda: provider.open == 0, "the connection was kept")


async def call_rest(response: Any) -> bytes:
    return b"".join([chunk async for chunk in response.chunks()])


async def test_a_slow_reader_stops_the_provider_and_loses_nothing() -> None:
    size, sent = 2**25, 0
    stalled = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            connection.writer.write(bytes(2**16))
            sent += 2**16
            try:
                await asyncio.wait_for(connection.writer.drain(), 0.2)
            except TimeoutError:
                stalled.set()
                await connection.writer.drain()
        await connection.gone()

    async with talking(script) as (upstream, provider):
        response = await upstream.send(post(provider.url))
        await eventually(lambda: stalled.is_set() or sent == size)
        assert stalled.is_set(), "the whole body was taken though nobody read it"
        assert len(await call_rest(response)) == size
        response.close()


async def test_many_tiny_chunks_that_wait_for_a_slow_reader_arrive_in_order() -> None:
    numbers = [b"%06d" % number for number in range(20_000)]

    async def script(connection: RawConnection) -> None:
        while await connection.request():
            await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await connection.send(b"".join(b"6\r\n%b\r\n" % number for number in numbers) + b"0\r\n\r\n")

    async with talking(script) as (upstream, provider):
        for _ in range(2):
            response = await upstream.send(post(provider.url))
            got = b""
            async for chunk in response.chunks():
                got += chunk
                await asyncio.sleep(0)
            response.close()
            assert got == b"".join(numbers)
        assert len(provider.requests) == 1


# --- reuse ------------------------------------------------------------------------------------------------


async def test_calls_one_after_the_other_share_a_connection_and_calls_at_once_do_not() -> None:
    together = asyncio.Barrier(5)

    async def script(connection: RawConnection) -> None:
        while request := await connection.request():
            if b"together" in request:
                await together.wait()  # so all five are under way at once
            await connection.send(OK)

    async with talking(script) as (upstream, provider):
        for _ in range(10):
            await call(upstream, post(provider.url))
        await asyncio.gather(*(call(upstream, post(provider.url, b"together")) for _ in range(5)))
        await asyncio.gather(*(call(upstream, post(provider.url, b"together")) for _ in range(5)))
        assert sorted(len(asked) for asked in provider.requests) == [2, 2, 2, 2, 12]


@pytest.mark.parametrize("extra", [OK, b"HTTP/1.1 200 OK\r\ncontent-le", b"H"], ids=["whole", "part", "byte"])
async def test_bytes_after_an_answer_are_never_taken_for_the_next_one(extra: bytes) -> None:
    async def script(connection: RawConnection) -> None:
        number = len(provider.requests)
        await connection.request()
        await connection.send(OK.replace(b"hello", b"first" if number == 1 else b"other") + extra)
        await connection.gone()

    async with talking(script) as (upstream, provider):
        assert (await call(upstream, post(provider.url)))[2] == b"first"
        assert (await call(upstream, post(provider.url)))[2] == b"other"
        assert [len(asked) for asked in provider.requests] == [1, 1]


async def test_bytes_that_come_while_nothing_is_asked_close_the_connection() -> None:
    speak = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK)
        await speak.wait()
        await connection.send(OK.replace(b"hello", b"wrong"))
        await connection.gone()

    async with talking(script) as (upstream, provider):
        assert (await call(upstream, post(provider.url)))[2] == b"hello"
        speak.set()
        await eventually(lambda: provider.open == 0, "the connection was kept")
        assert (await call(upstream, post(provider.url)))[2] == b"hello"


@pytest.mark.parametrize("turn", [True, False], ids=["seen by the loop", "not seen yet"])
async def test_a_connection_that_the_provider_closed_at_rest_is_not_used(turn: bool) -> None:
    async with talking(answering(OK)) as (upstream, provider):
        await call(upstream, post(provider.url))
        provider.shut_down()
        if turn:
            await eventually(lambda: upstream.open_connections == 0)
        assert (await call(upstream, post(provider.url)))[2] == b"hello"
        assert [len(asked) for asked in provider.requests] == [1, 1]


async def test_a_request_whose_connection_closes_without_an_answer_is_a_cut_and_is_not_sent_again() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.request()
        connection.finish()  # it may have been billed: only the provider knows

    async with talking(script) as (upstream, provider):
        await call(upstream, post(provider.url))
        with pytest.raises(ConnectionCut):
            await call(upstream, post(provider.url))
        assert [len(asked) for asked in provider.requests] == [2]


async def test_connections_at_rest_are_closed_in_time() -> None:
    async with talking(answering(OK), keepalive_seconds=0.05) as (upstream, provider):
        await asyncio.gather(*(call(upstream, post(provider.url)) for _ in range(3)))
        await eventually(lambda: provider.open == 0, "a connection rests for ever")
        assert (await call(upstream, post(provider.url)))[2] == b"hello"


# --- connecting -------------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_listen_is_a_failed_connect() -> None:
    async with talking(answering(OK)) as (upstream, provider):
        url = provider.url
        await provider.stop()
        with pytest.raises(ConnectFailed):
            await upstream.send(post(url))


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "0.0.0.0",
        "100.100.100.200",
        "2852039166",
        "0251.0376.0251.0376",
    ],
)
async def test_addresses_that_no_provider_has_are_refused_however_they_are_written(host: str) -> None:
    upstream = PooledUpstream()
    with pytest.raises(ConnectFailed, match="refused"):
        await upstream.send(post(f"http://{host}:1"))
    await upstream.close()


async def test_a_name_is_checked_where_it_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rebound(*_: Any, **__: Any) -> list[Any]:
        return [(2, 1, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
    upstream = PooledUpstream()
    with pytest.raises(ConnectFailed):
        await upstream.send(post("http://provider.example"))
    await upstream.close()


async def test_the_second_address_is_used_when_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(answering(OK)) as (upstream, provider):
        loop = asyncio.get_running_loop()
        look_up = loop.getaddrinfo

        async def two(host: str, port: int, **options: Any) -> list[Any]:
            if host != "provider.example":  # uvloop asks for addresses too
                return await look_up(host, port, **options)
            return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.99", "127.0.0.1")]

        monkeypatch.setattr(loop, "getaddrinfo", two)
        assert (await call(upstream, post(f"http://provider.example:{provider.port}")))[2] == b"hello"
        assert b"host: provider.example:%d\r\n" % provider.port in provider.requests[0][0]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "127.0.0.1:80/x", "http:///x"])
async def test_what_is_no_http_url_is_a_failed_connect(url: str) -> None:
    upstream = PooledUpstream()
    with pytest.raises(ConnectFailed):
        await upstream.send(UpstreamRequest("GET", url, [], b""))
    await upstream.close()


# --- TLS --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_provider(folder: Path, *names: str) -> AsyncIterator[tuple[RawProvider, ssl.SSLContext]]:
    """A provider with a certificate for `names`, and what trusts its authority."""
    authority = Authority()
    certificate, key = authority.server(names).write(folder, "server")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    provider = RawProvider(answering(OK))
    await provider.start(serving)
    try:
        yield provider, ssl.create_default_context(cadata=authority.pem.decode())
    finally:
        await provider.stop()


async def test_tls_is_verified_named_and_reused(tmp_path: Path) -> None:
    async with tls_provider(tmp_path, "localhost") as (provider, trust):
        upstream = PooledUpstream(trust)
        for _ in range(3):
            assert (await call(upstream, post(provider.url)))[2] == b"hello"
        await upstream.close()
        assert [len(asked) for asked in provider.requests] == [3]
        assert provider.server_names == ["localhost"]
        await eventually(lambda: provider.open == 0)


async def test_an_unknown_authority_or_another_name_is_a_failed_connect(tmp_path: Path) -> None:
    async with tls_provider(tmp_path, "another.example") as (provider, trust):
        for upstream in (PooledUpstream(), PooledUpstream(trust)):
            with pytest.raises(ConnectFailed, match="SSLCertVerificationError"):
                await upstream.send(post(provider.url))
            assert upstream.open_connections == 0
            await upstream.close()
        assert not any(provider.requests), "a request went to a stranger"


async def test_a_cut_inside_tls_is_a_cut(tmp_path: Path) -> None:
    async with tls_provider(tmp_path, "localhost") as (provider, trust):
        provider.script = answering(OK[:-1], close=True)
        upstream = PooledUpstream(trust)
        with pytest.raises(ConnectionCut):
            await call(upstream, post(provider.url))
        await upstream.close()


async def test_plain_http_where_tls_is_due_is_a_failed_connect() -> None:
    async def script(connection: RawConnection) -> None:
        await connection.reader.read(1)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")  # as servers do
        await connection.gone()

    async with talking(script) as (upstream, provider):
        with pytest.raises(ConnectFailed):
            await upstream.send(post(provider.url.replace("http://", "https://")))
