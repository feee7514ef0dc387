"""Request bodies as they arrive: whole, uncompressed, each within size and time, and all together within a bound."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from spendmesh_sidecar.core.operations.errors import RequestError, invalid
from spendmesh_sidecar.core.types import Refusal
from spendmesh_sidecar.errors import RequestRefused
from spendmesh_sidecar.limits import Limits

ROOM_RETRY_SECONDS = 5.0
"""Calls that hold a body last seconds to minutes; one of them has mostly ended by then."""


class Bodies:
    """Counts the bytes of all bodies that are held for calls in progress."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._bytes = 0

    def held(self) -> Held:
        """Room for one body, until its call has ended: `with bodies.held() as held`."""
        return Held(self)

    def take(self, size: int) -> None:
        """Count so many bytes more. Raises RequestRefused if they do not fit beside the others."""
        if self._bytes + size > self.limits.bodies_bytes:
            # RFC 9110, 413: Retry-After says that the condition is temporary.
            raise RequestRefused(
                Refusal(
                    "request_too_large",
                    413,
                    f"the calls in progress hold {self._bytes} bytes of request bodies, and this sidecar holds at most "
                    f"{self.limits.bodies_bytes}: try again when some have ended, or send fewer large ones at once",
                    retry_after_seconds=ROOM_RETRY_SECONDS,
                )
            )
        self._bytes += size

    def give_back(self, size: int) -> None:
        """Count so many bytes less."""
        self._bytes -= size


class Held:
    """One body's part of the room."""

    def __init__(self, bodies: Bodies) -> None:
        self.limits = bodies.limits
        self.size = 0
        self._bodies = bodies

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.give_back(self.size)

    def grow(self, size: int) -> None:
        """So many bytes more have arrived. Raises RequestError or RequestRefused."""
        if self.size + size > self.limits.body_bytes:
            raise _too_large(self.limits)
        self._bodies.take(size)
        self.size += size


async def read_body(request: web.BaseRequest, held: Held) -> bytes:
    """The whole body. Raises RequestError or RequestRefused."""
    limits = held.limits
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise invalid("send the body uncompressed", "Content-Encoding")
    if (request.content_length or 0) > limits.body_bytes:
        raise _too_large(limits)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # not part of the answer
    if request.content.is_eof():  # all of it came with its head: most requests
        body = request.content.read_nowait()
        held.grow(len(body))
        return body
    parts = []
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.content.iter_any():
                held.grow(len(chunk))
                parts.append(chunk)
    except TimeoutError as error:
        raise invalid(f"the body did not arrive within {limits.body_seconds:.0f} s") from error
    except (HttpProcessingError, ConnectionError, web.RequestPayloadError) as error:
        raise invalid("the body is not complete") from error
    return b"".join(parts)


def _too_large(limits: Limits) -> RequestError:
    return RequestError("request_too_large", 413, f"the body is larger than {limits.body_bytes} bytes", "")
