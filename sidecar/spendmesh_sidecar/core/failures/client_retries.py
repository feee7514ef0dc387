"""
Retries that clients make on their own: those that say so, and those that only look so.

An SDK marks its retries (`x-stainless-retry-count`). A loop around it does not: its retry is the same call again, soon
after the provider's failure was passed on. Nothing is decided by it, since an independent call may be equal: it is
counted and told. What a marked one costs is `attempts`'s.
"""

from __future__ import annotations

import math
from typing import Literal

from spendmesh_sidecar.core.types import ParsedRequest

How = Literal["marked", "unmarked"]

REPEAT_SECONDS = 15.0
"""An equal call this soon after its failure is a repeat: loops of clients wait 0.5 s to 10 s."""
STANDING_SECONDS = 600.0
"""A client that retries is told of for so long, so that one that does it now and then is one piece of news."""
MAX_FAILED = 256
"""Failed calls that are remembered, as numbers: nothing of their content is kept."""


class ClientRetries:
    """Asked once for each call; while no call has failed lately, that is one look at `failed`."""

    def __init__(self) -> None:
        self.failed: dict[int, float] = {}
        """What a provider refused or failed lately: fingerprint -> when, oldest first."""
        self._seen: dict[How, float] = {}

    def fail(self, request: ParsedRequest, now: float) -> None:
        """The provider's failure was passed on to the client."""
        key = _fingerprint(request)
        self.failed.pop(key, None)
        self.failed[key] = now
        if len(self.failed) > MAX_FAILED:
            del self.failed[next(iter(self.failed))]

    def repeats(self, request: ParsedRequest, began: float) -> bool:
        """Whether an equal call had failed a moment before this one began. Forgets what is older."""
        while self.failed and began - next(iter(self.failed.values())) > REPEAT_SECONDS:
            del self.failed[next(iter(self.failed))]
        return bool(self.failed) and self.failed.get(_fingerprint(request), math.inf) <= began

    def seen(self, how: How, now: float) -> None:
        """A client has retried on its own."""
        self._seen[how] = now

    def standing(self, now: float) -> tuple[How, ...]:
        """How clients have retried lately."""
        return tuple(sorted(how for how, then in self._seen.items() if now - then <= STANDING_SECONDS))


def _fingerprint(request: ParsedRequest) -> int:
    """Of this process only: Python seeds its hashes."""
    return hash((request.operation.name, request.provider, request.body))
