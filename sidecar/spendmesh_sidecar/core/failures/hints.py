"""
How long a provider asks to wait: `Retry-After`, `retry-after-ms`, the resets of rate limits, Google's `RetryInfo`.

Hints come from strangers: what is absent, negative, not a number, or further away than `ABSURD_SECONDS` says nothing,
and what is left is at most `MAX_HINT_SECONDS`. What is done about a hint is `attempts`' and `pauses`' business.
"""

from __future__ import annotations

import math
import re
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz

from msgspec import Struct

Headers = Sequence[tuple[str, str]]
"""Names in any case, in the order of the wire, repeated ones included."""

MAX_HINT_SECONDS = 86_400.0
"""A day: longer waits are a day too, since nothing here waits longer."""
ABSURD_SECONDS = 10 * 365 * 86_400.0
MAX_HINT_CHARACTERS = 64

_UNIT_SECONDS = {"ms": 0.001, "us": 0.000_001, "µs": 0.000_001, "ns": 0.000_000_001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|us|µs|ns|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern}){{1,6}}")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+")

Reader = Callable[[str, float], float | None]
"""(text, now in Unix seconds) -> seconds to wait, not bounded yet; None for what is none."""


# --- how a hint is written --------------------------------------------------------------------------------


def number(text: str, now_unix: float = 0.0) -> float | None:
    """Seconds as a decimal number; None for a sign, a name, or anything else."""
    return float(text) if _NUMBER.fullmatch(text) else None


def duration(text: str, now_unix: float = 0.0) -> float | None:
    """A duration as Go writes it (`6m0s`, `12ms`, `1h2m3.5s`), or a plain number of seconds."""
    if _DURATION.fullmatch(text):
        return math.fsum(float(count) * _UNIT_SECONDS[unit] for count, unit in _PART.findall(text))
    return number(text)


def moment(text: str, now_unix: float) -> float | None:
    """Seconds until a moment of RFC 3339 (`2026-11-22T00:00:30Z`); 0 where it has passed."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    try:
        at = timegm((year, month, day, hour, minute, second))
    except (ValueError, IndexError):
        return None  # a month that there is not
    if found[8]:
        at -= (60 * int(found[9]) + int(found[10])) * (60 if found[8] == "+" else -60)
    return max(0.0, at + float(found[7] or 0) - now_unix)


def http_date(text: str, now_unix: float) -> float | None:
    """Seconds until a date as HTTP writes it; 0 where it has passed."""
    date = parsedate_tz(text)
    if date is None:
        return None
    try:
        return max(0.0, mktime_tz(date) - now_unix)
    except (OverflowError, ValueError):
        return None


def milliseconds(text: str, now_unix: float = 0.0) -> float | None:
    """A number of milliseconds."""
    found = number(text)
    return None if found is None else found / 1000


# --- where hints are written ------------------------------------------------------------------------------


class Limit(Struct, frozen=True, gc=False):
    """Headers of one rate limit: what is left of it, and when it is whole again."""

    remaining: str
    reset: str
    read: Reader


ASKED: Sequence[tuple[str, tuple[Reader, ...]]] = (
    ("retry-after-ms", (milliseconds,)),  # Azure; the SDKs read it first
    ("retry-after", (number, http_date)),  # RFC 9110 §10.2.3; fractions are written too
)
"""Headers by which a provider asks for a pause: the first that can be read speaks."""

LIMITS: tuple[Limit, ...] = (
    *(
        Limit(f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}", duration)
        for name in ("requests", "tokens")  # OpenAI, Groq, Mistral
    ),
    *(
        Limit(f"anthropic-ratelimit-{name}-remaining", f"anthropic-ratelimit-{name}-reset", moment)
        for name in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
LIMITED_STATUS = 429
"""Only with this one does a rate limit's reset say when to come back: other answers carry the same headers."""

RETRY_INFO = "google.rpc.RetryInfo"


def waiting_hint(status: int, headers: Headers, body_hint: str, now_unix: float) -> float | None:
    """
    Seconds that an error answer asks to wait, at most a day; None: it does not say.

    What asks outright goes before `body_hint` (`retry_delay`), and both before the resets of rate limits. These count
    where a limit is used up; where several are, the last one; where none says so, the first.
    """
    values = _read(headers)
    for name, readers in ASKED:
        if (asked := _first(values.get(name, ""), readers, now_unix)) is not None:
            return asked
    if (asked := _first(body_hint, (duration,), now_unix)) is not None:
        return asked
    return _reset(values, now_unix) if status == LIMITED_STATUS else None


def retry_delay(details: object) -> str:
    """What Google's `RetryInfo` among an error's details says; empty where there is none."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith(RETRY_INFO):
            delay = detail.get("retryDelay")
            return delay if isinstance(delay, str) else ""
    return ""


def bounded(seconds: float | None) -> float | None:
    """A wait that can be believed, at most a day; None for what is negative, infinite, not a number or absurd."""
    if seconds is None or not 0 <= seconds <= ABSURD_SECONDS:  # NaN compares as false
        return None
    return min(seconds, MAX_HINT_SECONDS)


def _reset(values: Mapping[str, str], now_unix: float) -> float | None:
    used_up: list[float] = []
    others: list[float] = []
    for limit in LIMITS:
        wait = _first(values.get(limit.reset, ""), (limit.read,), now_unix)
        if wait is not None:
            (used_up if number(values.get(limit.remaining, "")) == 0 else others).append(wait)
    return max(used_up) if used_up else min(others, default=None)


def _first(text: str, readers: Iterable[Reader], now_unix: float) -> float | None:
    if not text or len(text) > MAX_HINT_CHARACTERS:
        return None
    for read in readers:
        try:
            found = read(text, now_unix)
        except OverflowError:
            return None
        if found is not None:
            return bounded(found)
    return None


_NAMES = frozenset({name for name, _ in ASKED} | {name for limit in LIMITS for name in (limit.remaining, limit.reset)})


def _read(headers: Headers) -> dict[str, str]:
    """The headers that hints are in; of a repeated one the first."""
    values: dict[str, str] = {}
    for raw_name, value in headers:
        if (name := raw_name.lower()) in _NAMES:
            values.setdefault(name, value.strip())
    return values
