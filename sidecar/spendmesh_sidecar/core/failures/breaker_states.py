"""
The words of a breaker: its states and the one table of how they follow each other, what a call says about its target,
and the leave to make one call.

States are `serving`, `ejected`, `probing` ("open" and "closed" mean opposite things in different projects). When an
event happens is `breaker`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, Protocol

from msgspec import Struct

State = Literal["serving", "ejected", "probing"]

Reason = Literal["consecutive", "ratio", "probe", "dishonest_usage"]
"""Why a target was ejected: failures in a row, the share of bad calls, a probe that failed, or usage that the
request cannot have had. Accounts without money are `restraints`'."""


class Event(Enum):
    """What moves a breaker."""

    TRIPPED = "tripped"
    """Too many bad calls, or one thing that no number of good answers excuses."""
    DUE = "due"
    """A call asks for leave after the ejection's time."""
    RECOVERED = "recovered"
    """The probe succeeded."""
    RELAPSED = "relapsed"
    """The probe failed."""
    SWITCHED_OFF = "switched_off"
    """The policy ejects nothing any more."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    ("serving", Event.TRIPPED): "ejected",
    ("ejected", Event.DUE): "probing",
    ("probing", Event.RECOVERED): "serving",
    ("probing", Event.RELAPSED): "ejected",
    ("probing", Event.TRIPPED): "ejected",
    ("ejected", Event.SWITCHED_OFF): "serving",
    ("probing", Event.SWITCHED_OFF): "serving",
}
"""All that can happen. Each transition begins a generation; a pair that is not here is a defect (resilience4j #674: a
breaker that went from half open to half open)."""


class Verdict(Enum):
    """What one call says about its target."""

    SUCCESS = "success"
    FAILURE = "failure"
    SOFT_FAILURE = "soft_failure"
    """It lives, but throttles or is slow: that counts in the share of bad calls, never in a row."""
    NEUTRAL = "neutral"
    """Nothing: cancelled, refused for the caller's own reasons, or never sent."""


class Permit(Struct, gc=False):
    """Leave to make one call. Its result counts only in the generation it was given in."""

    generation: int
    probe: bool = False
    slow: bool = False
    """The first byte took too long, so that a good end is no success."""
    settled: bool = False


BESIDE = 0
"""The generation of calls that go to a target although it is ejected: breakers begin at 1, so it is never theirs."""


def beside() -> Permit:
    """Leave for a call whose result no breaker counts."""
    return Permit(BESIDE)


class BreakerError(RuntimeError):
    """A permit was settled twice, or a state was left the wrong way: a defect of the caller."""


class Rng(Protocol):
    """Chance, handed in: `random.Random` in the shell, seeded in tests."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...
