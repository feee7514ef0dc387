"""
One connection to a provider: HTTP/1.1 on aiohttp's own C response parser, one request at a time.

Knows framing and flow control, neither addresses nor pools. A connection serves again only after an answer that was
read to its end, and only if nothing came that no request asked for.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Sequence

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from spendmesh_sidecar.upstream.wire import ConnectFailed, ConnectionCut

MAX_FIELD_BYTES = 16 * 1024
"""One header field; node.js and tomcat allow 8-16 KiB for all."""
MAX_FIELDS = 128
"""aiohttp's own default; Apache's LimitRequestFields is 100."""
ONE_PIECE_BYTES = 64 * 1024
"""Up to here head and body are written as one: a copy costs less than a second buffer, and memory little."""
MAX_INTERIM = 5
"""1xx answers before the final one, as in Go's net/http."""
READ_BUFFER_BYTES = 64 * 1024
"""Reading stops at twice this until the client has taken what waits; Envoy's edge guide advises 32 KiB."""


class Connection(BaseProtocol):
    """An open connection. `on_lost` is told once when it is gone."""

    __slots__ = ("_arrived", "_head", "_interim", "_on_lost", "_payload", "_reusable", "broken", "lost", "rested_since")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]) -> None:
        super().__init__(loop)
        self._on_lost = on_lost
        self._head: asyncio.Future[RawResponseMessage] | None = None
        self._payload: StreamReader | None = None
        self._interim = 0
        self._reusable = True
        self._arrived = select.poll()
        self.broken = ""
        """Why the answer that is being read does not come to its end."""
        self.rested_since = 0.0
        """Event loop's seconds."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the socket is closed."""

    # --- one request ------------------------------------------------------------------------------------------

    async def ask(self, head: bytes, body: bytes) -> Answer:
        """
        Write a request and wait for the head of its answer; cancelled, it closes.

        Raises ConnectFailed if nothing was written, ConnectionCut afterwards.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._parser is not None:
            raise ConnectFailed("the connection is not free")
        # A new parser for each answer, as aiohttp's own client has it: nothing of one answer can reach the next.
        self._parser = HttpResponseParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._interim = 0
        self._head = self._loop.create_future()
        if len(body) <= ONE_PIECE_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        try:
            message = await self._head
        except BaseException:
            self.abort()
            raise
        assert self._payload is not None
        return Answer(self, message, self._payload)

    def rest(self) -> bool:
        """The answer was read to its end: whether another request may follow."""
        payload, parser, transport = self._payload, self._parser, self.transport
        if payload is None or parser is None or transport is None or not payload.at_eof():
            return False
        self._payload = self._parser = self._head = None
        self.rested_since = self._loop.time()
        if not self._reusable or self.broken or transport.get_write_buffer_size():
            return False  # it said so, or it answered before it had read the request
        try:
            return parser.feed_eof() is None  # something: the beginning of an answer that nobody asked for
        except HttpProcessingError:
            return False

    def fresh(self) -> bool:
        """Whether a connection that has rested can take a request: it is open, and nothing arrived meanwhile."""
        transport = self.transport
        if transport is None or transport.is_closing() or not self._reusable:
            return False
        return not self._arrived.poll(0)  # the loop may not have seen yet that it was closed (as httpcore, urllib3)

    def abort(self, reason: str = "closed") -> None:
        """Close now. What has come is still read, before the reader hears of it."""
        self._reusable = False
        head, payload = self._head, self._payload
        if head is not None and not head.done():
            head.set_exception(ConnectionCut(reason))
        elif payload is not None and not payload.is_eof():
            self.broken = reason
            payload.feed_eof()
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a first request."""
        super().connection_made(transport)
        self._arrived.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or (empty) the order to go on with those that were held back."""
        if self._parser is None:
            if data:
                self.abort()  # nothing was asked: these bytes answer no request
            return
        try:
            messages, _, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self.abort(type(error).__name__)
            return
        for message, payload in messages:
            self._take(message, payload)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The reader has room again; it says so after every read."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end of the connection ends what is being read: in order only if HTTP says so."""
        super().connection_lost(exc)
        reason = type(exc).__name__ if exc is not None else "closed by the provider"
        parser = self._parser
        if parser is not None and exc is None and self._payload is not None and not self._payload.is_eof():
            try:
                parser.feed_eof()  # ends a body that has no length, and no other
            except HttpProcessingError as error:
                reason = type(error).__name__
        self.abort(reason)
        self._parser = None
        if not self.lost.done():
            self.lost.set_result(None)
        self._on_lost(self)

    def _take(self, message: RawResponseMessage, payload: StreamReader) -> None:
        head = self._head
        if message.code < 200:
            self._interim += 1
            if message.code == 101 or self._interim > MAX_INTERIM:
                self.abort("unexpected 1xx")
        elif head is None or head.done():
            self._reusable = False  # a second answer to one request
        else:
            self._reusable = self._reusable and not message.should_close
            self._payload = payload
            head.set_result(message)


class Answer:
    """The head of an answer, and its body as it arrives."""

    __slots__ = ("_connection", "_payload", "headers", "status")

    def __init__(self, connection: Connection, message: RawResponseMessage, payload: StreamReader) -> None:
        self._connection = connection
        self._payload = payload
        self.status: int = message.code
        self.headers: Sequence[tuple[str, str]] = tuple(message.headers.items())

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body. Raises ConnectionCut at the place where it breaks off."""
        return self

    async def __anext__(self) -> bytes:
        if chunk := await self._payload.readany():
            return chunk
        if self._connection.broken:
            raise ConnectionCut(self._connection.broken)
        raise StopAsyncIteration
