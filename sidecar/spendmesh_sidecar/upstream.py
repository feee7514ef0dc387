"""
One attempt over the wire: send a prepared request to a provider, hand its answer back chunk by chunk.

Decides nothing: which target, which body and what an answer means is `core`'s. `Upstream` is the seam behind
which a pooled client on aiohttp's own C parser can replace `ClientSession`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from spendmesh_sidecar.addresses import forbidden

CONNECT_SECONDS = 5.0
"""As the official OpenAI and Anthropic SDKs (httpx connect timeout)."""
KEEPALIVE_SECONDS = 15.0
"""Well below the 60-75 s after which common servers close, so that a request rarely meets a closing connection."""
MAX_HEADER_BYTES = 16 * 1024
"""One header field; node.js and tomcat allow 8-16 KiB for all."""

MAX_CACHED_URLS = 256

_AUTOMATIC = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")


class UpstreamError(Exception):
    """An attempt that brought no answer, or lost it on the way."""


class ConnectFailed(UpstreamError):
    """No connection was made: nothing was sent, nothing can be billed."""


class ConnectionCut(UpstreamError):
    """The connection broke after the request was (perhaps) sent."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """Exactly what goes to the provider; `url` is the provider's base URL + the operation's path."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class UpstreamResponse(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """As received."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ConnectionCut."""
        ...

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it. May be called twice."""
        ...


class Upstream(Protocol):
    """Sends requests to providers."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send and wait for the head. Raises ConnectFailed or ConnectionCut; the caller sets the time limit."""
        ...

    async def close(self) -> None:
        """Drop all connections."""
        ...


class _GuardedResolver(AbstractResolver):
    """Refuses names that resolve to an address no provider has, at connect time (DNS rebinding)."""

    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [entry for entry in found if not forbidden(entry["host"])]
        if not allowed:
            raise OSError(f"{host} resolves only to addresses that are refused: {forbidden(found[0]['host'])}")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class _SessionResponse:
    """`UpstreamResponse` on an aiohttp response."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return tuple(self._response.headers.items())

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionCut(type(error).__name__) from error

    def close(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class SessionUpstream:
    """`Upstream` on a tuned `ClientSession`: no cookies, no redirects, no environment, no decompression."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=0,  # concurrency is the application's own; a hidden queue here would be unexplained latency
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=_GuardedResolver(),
            ttl_dns_cache=30,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trust_env=False,
        )
        self._urls: dict[str, URL] = {}

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See `Upstream.send`."""
        url = self._urls.get(request.url)
        if url is None:
            if len(self._urls) >= MAX_CACHED_URLS:  # model names are in some paths
                self._urls.clear()
            url = self._urls[request.url] = _checked_url(request.url)
        try:
            response = await self._session.request(
                request.method,
                url,
                headers=CIMultiDict(request.headers),
                data=request.body or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise ConnectFailed(type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionCut(type(error).__name__) from error
        return _SessionResponse(response)

    async def close(self) -> None:
        """See `Upstream.close`."""
        await self._session.close()


def _checked_url(text: str) -> URL:
    url = URL(text, encoded=True)
    host = url.host or ""
    try:
        reason = forbidden(host)
    except ValueError:  # a name: checked when it is resolved
        reason = ""
    if reason:
        raise ConnectFailed(reason)
    return url
