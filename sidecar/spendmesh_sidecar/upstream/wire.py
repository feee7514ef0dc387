"""
One attempt over the wire: send a prepared request to a provider, hand its answer back chunk by chunk.

Words only. Which target, which body and what an answer means is `core`'s; connections are `upstream_pool`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct


class UpstreamError(Exception):
    """An attempt that brought no answer, or lost it on the way."""


class ConnectFailed(UpstreamError):
    """No connection was made: nothing was sent, nothing can be billed."""


class ConnectionCut(UpstreamError):
    """The connection broke after the request was (perhaps) sent."""


class UpstreamRequest(Struct, frozen=True, gc=False):
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
