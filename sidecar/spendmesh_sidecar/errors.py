"""
The sidecar's own errors while it serves a client, and nothing else.

    ClientGone        the application closed its connection: finish the books, say nothing
    KeyMissing        an attempt cannot be made: the pod has no key for its provider
    RequestRefused    an answer of ours, ready to be sent in the client's dialect
"""

from __future__ import annotations

from spendmesh_sidecar.core.types import Refusal


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class KeyMissing(Exception):
    """The policy's Secret is not mounted in this pod, or holds nothing that can be sent as a key."""


class RequestRefused(Exception):
    """The request ends here with this answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
