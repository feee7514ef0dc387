"""
From a provider's name to an open connection: resolve, refuse what no provider has, connect, verify.

Nothing of a request is sent here, so whatever fails is `ConnectFailed` and costs nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from spendmesh_sidecar.upstream.addresses import forbidden
from spendmesh_sidecar.upstream.wire import ConnectFailed

CONNECT_SECONDS = 5.0
"""TCP and TLS together; the official OpenAI and Anthropic SDKs give 5 s (httpx connect timeout)."""
LOOKUP_SECONDS = 10.0
"""resolv.conf's own default: two tries of 5 s."""
REMEMBERED_SECONDS = 30.0
"""How long addresses are used again; CoreDNS answers in a cluster are valid for 30 s."""
MAX_REMEMBERED = 256
"""Names; policies have a few."""
SECOND_FAMILY_SECONDS = 0.25
"""Happy Eyeballs (RFC 8305 §5): the other address family is tried after this."""

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


@dataclass(slots=True)
class _Name:
    """What one name resolved to."""

    addresses: list[AddrInfoType] = field(default_factory=list)
    until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Dialer:
    """Makes connections. `tls` decides whom to trust; the system's authorities if it is not given."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._names: dict[tuple[str, int], _Name] = {}

    async def connect(self, host: str, port: int, secure: bool, make: Callable[[], Protocol]) -> Protocol:
        """A new connection under a protocol that `make` makes. Raises ConnectFailed."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = await self._resolve(host, port)
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._open(host, addresses, secure, make)
        except OSError as error:  # also name, TLS and time-out errors
            self._names.pop((host, port), None)  # the provider may have moved
            raise ConnectFailed(type(error).__name__) from error

    async def _open(
        self, host: str, addresses: list[AddrInfoType], secure: bool, make: Callable[[], Protocol]
    ) -> Protocol:
        loop = asyncio.get_running_loop()
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=SECOND_FAMILY_SECONDS, interleave=1, loop=loop
        )
        try:
            if secure:
                _, protocol = await loop.create_connection(
                    make, sock=connected, ssl=self._context(), server_hostname=host
                )
            else:
                _, protocol = await loop.create_connection(make, sock=connected)
        except BaseException:
            connected.close()
            raise
        return protocol

    async def _resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """Allowed addresses, another one first each time. Raises ConnectFailed or OSError."""
        name = self._names.get((host, port))
        if name is None:
            while len(self._names) >= MAX_REMEMBERED:
                del self._names[next(iter(self._names))]
            name = self._names[host, port] = _Name()
        async with name.lock:  # those who come meanwhile find what the first one found
            loop = asyncio.get_running_loop()
            if loop.time() >= name.until:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
                name.addresses = _allowed(host, found)
                name.until = loop.time() + REMEMBERED_SECONDS
            addresses = list(name.addresses)
            name.addresses.append(name.addresses.pop(0))
            return addresses

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _allowed(host: str, found: Sequence[AddrInfoType]) -> list[AddrInfoType]:
    """Checked when the name is resolved, so that a name cannot point somewhere else later (DNS rebinding)."""
    reasons = [forbidden(str(address[4][0])) for address in found]
    allowed = [address for address, reason in zip(found, reasons, strict=True) if not reason]
    if not allowed:
        raise ConnectFailed(f"{host} has only addresses that are refused: {reasons[0] if reasons else 'none'}")
    return allowed
