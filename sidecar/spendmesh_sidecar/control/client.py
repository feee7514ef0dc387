"""
The sidecar's side of the control server: one HTTP client with the pod's token, for the policy stream, for leases
and for shares of retry budgets.

Nothing here is on a request's path except a bounded `acquire`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec

from spendmesh_sidecar import protocol
from spendmesh_sidecar.settings import Settings

CALL_SECONDS = 5.0
"""A lease call that takes longer is as good as lost; it is repeated under the same id."""
SILENCE_SECONDS = 3.0 * protocol.HEARTBEAT_SECONDS
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""A policy or price table; a Kubernetes object is at most 1.5 MiB and a policy is made of a few dozen."""


M = TypeVar("M", bound=protocol.Message)


class ControlUnavailable(Exception):
    """The control server did not answer, or has no leader now: try again."""


class ControlRefused(Exception):
    """The control server understood and refused; repeating the same call will not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"control server answered {status}: {message}")
        self.status = status


class ControlClient:
    """Authenticated calls to any replica of the control server."""

    def __init__(self, settings: Settings, token: str = "") -> None:
        self._base = settings.control_url
        self._token_file = settings.token_file
        self._token = token
        self.on_hints: Callable[[tuple[protocol.Ejection, ...]], None] = lambda _: None
        """Told which targets other sidecars have ejected, whenever an answer says so."""
        context: ssl.SSLContext | bool = True
        if settings.control_ca:
            context = ssl.create_default_context(cadata=settings.control_ca)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=2.0),
            read_bufsize=2**20,
            trust_env=False,
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    @asynccontextmanager
    async def stream(self, query: protocol.StreamQuery) -> AsyncIterator[AsyncIterator[protocol.StreamEvent]]:
        """The policy stream. Raises ControlUnavailable or ControlRefused, also while it is read."""
        parameters = {
            "nonce": query.nonce,
            "digest": query.digest,
            "epoch": str(query.epoch),
            "sequence": str(query.sequence),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=SILENCE_SECONDS)
        try:
            async with self._session.get(
                self._base + protocol.PATH_STREAM, params=parameters, headers=self._authorization(), timeout=timeout
            ) as response:
                await _expect(response, 200)
                yield _events(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ControlUnavailable(type(error).__name__) from error

    async def price_table(self, digest: str) -> bytes:
        """A price table by its content address; the caller checks the digest."""
        try:
            async with self._session.get(
                self._base + protocol.PATH_PRICE_TABLE.format(digest=digest), headers=self._authorization()
            ) as response:
                await _expect(response, 200)
                return await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ControlUnavailable(type(error).__name__) from error

    async def acknowledge(self, ack: protocol.Ack) -> None:
        """ACK or NACK of a snapshot."""
        await self._post(protocol.PATH_ACK, ack)

    async def acquire(self, request: protocol.AcquireRequest) -> protocol.AcquireReply:
        """Ask for rights; safe to repeat under the same id."""
        return _decoded(await self._post(protocol.PATH_ACQUIRE, request), protocol.AcquireReply)

    async def report(self, request: protocol.ReportRequest) -> protocol.ReportReply:
        """Report use; safe to repeat."""
        reply = _decoded(await self._post(protocol.PATH_REPORT, request), protocol.ReportReply)
        if reply.hints:
            self.on_hints(reply.hints)
        return reply

    async def observe(self, observations: protocol.Observations) -> None:
        """What only this sidecar sees; safe to repeat."""
        await self._post(protocol.PATH_OBSERVATIONS, observations)

    async def share(self, request: protocol.ShareRequest) -> protocol.ShareReply:
        """Report on shared retry budgets and ask for shares; safe to repeat."""
        return _decoded(await self._post(protocol.PATH_SHARE, request), protocol.ShareReply)

    async def _post(self, path: str, message: protocol.Message) -> bytes:
        headers = {**self._authorization(), "content-type": "application/json"}
        try:
            async with self._session.post(
                self._base + path, data=msgspec.json.encode(message), headers=headers
            ) as response:
                await _expect(response, 200, 204)
                return await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ControlUnavailable(type(error).__name__) from error

    def _authorization(self) -> dict[str, str]:
        """The kubelet rotates the token at 80 % of its life: read it for every call."""
        token = self._token
        if self._token_file is not None:
            try:
                token = self._token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ControlUnavailable(f"token file is not readable: {type(error).__name__}") from error
        return {"authorization": f"Bearer {token}"}


def _decoded(body: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise ControlUnavailable(f"answer is not readable: {error}") from error


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[protocol.StreamEvent]:
    buffer = bytearray()
    async for chunk in response.content.iter_any():
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line.strip():
                try:
                    yield msgspec.json.decode(line, type=protocol.StreamEvent)
                except msgspec.DecodeError as error:
                    raise ControlUnavailable(f"stream is not readable: {error}") from error
        if len(buffer) > MAX_DOCUMENT_BYTES:
            raise ControlUnavailable("a line of the stream is longer than any policy")


async def _expect(response: aiohttp.ClientResponse, *statuses: int) -> None:
    if response.status in statuses:
        return
    try:
        message = str(msgspec.json.decode(await response.read(), type=dict[str, object]).get("error", ""))[:500]
    except msgspec.DecodeError:
        message = response.reason or ""
    if response.status in (404, 429) or response.status >= 500:  # 404: this replica does not know the pod yet
        raise ControlUnavailable(f"{response.status} {message}".strip())
    raise ControlRefused(response.status, message)
