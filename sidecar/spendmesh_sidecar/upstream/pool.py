"""
`Upstream` on kept-alive connections of our own, in place of aiohttp's `ClientSession`.

Redirects are not followed, cookies not kept, proxies not used, bodies not unpacked, and nothing is sent twice: a
request whose connection broke may have been billed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from yarl import URL

from spendmesh_sidecar.http1 import head
from spendmesh_sidecar.upstream.connection import Answer, Connection
from spendmesh_sidecar.upstream.dial import Dialer
from spendmesh_sidecar.upstream.wire import ConnectFailed, UpstreamRequest, UpstreamResponse

KEEPALIVE_SECONDS = 15.0
"""Well below the 60-75 s after which common servers close, so that a request rarely meets a closing connection."""
MAX_IDLE = 100
"""Connections kept open for one origin, as the official SDKs do (httpx max_keepalive_connections)."""
MAX_REMEMBERED_URLS = 256
"""Model names are in some paths."""


@dataclass(slots=True)
class _Origin:
    """One scheme, host and port with its connections at rest, the longest rested first."""

    secure: bool
    host: str
    port: int
    idle: deque[Connection] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL, ready to be written."""

    origin: _Origin
    path: str
    host_line: str


class PooledUpstream:
    """Sends requests on connections that it keeps. `tls`: whom to trust; the system's authorities if not given."""

    def __init__(self, tls: ssl.SSLContext | None = None, keepalive_seconds: float = KEEPALIVE_SECONDS) -> None:
        self._dialer = Dialer(tls)
        self._keepalive_seconds = keepalive_seconds
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._targets: dict[str, _Target] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Connections at work or at rest."""
        return len(self._open)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See `Upstream.send`."""
        target = self._targets.get(request.url) or self._remember(request.url)
        lines = _head(request, target)
        connection = self._rested(target.origin) or await self._connect(target.origin)
        answer = await connection.ask(lines, request.body)
        return _Response(self, target.origin, connection, answer)

    async def close(self) -> None:
        """See `Upstream.close`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        connections = tuple(self._open)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in connections))

    def give_back(self, origin: _Origin, connection: Connection) -> None:
        """An answer is done with: keep its connection, if it can serve again."""
        if not connection.rest() or self._closed or len(origin.idle) >= MAX_IDLE:
            connection.abort()
            return
        origin.idle.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._keepalive_seconds, self._sweep)

    def _rested(self, origin: _Origin) -> Connection | None:
        """The connection that has rested shortest."""
        while origin.idle:
            connection = origin.idle.pop()
            if connection.fresh():
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: _Origin) -> Connection:
        loop = asyncio.get_running_loop()
        connection = await self._dialer.connect(
            origin.host, origin.port, origin.secure, lambda: Connection(loop, self._open.discard)
        )
        if connection.lost.done():
            raise ConnectFailed("closed as soon as it was open")
        self._open.add(connection)
        return connection

    def _sweep(self) -> None:
        """Close what has rested too long."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        due = loop.time() - self._keepalive_seconds
        left: list[float] = []
        for origin in self._origins.values():
            while origin.idle and origin.idle[0].rested_since <= due:
                origin.idle.popleft().abort()
            if origin.idle:
                left.append(origin.idle[0].rested_since)
        if left:
            self._sweeper = loop.call_at(min(left) + self._keepalive_seconds, self._sweep)

    def _remember(self, text: str) -> _Target:
        url = URL(text, encoded=True)
        if url.scheme not in ("http", "https") or url.host is None or url.port is None:
            raise ConnectFailed("not an http or https URL")
        if len(self._targets) >= MAX_REMEMBERED_URLS:
            self._targets.clear()
        key = (url.scheme, url.host, url.port)
        origin = self._origins.setdefault(key, _Origin(url.scheme == "https", url.host, url.port))
        target = self._targets[text] = _Target(origin, url.raw_path_qs, f"host: {url.host_port_subcomponent}\r\n")
        return target


class _Response:
    """`UpstreamResponse` that gives its connection back."""

    __slots__ = ("_answer", "_connection", "_origin", "_pool", "headers", "status")

    def __init__(self, pool: PooledUpstream, origin: _Origin, connection: Connection, answer: Answer) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = connection
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers

    def chunks(self) -> AsyncIterator[bytes]:
        return self._answer

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(self._origin, connection)


def _head(request: UpstreamRequest, target: _Target) -> bytes:
    """Request line, host, length and the caller's headers."""
    length = f"content-length: {len(request.body)}\r\n" if request.body or request.method != "GET" else ""
    return head(f"{request.method} {target.path} HTTP/1.1", request.headers, f"{target.host_line}{length}")
