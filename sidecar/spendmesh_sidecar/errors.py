"""
The sidecar's own errors towards a client, and nothing else.

    ClientGone        the application closed its connection: finish the books, say nothing
    RequestRefused    an answer of ours, ready to be sent in the client's dialect
"""

from __future__ import annotations

from spendmesh_sidecar.core.types import Refusal


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class RequestRefused(Exception):
    """The request ends here with this answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
