"""Requests to a sidecar without an SDK, down to single bytes, and the proof that one had no effect."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sidecar_world import World

OPENAI, ANTHROPIC = "/openai/v1/chat/completions", "/anthropic/v1/messages"
GOOD = b'{"model":"auto","max_tokens":300,"messages":[{"role":"user","content":"hi"}]}'
HEAD = f"POST {OPENAI} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()


async def post(world: World, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    async with world.http.post(
        world.url + path, data=body, headers={"content-type": "application/json", **headers}
    ) as got:
        return got.status, got.headers, json.loads(await got.read())


async def raw(world: World, request: bytes) -> bytes:
    """Everything that comes back on a connection of our own until the sidecar closes it."""
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def nothing_happened(world: World) -> None:
    assert world.provider_requests() == []
    assert world.rights.used == 0
    assert world.sidecar.plane.ledger.open_reservations == 0
