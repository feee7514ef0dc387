"""An answer reaches a client as HTTP has it, whatever the client speaks, and the connection stays in step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from spendmesh_sidecar.downstream.listener import DataProtocol, DataServer
from spendmesh_sidecar.downstream.reply import Reply
from spendmesh_sidecar.errors import ClientGone
from spendmesh_sidecar.limits import Limits

pytestmark = pytest.mark.anyio

Answer = Callable[[Reply], Awaitable[None]]
DATED = [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]


class Client:
    """A client that sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, line: str = "GET / HTTP/1.1", *headers: str) -> None:
        self.writer.write("\r\n".join((line, "host: 127.0.0.1", *headers, "", "")).encode())

    async def head(self) -> list[str]:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]

    async def rest(self) -> bytes:
        """Until the server closes."""
        return await self.reader.read()


@asynccontextmanager
async def serving(answer: Answer, linger_seconds: float = 5.0) -> AsyncIterator[Client]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, DataProtocol)
        reply = Reply(request, connection, linger_seconds)
        await answer(reply)
        return reply.written()

    runner = web.ServerRunner(DataServer(handle, Limits()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await runner.cleanup()


async def whole(reply: Reply) -> None:
    await reply.send(200, [("Content-Type", "text/plain"), *DATED], b"hello")


async def stream(reply: Reply) -> None:
    await reply.start(200, DATED)
    for chunk in (b"one", b"", b"x" * 20):
        await reply.write(chunk)
    await reply.finish(complete=True)


async def test_a_whole_answer_has_its_length_and_the_next_one_follows() -> None:
    async with serving(whole) as client:
        for _ in range(3):
            client.ask()
            expected = ["HTTP/1.1 200 OK", "content-length: 5", "Content-Type: text/plain", f"Date: {DATED[0][1]}"]
            assert await client.head() == expected
            assert await client.reader.readexactly(5) == b"hello"


async def test_requests_that_are_sent_at_once_are_answered_in_order() -> None:
    async with serving(stream) as client:
        client.ask()
        client.ask()
        for _ in range(2):
            assert await client.head() == ["HTTP/1.1 200 OK", "transfer-encoding: chunked", f"Date: {DATED[0][1]}"]
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"


async def test_a_client_that_wants_to_close_is_closed_after_its_answer() -> None:
    async with serving(whole) as client:
        client.ask("GET / HTTP/1.1", "connection: close")
        assert "connection: close" in await client.head()
        assert await client.rest() == b"hello"


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection() -> None:
    async with serving(stream) as client:
        client.ask("GET / HTTP/1.0", "connection: keep-alive")
        assert await client.head() == ["HTTP/1.1 200 OK", "connection: close", f"Date: {DATED[0][1]}"]
        assert await client.rest() == b"one" + b"x" * 20


async def test_an_old_client_keeps_its_connection_if_it_asks_for_it() -> None:
    async with serving(whole) as client:
        for _ in range(2):
            client.ask("GET / HTTP/1.0", "connection: keep-alive")
            assert "connection: keep-alive" in await client.head()
            assert await client.reader.readexactly(5) == b"hello"
        client.ask("GET / HTTP/1.0")
        assert "connection: close" in await client.head()
        assert await client.rest() == b"hello"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_has_no_body_by_its_status_gets_none(status: int, streamed: bool) -> None:
    async def answer(reply: Reply) -> None:
        if streamed:
            await reply.start(status, DATED)
            await reply.write(b"ignored")
            await reply.finish(complete=True)
        else:
            await reply.send(status, DATED, b"ignored")

    async with serving(answer) as client:
        for _ in range(2):
            client.ask()
            head = await client.head()
            assert head[0].startswith(f"HTTP/1.1 {status} ")
            assert not {"content-length", "transfer-encoding"} & {line.partition(":")[0] for line in head}


async def test_a_head_request_gets_no_body() -> None:
    async with serving(whole) as client:
        for _ in range(2):
            client.ask("HEAD / HTTP/1.1")
            assert (await client.head())[0] == "HTTP/1.1 200 OK"


async def test_a_date_is_added_only_where_there_is_none() -> None:
    async def answer(reply: Reply) -> None:
        await reply.send(299, [("x", "y")], b"")

    async with serving(answer) as client:
        client.ask()
        head = await client.head()
        assert head[0] == "HTTP/1.1 299 "
        assert [line.endswith(" GMT") for line in head if line.startswith("date: ")] == [True]


async def test_a_header_cannot_begin_another_answer() -> None:
    async def answer(reply: Reply) -> None:
        await reply.send(200, [("x", "a\r\n\r\nHTTP/1.1 200 OK")], b"")

    async with serving(answer) as client:
        client.ask()
        assert (await client.head())[0] == "HTTP/1.1 500 Internal Server Error"


async def test_a_stream_that_is_cut_has_no_end_mark_but_all_that_was_written() -> None:
    async def answer(reply: Reply) -> None:
        await reply.start(200, DATED)
        await reply.write(b"one")
        await reply.finish(complete=False)

    async with serving(answer) as client:
        client.ask()
        await client.head()
        assert await client.rest() == b"3\r\none\r\n"


async def test_a_client_that_has_left_is_said_to_be_gone() -> None:
    left, told = asyncio.Event(), asyncio.Event()
    seen: list[object] = []

    async def answer(reply: Reply) -> None:
        reply.when_gone(left.set)
        await reply.start(200, DATED)
        await left.wait()
        seen.append(reply.gone)
        reply.when_gone(lambda: seen.append("told at once"))
        for say in (reply.write(b"x"), reply.send(200, DATED, b"x")):
            try:
                await say
            except ClientGone:
                seen.append("gone")
        await reply.finish(complete=True)
        told.set()

    async with serving(answer) as client:
        client.ask()
        await client.head()
        client.writer.transport.abort()
        await asyncio.wait_for(told.wait(), 60)
    assert seen == [True, "told at once", "gone", "gone"]


async def test_a_slow_client_holds_the_stream_back_and_loses_nothing() -> None:
    size, written = 2**25, 0
    done = asyncio.Event()

    async def answer(reply: Reply) -> None:
        nonlocal written
        await reply.start(200, DATED)
        while written < size:
            written += 2**16
            await reply.write(bytes(2**16))
        await reply.finish(complete=True)
        done.set()

    async with serving(answer) as client:
        client.ask("GET / HTTP/1.1", "connection: close")
        await client.head()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(done.wait(), 0.3)  # nobody reads: it must not be able to finish
        assert written < size
        assert len(await client.rest()) > size
        assert done.is_set()
