"""What all paths of the control server share: token, query and body in; JSON and errors out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from spendmesh_operator.control.auth import AuthError, Unauthenticated
from spendmesh_operator.control.leader import LeaderUnreachable
from spendmesh_operator.ledger.books.accounts import BadRequest, HolderFenced, LedgerError, NotYours
from spendmesh_sidecar.protocol import StreamQuery

MAX_BODY_BYTES = 512 * 1024
"""A report of 1,000 leases has about 300 KiB; aiohttp's own default is 1 MiB."""
BODY_SECONDS = 5.0
"""A sidecar gives a call up after as long."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
M = TypeVar("M", bound=msgspec.Struct)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Each error that handlers raise as a status and a sentence; no stack trace leaves."""
    try:
        return await handler(request)
    except AuthError as cause:
        return error(cause.status, str(cause))
    except BadRequest as cause:
        return error(400, str(cause))
    except NotYours as cause:
        return error(403, str(cause))
    except HolderFenced as cause:
        return error(409, str(cause))
    except (LedgerError, LeaderUnreachable) as cause:
        return error(503, str(cause))
    except TimeoutError:
        return error(408, "the body did not arrive in time")
    except web.HTTPException as cause:
        return error(cause.status, cause.reason)


def bearer(request: web.Request) -> str:
    """The token that a request shows. Raises Unauthenticated."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send a service account token for audience spendmesh.io as a bearer token")
    return token.strip()


def stream_query(request: web.Request) -> StreamQuery:
    """What a sidecar says of itself when it asks for its policy stream. Raises BadRequest."""
    try:
        query = msgspec.convert(dict(request.query), StreamQuery, strict=False)
    except msgspec.ValidationError as cause:
        raise BadRequest(f"query of the stream: {cause}") from cause
    return query


async def body_of(request: web.Request) -> bytes:
    """Raises TimeoutError, and aiohttp's error for one that is larger than MAX_BODY_BYTES."""
    async with asyncio.timeout(BODY_SECONDS):
        return await request.read()


def decode(body: bytes, kind: type[M]) -> M:
    """Raises BadRequest."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as cause:
        raise BadRequest(f"body is no {kind.__name__}: {cause}") from cause


def answer(message: msgspec.Struct) -> web.Response:
    """A message of the protocol."""
    return web.Response(body=msgspec.json.encode(message), content_type="application/json")


def error(status: int, sentence: str) -> web.Response:
    """Why not, for the sidecar's log or a person."""
    body = msgspec.json.encode({"error": sentence})
    return web.Response(status=status, body=body, content_type="application/json")
