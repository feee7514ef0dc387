"""
When two calls are the same: what an answer depends on, as one digest.

Two calls with equal fingerprints may share one answer, so all goes in that could make their answers, or who pays for
them, differ: policy (with it providers and credentials), operation, body byte for byte, and what the client says of
user, session and the values that limits are divided by. What an SDK writes anew for each try (retry count, trace) is
left out.
"""

from __future__ import annotations

from hashlib import sha256

from msgspec import Struct, msgpack

from spendmesh_sidecar.core.types import ParsedRequest

KEY_HEADER = "idempotency-key"
_HEADERS = ("accept", "anthropic-beta", "anthropic-version", KEY_HEADER)
"""Of those that go upstream, the ones that can change an answer."""

_encode = msgpack.Encoder().encode


class Call(Struct, frozen=True, gc=False):
    """One client request as far as it can be the same as another."""

    request_id: str
    fingerprint: bytes
    key: bytes = b""
    """Its `Idempotency-Key`, with whose it is; empty: it has none."""
    client_retry: int = 0
    """Which retry of its own the client says this is; 0: a first try."""


def call_of(request: ParsedRequest, request_id: str, policy_digest: str) -> Call:
    """The call, without anything of it that could be read."""
    headers, operation, hints = request.headers, request.operation, request.hints
    dialect = operation.dialect
    told = "\n".join([headers.get(name, "") for name in _HEADERS]).encode(errors="surrogateescape")
    digest = sha256(_encode((policy_digest, dialect, operation.name, request.provider, told, hints)))
    digest.update(request.body)
    key = headers.get(KEY_HEADER, "")
    if key:
        owner = (policy_digest, dialect, hints.user, hints.scopes, key.encode(errors="surrogateescape"))
        return Call(request_id, digest.digest(), sha256(_encode(owner)).digest(), request.client_retry)
    return Call(request_id, digest.digest(), b"", request.client_retry)
