"""
The way from any replica to the leader: who it is, and the few calls that a follower passes on. I/O.

A follower passes a sidecar's request on with the sidecar's own token: the leader checks it again itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from spendmesh_sidecar.protocol import Stamp

PATH_STAMP = "/v1/replica/stamp"
FORWARDED = "x-spendmesh-forwarded"
"""On a request that a follower passed on: it is never passed on again."""

FORWARD_SECONDS = 4.5
"""Less than the 5 s that a sidecar waits, so that it hears a sentence and not silence."""
_CONNECT_SECONDS = 1.0


class LeaderLink(Protocol):
    """What the election knows."""

    def is_leader(self) -> bool:
        """Whether this replica is the leader."""

    def address(self) -> str | None:
        """Base URL of the leader's control server, such as `https://10.1.2.3:8443`; None: there is none now."""


class SoleLeader:
    """`LeaderLink` where there is one process."""

    def is_leader(self) -> bool:
        return True

    def address(self) -> str | None:
        return None


class StampQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Asked by a follower. 404 means: not in force at the leader (yet)."""

    digest: str
    seen_epoch: int = 0
    seen_sequence: int = 0


class LeaderUnreachable(Exception):
    """There is no leader, or it does not answer (503)."""


@dataclass(frozen=True, slots=True)
class LeaderAnswer:
    """An answer as the leader gave it."""

    status: int
    body: bytes


class LeaderClient:
    """
    Calls to the leader.

    `replica_token` gives this replica's own token. `server_hostname` is the name in the leader's certificate, since
    its address is an IP.
    """

    def __init__(
        self,
        link: LeaderLink,
        replica_token: Callable[[], str] = lambda: "",
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._link = link
        self._replica_token = replica_token
        self._tls = tls
        self._server_hostname = server_hostname
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def forward(self, path: str, authorization: str, body: bytes) -> LeaderAnswer:
        """Pass a sidecar's request on, byte for byte. Raises LeaderUnreachable."""
        return await self._post(path, authorization, body)

    async def stamp(self, query: StampQuery) -> Stamp | None:
        """Ask for a digest's stamp; None if it is not in force at the leader. Raises LeaderUnreachable."""
        answer = await self._post(PATH_STAMP, f"Bearer {self._replica_token()}", msgspec.json.encode(query))
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise LeaderUnreachable(f"the leader answered {answer.status} when asked for a stamp")
        try:
            return msgspec.json.decode(answer.body, type=Stamp)
        except msgspec.DecodeError as error:
            raise LeaderUnreachable("the leader's answer is not readable: do versions differ?") from error

    async def _post(self, path: str, authorization: str, body: bytes) -> LeaderAnswer:
        address = self._link.address()
        if address is None:
            raise LeaderUnreachable("no replica is the leader now: retry")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True),
                timeout=aiohttp.ClientTimeout(total=FORWARD_SECONDS, sock_connect=_CONNECT_SECONDS),
                trust_env=False,
            )
        headers = {"authorization": authorization, "content-type": "application/json", FORWARDED: "1"}
        try:
            async with self._session.post(
                address + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                server_hostname=self._server_hostname,
            ) as response:
                return LeaderAnswer(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise LeaderUnreachable(f"the leader does not answer ({type(error).__name__}): retry") from error
