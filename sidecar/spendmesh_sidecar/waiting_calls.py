"""
Calls that wait for rights: who can be asked for together, and who hears what.

What to ask is `leases`' business, which does it; an answer wakes each call once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from spendmesh_sidecar import protocol
from spendmesh_sidecar.core.rights import Denial
from spendmesh_sidecar.core.types import Shortfall

Denials = tuple[Denial, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WaitingCall:
    """One request that waits for rights."""

    shortfalls: tuple[Shortfall, ...]
    until: float
    """The loop's time at which it gives up."""
    answer: asyncio.Future[Denials | None]
    """As `Leases.acquire` returns it."""


class WaitingCalls:
    """All that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._calls: list[WaitingCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def all(self) -> tuple[WaitingCall, ...]:
        """As of now: who is answered in the meantime stays in this."""
        return tuple(self._calls)

    def add(self, shortfalls: tuple[Shortfall, ...], until: float) -> WaitingCall:
        """A call that waits from now on; `leave` when it does no more."""
        call = WaitingCall(shortfalls, until, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        return call

    def leave(self, call: WaitingCall) -> None:
        """It has its answer, or has given up."""
        if call in self._calls:
            self._calls.remove(call)

    def answer(self, calls: Sequence[WaitingCall], denials: Denials | None) -> None:
        """Wake those of these calls that still wait."""
        for call in calls:
            if not call.answer.done():
                call.answer.set_result(denials)
            self.leave(call)

    def at_once(self) -> tuple[WaitingCall, ...]:
        """The first calls whose accounts fit into one request; at least one call."""
        accounts: set[protocol.AccountRef] = set()
        for count, call in enumerate(self._calls):
            accounts.update(lack.account for lack in call.shortfalls)
            if count and len(accounts) > protocol.MAX_WANTS:
                return tuple(self._calls[:count])
        return tuple(self._calls)


def untouched(calls: Sequence[WaitingCall], denials: Denials) -> tuple[WaitingCall, ...]:
    """Calls that need no account of these denials: another user's empty budget is not theirs."""
    denied = {denial.account for denial in denials}
    return tuple(call for call in calls if denied.isdisjoint(lack.account for lack in call.shortfalls))
