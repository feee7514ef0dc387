"""
The client's side of one exchange on aiohttp's server: an answer as the provider wrote it, in one write where it can be.

aiohttp's own responses take twice as long, because they build a header map, fill it up and write it out again. What
is here knows HTTP/1.1 framing and nothing of what an answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from spendmesh_sidecar.downstream.listener import DataProtocol
from spendmesh_sidecar.errors import ClientGone
from spendmesh_sidecar.http1 import Headers, head

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class _Written(web.StreamResponse):
    """Tells aiohttp that all is said: nothing is left to prepare or to write."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to do."""


_GO_ON, _CLOSE = _Written(True), _Written(False)


class Reply:
    """`Downstream` on an aiohttp request."""

    def __init__(self, request: web.BaseRequest, connection: DataProtocol, linger_seconds: float) -> None:
        self._request = request
        self._connection = connection
        self._linger_seconds = linger_seconds
        self._framing: Literal["chunked", "close", "none"] = "none"

    @property
    def gone(self) -> bool:
        """See `Downstream.gone`."""
        return self._connection.transport is None

    @property
    def records(self) -> bool:
        """See `Downstream.records`."""
        return False

    def when_gone(self, callback: Callable[[], None] | None, back: Callable[[], None] | None = None) -> None:
        """See `Downstream.when_gone`."""
        self._connection.when_gone = callback
        if callback is not None and self.gone:
            callback()

    async def start(self, status: int, headers: Headers) -> None:
        """See `Downstream.start`."""
        if self._bodiless(status):
            framing = ""
        elif self._request.version >= (1, 1):
            self._framing, framing = "chunked", "transfer-encoding: chunked\r\n"
        else:
            self._framing, framing = "close", ""
        self._put(self._head(status, headers, framing))
        if self._connection.writing_paused:
            await self._drain()

    async def write(self, chunk: bytes) -> None:
        """See `Downstream.write`."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        if self._framing == "chunked" and chunk:
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        elif self._framing == "close":
            transport.write(chunk)
        if self._connection.writing_paused:
            await self._drain()

    async def finish(self, complete: bool) -> None:
        """See `Downstream.finish`."""
        transport = self._request.transport
        if not complete:
            if transport is not None:  # what was written still arrives; without its end mark nobody takes it for whole
                transport.close()
                asyncio.get_running_loop().call_later(self._linger_seconds, transport.abort)
        elif self._framing == "chunked":
            try:
                self._put(b"0\r\n\r\n")
                if self._connection.writing_paused:
                    await self._drain()
            except ClientGone:
                pass  # all was said; the client did not wait for the end mark

    async def send(self, status: int, headers: Headers, body: bytes) -> None:
        """See `Downstream.send`."""
        if self._bodiless(status):
            self._put(self._head(status, headers, ""))
        else:
            self._put(self._head(status, headers, f"content-length: {len(body)}\r\n") + body)
        if self._connection.writing_paused:
            await self._drain()

    def written(self) -> web.StreamResponse:
        """What aiohttp gets to see of the answer: that it is over, and whether the connection goes on."""
        return _CLOSE if self._framing == "close" or not self._request.keep_alive else _GO_ON

    def _bodiless(self, status: int) -> bool:
        return status in (204, 304) or self._request.method == "HEAD"

    def _head(self, status: int, headers: Headers, framing: str) -> bytes:
        ours = framing
        if not self._request.keep_alive or self._framing == "close":
            ours += "connection: close\r\n"
        elif self._request.version < (1, 1):
            ours += "connection: keep-alive\r\n"
        for name, _ in headers:
            if len(name) == 4 and name.lower() == "date":
                break
        else:
            ours += f"date: {rfc822_formatted_time()}\r\n"
        return head(f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", headers, ours)

    def _put(self, data: bytes) -> None:
        """Hand over for writing; who calls this waits afterwards if the client reads slowly. Raises ClientGone."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        self._request.writer.output_size += len(data)  # so that a defect after this sends no second answer
        transport.write(data)

    async def _drain(self) -> None:
        """The client reads slowly: so does the provider's stream then."""
        try:
            await self._request.writer.drain()
        except ConnectionError as error:
            raise ClientGone from error
