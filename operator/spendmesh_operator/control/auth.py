"""
Who sends a request to the control server: the protocol of all authenticators, and fixed tokens for one machine.

The identity comes from the bearer token alone, never from what a message says of itself (contract §3).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Protocol

from spendmesh_operator.identity import PodIdentity, ReplicaIdentity

__all__ = [
    "AuthError",
    "AuthUnavailable",
    "Authenticator",
    "Forbidden",
    "PodIdentity",
    "ReplicaIdentity",
    "StaticTokens",
    "Unauthenticated",
]

Identity = PodIdentity | ReplicaIdentity


class AuthError(Exception):
    """Base; the message may be shown to the caller and holds nothing of the token."""

    status = 401


class Unauthenticated(AuthError):
    """No token, or one that nobody vouches for."""


class Forbidden(AuthError):
    """A real token, but not one that may do this: not bound to a pod, or another audience."""

    status = 403


class AuthUnavailable(AuthError):
    """Nobody could be asked whose token it is."""

    status = 503


class Authenticator(Protocol):
    """Finds out whose token it is."""

    async def identify(self, token: str) -> Identity:
        """Raises Unauthenticated, Forbidden or AuthUnavailable."""


class StaticTokens:
    """Tokens made up by `run` and `demo` for the processes that they start themselves."""

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        self._identities: dict[bytes, Identity] = {}
        for token, identity in tokens.items():
            self.add(token, identity)

    def add(self, token: str, identity: Identity) -> None:
        """Accept a token from now on."""
        self._identities[_fingerprint(token)] = identity

    async def identify(self, token: str) -> Identity:
        """Compares with all tokens in constant time each."""
        shown = _fingerprint(token)
        found: Identity | None = None
        for known, identity in self._identities.items():
            if hmac.compare_digest(known, shown):
                found = identity
        if found is None:
            raise Unauthenticated("this token is not known here")
        return found


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
