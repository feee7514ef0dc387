"""
Calls that wait for rights: who can be asked for together, and who hears what.

What to ask is `leases`' business, which does it; an answer wakes each call once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spendmesh_sidecar import protocol
from spendmesh_sidecar.core.ledger.rights import Denial
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
        self._asked_for: set[WaitingCall] = set()
        self._together = True
        """False after a refusal: the first is then asked for alone, which one answer settles."""
        self.called = asyncio.Event()
        """Somebody may have to be asked for."""

    @property
    def unasked(self) -> tuple[WaitingCall, ...]:
        """Those that no open question asks for."""
        return tuple(call for call in self._calls if call not in self._asked_for)

    def add(self, shortfalls: tuple[Shortfall, ...], until: float) -> WaitingCall:
        """A call that waits from now on, until it `leave`s."""
        call = WaitingCall(shortfalls, until, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self.called.set()
        return call

    def leave(self, call: WaitingCall) -> None:
        """It has its answer, or has given up."""
        self._asked_for.discard(call)
        if call in self._calls:
            self._calls.remove(call)

    def answer(self, calls: Sequence[WaitingCall], denials: Denials | None) -> None:
        """Wake those of these calls that still wait."""
        for call in calls:
            if not call.answer.done():
                call.answer.set_result(denials)
            self.leave(call)

    def answer_alike(self, standing: Callable[[tuple[Shortfall, ...]], Denials]) -> None:
        """Those who would only hear what another call has just heard."""
        for call in tuple(self._calls):
            if denials := standing(call.shortfalls):
                self.answer((call,), denials)

    def wake(self, free: Callable[[Shortfall], int], first: Sequence[WaitingCall] = ()) -> None:
        """Rights came: for those asked for `first`, who then finds all it needs, and who is not asked for yet."""
        fitting = self._fitting(free, first)
        self.answer((*first, *fitting, *self.unasked), ())

    def served(self, free: Callable[[Shortfall], int], calls: Sequence[WaitingCall] | None = None) -> bool:
        """
        Whether one of these calls, or of all, finds what it waits for, whoever's answer brought it; or none waits any
        more.
        """
        waiting = [call for call in (self._calls if calls is None else calls) if not call.answer.done()]
        return not waiting or any(call in waiting for call in self._fitting(free, waiting))

    def ask(self) -> tuple[WaitingCall, ...]:
        """Who is asked for next, until `asked`; empty: nobody before `called`."""
        self.called.clear()
        self._together = self._together or not self._calls
        calls = _at_once(self.unasked) if self._together else self.unasked[:1]
        self._asked_for.update(calls)
        return calls

    def asked(self, calls: Sequence[WaitingCall], *, granted: bool) -> None:
        """No question asks for these any more. Not `granted`: the first of them was refused."""
        self._asked_for.difference_update(calls)
        self._together = granted
        self.called.set()

    def _fitting(self, free: Callable[[Shortfall], int], first: Sequence[WaitingCall]) -> tuple[WaitingCall, ...]:
        """Those that find all they wait for, one after the other."""
        left: dict[protocol.AccountRef, int] = {}
        found = []
        for call in sorted(self._calls, key=lambda call: call not in first):
            for lack in call.shortfalls:
                left.setdefault(lack.account, free(lack))
            fits = all(left[lack.account] >= lack.amount for lack in call.shortfalls)
            for lack in call.shortfalls:
                left[lack.account] -= lack.amount if fits else lack.amount - lack.need
            if fits:
                found.append(call)
        return tuple(found)


def _at_once(calls: tuple[WaitingCall, ...]) -> tuple[WaitingCall, ...]:
    """The first calls whose accounts fit into one request; at least one call."""
    accounts: set[protocol.AccountRef] = set()
    for count, call in enumerate(calls):
        accounts.update(lack.account for lack in call.shortfalls)
        if count and len(accounts) > protocol.MAX_WANTS:
            return calls[:count]
    return calls


def untouched(calls: Sequence[WaitingCall], denials: Denials) -> tuple[WaitingCall, ...]:
    """Calls that need no account of these denials: another user's empty budget is not theirs."""
    denied = {denial.account for denial in denials}
    return tuple(call for call in calls if denied.isdisjoint(lack.account for lack in call.shortfalls))
