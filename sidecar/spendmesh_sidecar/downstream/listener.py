"""
Connections of applications: aiohttp's low-level server with what an edge needs and it lacks.

A cap on connections, a time limit for a request's head, a word to the handler when its client has left, and errors
in an API's shape that repeat nothing of the request. Requests themselves are `app`'s.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable

from aiohttp import web

from spendmesh_sidecar.core.types import Refusal
from spendmesh_sidecar.downstream.answers import refusal_answer
from spendmesh_sidecar.limits import Limits

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
log = logging.getLogger("spendmesh.listener")


class DataProtocol(web.RequestHandler):
    """One connection. `when_gone` is called when it is lost; the handler of a request sets and clears it."""

    __slots__ = ("_busy", "_head_seconds", "_head_timer", "when_gone")

    def __init__(self, manager: web.Server, *, head_seconds: float, **options: object) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type]
        self.when_gone: Callable[[], None] | None = None
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._busy = False

    def begin(self) -> None:
        """A request's head is complete and its handler runs."""
        self._busy = True
        self._stop_timer()

    def end(self) -> None:
        """The handler has ended."""
        self._busy = False
        self.when_gone = None

    def data_received(self, data: bytes) -> None:
        """Bytes between two requests begin a head, which has to come to its end."""
        super().data_received(data)
        if not self._busy and self._head_timer is None and not self._messages:
            self._head_timer = asyncio.get_running_loop().call_later(self._head_seconds, self._too_slow)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The reader of a body has room again; it says so after every read, though mostly nothing was held back."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has left."""
        self._stop_timer()
        super().connection_lost(exc)
        if self.when_gone is not None:
            self.when_gone()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """
        The answer to what is no HTTP, or to a defect of ours. Neither log nor answer repeats what was received.
        """
        if status >= 500 and exc is not None:
            frames = "".join(traceback.format_tb(exc.__traceback__))
            log.error("a request failed by a defect (%s):\n%s", type(exc).__name__, frames)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer was sent already")
        refusal = (
            Refusal("internal_error", 500, "The sidecar has a defect; its log names the place.")
            if status >= 500
            else Refusal("request_invalid", status, "This is not an HTTP/1.1 request that can be read in one way only.")
        )
        status, headers, body = refusal_answer("OpenAI", refusal, "")
        response = web.Response(status=status, body=body, headers=headers)
        response.force_close()
        return response

    def _too_slow(self) -> None:
        log.warning("closed a connection whose request had no complete head within %.0f s", self._head_seconds)
        self.force_close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class DataServer(web.Server):
    """Makes a `DataProtocol` for each connection, up to the cap; one above it is closed unread."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        super().__init__(handler)
        self._limits = limits

    def __call__(self) -> web.RequestHandler:
        """A protocol for a new connection."""
        limits = self._limits
        return DataProtocol(
            self,
            head_seconds=limits.head_seconds,
            access_log=None,
            auto_decompress=False,  # compressed bodies are refused: no bomb, no second reading
            lingering_time=limits.linger_seconds,
            keepalive_timeout=limits.keepalive_seconds,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            read_bufsize=2**18,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count it, or cut it."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._limits.connections:
            log.warning("refused a connection: %d are open", self._limits.connections)
            asyncio.get_running_loop().call_soon(handler.force_close)  # not before the protocol is set up
