"""Whether the coordinator has stopped answering, and what that opens: what limits keep or allow for such a time."""

from __future__ import annotations

from collections.abc import Iterable

from spendmesh_sidecar.core.ledger.account import Account

SILENCE_STANDS_SECONDS = 5.0
"""After an unanswered question about rights, calls that can be served from what is here do not ask for so long."""


class Silence:
    """From a question without an answer to the next word of the coordinator."""

    def __init__(self) -> None:
        self.lasts = False
        self._stands_until = 0.0

    def begin(self, accounts: Iterable[Account], now: float) -> None:
        """A question brought no answer in time."""
        self.lasts, self._stands_until = True, now + SILENCE_STANDS_SECONDS
        for account in accounts:
            account.hear(silent=True)

    def end(self, accounts: Iterable[Account]) -> None:
        """The coordinator was heard."""
        self._stands_until = 0.0
        if self.lasts:
            self.lasts = False
            for account in accounts:
                account.hear(silent=False)

    def stands(self, now: float) -> bool:
        """It was found a moment ago, so that asking again would only cost time."""
        return now < self._stands_until
