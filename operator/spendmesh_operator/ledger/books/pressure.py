"""Who waits for rights that are in other hands, so that others are asked to give back. Forgotten soon. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spendmesh_operator.ledger.books.accounts import AccountKey

PRESSURE_MS = 10_000
"""How long others are asked to give back after a request found too little."""


@dataclass(frozen=True, slots=True)
class _Asked:
    need: int
    uid: str
    until_ms: int


class Pressure:
    """The newest unmet need of each account."""

    def __init__(self) -> None:
        self._asked: dict[AccountKey, _Asked] = {}

    def note(self, keys: Iterable[AccountKey], need: int, uid: str, now_ms: int) -> None:
        """The pod `uid` found too little on these accounts."""
        for key in keys:
            self._asked[key] = _Asked(need, uid, now_ms + PRESSURE_MS)

    def on(self, key: AccountKey, uid: str, now_ms: int) -> int:
        """What others wait for. Never taken from the one who waits: that would only raise its need."""
        asked = self._asked.get(key)
        return asked.need if asked is not None and now_ms < asked.until_ms and asked.uid != uid else 0

    def sweep(self, now_ms: int) -> None:
        """Forget what is over."""
        self._asked = {key: asked for key, asked in self._asked.items() if now_ms < asked.until_ms}
