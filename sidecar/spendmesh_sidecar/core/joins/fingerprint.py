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


class Call(Struct, eq=False):
    """
    One client request as far as it can be the same as another. Its body is not read before somebody looks for its like:
    most calls are never repeated.
    """

    request_id: str
    known: bytes = b""
    """Its fingerprint, once it was asked for."""
    key: bytes = b""
    """Its `Idempotency-Key`, with whose it is; empty: it has none."""
    client_retry: int = 0
    """Which retry of its own the client says this is; 0: a first try."""
    length: int = 0
    """Of its body: calls of different lengths need no comparison."""
    words: bytes = b""
    """What its fingerprint is made of beside the body; while `request` is here, that says it."""
    body: bytes = b""
    request: ParsedRequest | None = None
    policy_digest: str = ""

    @property
    def fingerprint(self) -> bytes:
        """Equal for calls that are the same, and for no others."""
        if not self.known:
            self.end()
            digest = sha256(self.words)
            digest.update(self.body)
            self.known, self.words, self.body = digest.digest(), b"", b""
        return self.known

    def end(self) -> None:
        """Hold no more of the request than the fingerprint is made of."""
        if self.request is not None:
            self.words, self.request = _words(self.request, self.policy_digest), None

    @property
    def held(self) -> int:
        """Bytes that it holds, once it has ended, until its fingerprint is known."""
        return len(self.words) + len(self.body)


def call_of(request: ParsedRequest, request_id: str, policy_digest: str) -> Call:
    """The call; what can be read of it goes no further than its fingerprint."""
    body = request.body
    call = Call(request_id, b"", b"", request.client_retry, len(body), b"", body, request, policy_digest)
    if key := request.headers.get(KEY_HEADER, ""):
        dialect, hints = request.operation.dialect, request.hints
        owner = (policy_digest, dialect, hints.user, hints.scopes, key.encode(errors="surrogateescape"))
        call.key = sha256(_encode(owner)).digest()
    return call


def _words(request: ParsedRequest, policy_digest: str) -> bytes:
    headers, operation = request.headers, request.operation
    told = "\n".join([headers.get(name, "") for name in _HEADERS]).encode(errors="surrogateescape")
    return _encode((policy_digest, operation.dialect, operation.name, request.provider, told, request.hints))
