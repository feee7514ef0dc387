"""Anthropic's prompt cache: which part of a prompt was read, written for five minutes or for an hour. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ttl = Literal["5m", "1h"]
_LIFETIME_SECONDS: dict[Ttl, float] = {"5m": 300.0, "1h": 3600.0}
MIN_TOKENS = 1024  # a shorter prefix is processed without caching, as at Anthropic


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A place marked with `cache_control`: the digest and the tokens of everything up to it."""

    digest: bytes
    tokens: int
    ttl: Ttl


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Prompt tokens by what the cache did with them."""

    read: int = 0
    write_5m: int = 0
    write_1h: int = 0


class PromptCache:
    """Remembers prefixes by account and model."""

    def __init__(self) -> None:
        self._expiry: dict[tuple[str, str, bytes], float] = {}

    def use(self, account: str, model: str, places: Sequence[Breakpoint], now: float) -> CacheUse:
        """Read the longest known prefix, write the rest up to the last breakpoint; reading refreshes it."""
        read = write_5m = write_1h = 0
        places = [place for place in places if place.tokens >= MIN_TOKENS]
        for place in places:
            if self._expiry.get((account, model, place.digest), 0.0) > now:
                read = place.tokens
        done = read
        for place in places:
            self._expiry[account, model, place.digest] = now + _LIFETIME_SECONDS[place.ttl]
            fresh = max(0, place.tokens - done)
            done += fresh
            if place.ttl == "1h":
                write_1h += fresh
            else:
                write_5m += fresh
        return CacheUse(read, write_5m, write_1h)

    def clear(self) -> None:
        """Forget everything."""
        self._expiry.clear()
