"""
kopf's connections to the API server: the same user as the client's, and none left open when kopf has ended.

kopf closes its sessions and its loop at once; TLS connections need a few more turns of the loop to say goodbye.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

import aiohttp
import kopf

from spendmesh_operator.kube.client import FIELD_MANAGER, Login

GOODBYE_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.01


class KopfSessions:
    """Opens sessions on kopf's loop, and knows when their sockets are closed."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def open(self, login: Login) -> kopf.AiohttpSession:
        """A session of that user; kopf closes it. To be called on kopf's loop."""
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(login), socket_factory=self._socket)
        headers = {"User-Agent": FIELD_MANAGER}
        if login.token:
            headers["Authorization"] = f"Bearer {login.token}"
        return kopf.AiohttpSession(
            server=login.server, aiohttp_session=aiohttp.ClientSession(connector=connector, headers=headers)
        )

    async def closed(self) -> None:
        """Wait until all sockets are closed, or for a while."""
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                while any(one.fileno() != -1 for one in self._sockets):  # noqa: ASYNC110  sockets signal nothing
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return

    def _socket(self, address: Any) -> socket.socket:
        self._sockets = [one for one in self._sockets if one.fileno() != -1]
        family, kind, protocol, *_ = address
        created = socket.socket(family=family, type=kind, proto=protocol)
        self._sockets.append(created)
        return created


def _tls(login: Login) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=login.ca_path)
    if not login.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if login.certificate_path:
        context.load_cert_chain(login.certificate_path, login.private_key_path)
    return context
