"""
What providers have asked of us beyond one call: targets that are to be left alone, accounts that are out of money.

Shared by all calls of a sidecar, and kept over policy swaps. Both are bounded in time, because they come from
strangers: a pause ends by itself, and an account is asked again with one real call. Left out: ejection after errors,
which is ours (`breaker`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.specs import ProviderSpec

MAX_PAUSE_SECONDS = 300.0
"""The longest pause that a hint sets for all calls, as Linkerd bounds it; the call that got it honors all of it."""
MAX_PAUSED = 256
"""Targets that are remembered: model names come from clients."""
SHORTEST_PAUSE_SECONDS = 0.001
"""What is left below this is over: a timer may end that much early."""


@once
def account_of(provider: ProviderSpec) -> str:
    """Who pays for a provider's calls, and where: the name of the key and the host. Never the key."""
    return f"{provider.key_name}@{urlsplit(provider.base_url).netloc}"


class Unpaid(Struct, gc=False):
    """An account that is out of money."""

    code: str
    """What the provider says about it."""
    asked_again_at: float
    """Until then no call goes there; one goes then, and moves this on."""
    generation: int


class Restraints:
    """Asked for each target before it is called; while there is nothing to obey, that is two empty dictionaries."""

    def __init__(self) -> None:
        self._paused: dict[tuple[str, str], float] = {}
        self._unpaid: dict[str, Unpaid] = {}
        self._generation = 0

    # --- pauses -----------------------------------------------------------------------------------------------

    def pause(self, provider: ProviderSpec, model: str, seconds: float, now: float) -> None:
        """The provider asks not to be called for so long, with this key and for this model."""
        if seconds < SHORTEST_PAUSE_SECONDS:
            return
        key = account_of(provider), model
        if len(self._paused) >= MAX_PAUSED and key not in self._paused:
            self._paused = {each: until for each, until in self._paused.items() if until > now}
            if len(self._paused) >= MAX_PAUSED:
                del self._paused[min(self._paused, key=self._paused.__getitem__)]
        self._paused[key] = max(now + min(seconds, MAX_PAUSE_SECONDS), self._paused.get(key, now))

    def paused_for(self, provider: ProviderSpec, model: str, now: float) -> float:
        """Seconds until a target's pause is over; 0 where it has none."""
        if not self._paused:
            return 0.0
        key = account_of(provider), model
        if (until := self._paused.get(key)) is None:
            return 0.0
        left = until - now
        if left < SHORTEST_PAUSE_SECONDS:
            del self._paused[key]
            return 0.0
        return left

    # --- accounts -----------------------------------------------------------------------------------------

    def out_of_money(self, provider: ProviderSpec, code: str, now: float, ask_again_seconds: float) -> None:
        """The provider says that the account is spent."""
        self._generation += 1
        self._unpaid[account_of(provider)] = Unpaid(code, now + ask_again_seconds, self._generation)

    def unpaid_for(self, provider: ProviderSpec, now: float) -> float:
        """Seconds until the provider's account is asked again; 0 where a call may go there."""
        if not self._unpaid:
            return 0.0
        unpaid = self._unpaid.get(account_of(provider))
        return 0.0 if unpaid is None else max(0.0, unpaid.asked_again_at - now)

    def sent(self, provider: ProviderSpec, now: float, ask_again_seconds: float) -> int:
        """
        A call goes to the provider. Answers what `paid` wants if it is the one that asks a spent account again, else 0.

        No other goes there meanwhile, for so long: a call that never ends asks once.
        """
        unpaid = self._unpaid.get(account_of(provider)) if self._unpaid else None
        if unpaid is None:
            return 0
        self._generation += 1
        unpaid.generation, unpaid.asked_again_at = self._generation, now + ask_again_seconds
        return unpaid.generation

    def paid(self, provider: ProviderSpec, asked: int) -> None:
        """The call that asked was served. One that began before the account was spent proves nothing."""
        account = account_of(provider)
        unpaid = self._unpaid.get(account)
        if unpaid is not None and unpaid.generation == asked:
            del self._unpaid[account]

    def unpaid(self, provider: ProviderSpec) -> str:
        """What a provider's spent account says, for metrics and `/status`; empty where it pays."""
        unpaid = self._unpaid.get(account_of(provider)) if self._unpaid else None
        return unpaid.code or "unpaid" if unpaid is not None else ""
